//! What comes of a call: its result, the files of its workspace that are artifacts, the workspace itself.

use globset::{GlobBuilder, GlobSet};
use kodo_contract::{ContentHash, NodeKind, ToolFile, Tree, TreePath};
use serde_json::json;

use crate::{
    JobResult, JobSpec, SandboxError, Skipped, ToolJob, ToolOutcome, result_of, tool_file,
};

/// From this many bytes on, the content of a file that a call left in its workspace is not in its result.
pub const INLINE_BELOW: u64 = 64 * 1024;

/// The most patterns of one call, and their most characters.
const MAX_PATTERNS: usize = 64;
const MAX_PATTERN: usize = 1024;

/// What came of a call, from the result of its job without its secrets.
///
/// # Errors
/// [`SandboxError::Unavailable`] if the content of a file cannot be read.
pub fn outcome_of(mut result: JobResult, asked: &ToolJob) -> Result<ToolOutcome, SandboxError> {
    // Checked when the job was made.
    let patterns = asked.artifacts.as_deref().map(patterns_of).transpose();
    let patterns = patterns.map_err(|reason| SandboxError::JobInvalid { reason })?;
    if let Some(patterns) = &patterns {
        result.files.retain(|file| patterns.is_match(&file.name));
    }
    let mut told = result_of(&result);
    let (Some(tree), Some(workspace)) = (result.workspace, &asked.spec.workspace) else {
        return Ok(ToolOutcome {
            result: told,
            workspace: None,
        });
    };
    let given = asked.spec.given();
    let limits = &asked.spec.limits;
    let (mut bytes, mut omitted) = (0_u64, 0_u64);
    for (path, file) in files_of(&tree) {
        let (sha256, size, executable) = file;
        let is_as_given = || file_at(&given, path) == Some(file);
        let Ok(name) = std::str::from_utf8(path.as_bytes()) else {
            if !is_as_given() {
                Skipped::add(&mut result.skipped, &path.text(), "name");
            }
            continue;
        };
        let wanted = match &patterns {
            Some(patterns) => patterns.is_match(name),
            None => !is_as_given(),
        };
        if !wanted {
            continue;
        }
        let many = told.files.len() as u64;
        if many >= limits.returned_files || bytes.saturating_add(size) > limits.returned_bytes {
            omitted += 1;
            continue;
        }
        bytes += size;
        told.files.push(if size < INLINE_BELOW {
            let content = workspace.content.read(sha256);
            let content = content.map_err(|error| SandboxError::Unavailable {
                reason: format!("the content of {path}: {error}"),
            })?;
            tool_file(name, &content, sha256.as_str(), executable)
        } else {
            ToolFile {
                name: name.to_owned(),
                content: None,
                sha256: sha256.as_str().to_owned(),
                size: Some(size),
                encoding: None,
                executable: executable.then_some(true),
                stored: Some(true),
            }
        });
    }
    if let Some(report) = &mut told.report {
        report.insert("skipped".to_owned(), json!(result.skipped));
        report.insert(
            "workspace".to_owned(),
            json!({"entries": tree.len(), "bytes": tree.bytes()}),
        );
        if omitted > 0 {
            let limit = format!(
                "more files than become artifacts (limits.returnedFiles is {}, limits.returnedBytes {}); the workspace has \
                 them all, and `artifacts` chooses",
                limits.returned_files, limits.returned_bytes
            );
            report.insert(
                "artifacts".to_owned(),
                json!({"omitted": omitted, "limit": limit}),
            );
        }
    }
    Ok(ToolOutcome {
        result: told,
        workspace: Some(tree),
    })
}

/// The files that a job created or changed in its workspace, under all of their names, with the hash of their content and
/// whether they can be run.
pub fn files_left<'a>(
    spec: &JobSpec,
    left: &'a Tree,
) -> impl Iterator<Item = (&'a TreePath, &'a ContentHash, bool)> {
    let given = spec.given();
    files_of(left).filter_map(move |(path, file)| {
        let (hash, _, executable) = file;
        (file_at(&given, path) != Some(file)).then_some((path, hash, executable))
    })
}

