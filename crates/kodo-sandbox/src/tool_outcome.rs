//! What comes of a call: its result, the files of its workspace that are artifacts, the workspace itself.

use globset::{GlobBuilder, GlobSet};
use kodo_contract::{ContentHash, NodeKind, ToolFile, Tree, TreePath};
use serde_json::json;

use crate::tool_result::output;
use crate::{JobResult, SandboxError, Skipped, ToolJob, ToolOutcome, result_of};

/// From this many bytes on, the content of a file that a call left in its workspace is not in its result.
pub const INLINE_BELOW: u64 = 64 * 1024;

/// The most patterns of one call, and their most characters.
const MAX_PATTERNS: usize = 64;
const MAX_PATTERN: usize = 1024;

/// What came of a call, from the result of its job without its secrets.
pub(crate) fn outcome_of(
    mut result: JobResult,
    asked: &ToolJob,
) -> Result<ToolOutcome, SandboxError> {
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
    for (path, sha256, size, executable) in files_of(&tree) {
        let Ok(name) = std::str::from_utf8(path.as_bytes()) else {
            result.skipped.push(Skipped {
                name: path.text(),
                kind: "name".to_owned(),
            });
            continue;
        };
        let wanted = match &patterns {
            Some(patterns) => patterns.is_match(name),
            None => !files_of_path(&given, path)
                .is_some_and(|(hash, _, was)| hash == sha256 && was == executable),
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
            output(name, &content, sha256.as_str(), executable)
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

/// The files of a tree under all of their names: path, hash, size, whether they can be run.
fn files_of(tree: &Tree) -> impl Iterator<Item = (&TreePath, &ContentHash, u64, bool)> {
    tree.iter().filter_map(|(path, _)| {
        let (hash, size, executable) = files_of_path(tree, path)?;
        Some((path, hash, size, executable))
    })
}

fn files_of_path<'a>(tree: &'a Tree, path: &TreePath) -> Option<(&'a ContentHash, u64, bool)> {
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