/// The hash, the size and whether it can be run, of a file.
type TreeFile<'a> = (&'a ContentHash, u64, bool);

/// The files of a tree under all of their names.
fn files_of(tree: &Tree) -> impl Iterator<Item = (&TreePath, TreeFile<'_>)> {
    tree.iter()
        .filter_map(|(path, _)| Some((path, file_at(tree, path)?)))
}

fn file_at<'a>(tree: &'a Tree, path: &TreePath) -> Option<TreeFile<'a>> {
    let node = tree.get(path)?;
    let file = match &node.kind {
        NodeKind::HardLink(to) => tree.get(to)?,
        _ => node,
    };
    let (hash, size) = file.content()?;
    Some((hash, size, file.mode & 0o100 != 0))
}

/// The patterns of paths: `*` and `?` within one name, `**` over folders, `[…]` and `{…,…}`.
pub(crate) fn patterns_of(patterns: &[String]) -> Result<GlobSet, String> {
    if patterns.len() > MAX_PATTERNS || patterns.iter().any(|it| it.len() > MAX_PATTERN) {
        return Err(format!(
            "artifacts: at most {MAX_PATTERNS} patterns of at most {MAX_PATTERN} characters"
        ));
    }
    let mut set = GlobSet::builder();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|error| format!("artifacts: {error}"))?;
        set.add(glob);
    }
    set.build().map_err(|error| format!("artifacts: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use kodo_contract::{Node, ToolCall, TreeBounds};

    use super::*;
    use crate::tool::job_of;
    use crate::{Captured, Ended, Limits, Spool, Usage, Workspace};

    #[test]
    fn a_file_whose_name_is_no_text_is_told_by_the_call_that_left_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let content = Arc::new(Spool::in_folder(folder.path()).unwrap());
        let file = |bytes: &[u8]| {
            let size = bytes.len() as u64;
            let sha256 = content.keep(&mut &*bytes, size).unwrap();
            Node::new(NodeKind::File { sha256, size }, 0o644, 0)
        };
        let path = |name: &[u8]| TreePath::new([name, b"\xff"].concat());
        let given: Tree = [(path(b"old"), file(b"1")), (path(b"changed"), file(b"1"))]
            .into_iter()
            .collect();
        let skipped = |left: Tree| {
            let args = json!({"argv": ["true"]}).as_object().unwrap().clone();
            let call = ToolCall {
                name: "exec".to_owned(),
                args,
                ..ToolCall::default()
            };
            let workspace = Workspace {
                tree: given.clone(),
                content: Arc::clone(&content),
                bounds: TreeBounds::default(),
            };
            let asked = job_of(&call, &[], Some(&workspace)).unwrap();
            let result = JobResult {
                provider: "test",
                ended: Ended::Exited(0),
                stdout: Captured::keeping(0),
                stderr: Captured::keeping(0),
                files: Vec::new(),
                workspace: Some(left),
                told: None,
                skipped: Vec::new(),
                limits: Limits::default(),
                enforced: BTreeMap::new(),
                usage: Usage::default(),
            };
            let report = outcome_of(result, &asked).unwrap().result.report.unwrap();
            let names = report["skipped"].as_array().unwrap().clone();
            names
                .iter()
                .map(|it| it["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let mut left = given.clone();
        left.insert(path(b"changed"), file(b"2"));
        assert_eq!(skipped(left.clone()), ["changed\u{fffd}"]);
        for index in 0..300 {
            let long = format!("{index:0>250}/").repeat(8);
            left.put(path(long.as_bytes()), file(b""));
        }
        let names = skipped(left);
        assert_eq!(names.len(), 256);
        assert!(names.iter().all(|name| name.chars().count() <= 1024));
    }
}
