//! Removes the secrets that a job was given from what it left.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use aho_corasick::{AhoCorasick, MatchKind};
use kodo_contract::{ContentHash, NodeKind, Tree, TreePath, sha256_hex};
use sha2::{Digest, Sha256};

use crate::{JobResult, JobSpec, SandboxError, Skipped, Workspace};

/// The shortest secret, in bytes. A shorter one would be found in ordinary output.
pub(crate) const SHORTEST: usize = 8;

/// The length in characters from which on text of a sandbox, or the name of what is not handed back, may have been cut.
const CUT: usize = Skipped::MAX_NAME;

/// The secrets that one job was given, by name. Its debug output shows the names alone.
pub(crate) struct Taken(pub(crate) Vec<(String, Vec<u8>)>);

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Taken {
    /// Removes every secret from what a job left: the secret as it is, and each of its lines that is long enough to be one.
    /// What a job derives from a secret, its base64 for instance, is not recognised.
    pub(crate) fn redact(
        &self,
        result: &mut JobResult,
        spec: &JobSpec,
    ) -> Result<(), SandboxError> {
        let Some(redactor) = self.redactor()? else {
            return Ok(());
        };
        for stream in [&mut result.stdout, &mut result.stderr] {
            stream.redact(
                &|bytes| redactor.whole(bytes),
                &|bytes| redactor.head(bytes),
                &|bytes| redactor.tail(bytes),
            );
        }
        for file in &mut result.files {
            file.name = redactor.text(&file.name);
            let content = redactor.whole(&file.content);
            if content != file.content {
                file.sha256 = sha256_hex(&content);
                file.content = content;
            }
        }
        if let (Some(tree), Some(workspace)) = (&mut result.workspace, &spec.workspace) {
            let removed = redactor.tree(tree, workspace);
            let removed = removed.map_err(|error| SandboxError::Unavailable {
                reason: format!("the workspace cannot be searched for secrets: {error}"),
            })?;
            for path in removed {
                Skipped::add(&mut result.skipped, &redactor.text(&path.text()), "secret");
            }
        }
        let names = result.skipped.iter_mut().map(|it| &mut it.name);
        // Both name paths: a limit of the workspace, and what the job was refused.
        let said = result.told.iter_mut().chain(result.enforced.values_mut());
        for text in names.chain(said) {
            *text = redactor.cut_text(text);
        }
        Ok(())
    }

    fn redactor(&self) -> Result<Option<Redactor>, SandboxError> {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        let mut words: Vec<Vec<u8>> = Vec::new();
        for (name, value) in &self.0 {
            let lines = value.split(|it| *it == b'\n').map(<[u8]>::trim_ascii);
            for part in std::iter::once(value.as_slice()).chain(lines) {
                // A path in a text is escaped.
                let escaped = String::from_utf8_lossy(part).escape_debug().to_string();
                for form in [part, escaped.as_bytes()] {
                    if part.len() >= SHORTEST && !patterns.iter().any(|known| known == form) {
                        patterns.push(form.to_vec());
                        words.push(format!("[secret {name}]").into_bytes());
                    }
                }
            }
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns)
            // There are too many bytes of secrets to search for, so the output must not be kept.
            .map_err(|error| SandboxError::SecretRefused {
                name: self.0.iter().map(|it| it.0.as_str()).collect(),
                reason: error.to_string(),
            })?;
        Ok(Some(Redactor {
            automaton,
            patterns,
            words,
        }))
    }
}

struct Redactor {
    automaton: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Redactor {
    /// Removes secrets from the files of a workspace that were not there before the call. An entry whose path or target has
    /// a secret is not carried, nor is what is below it; returns those.
    fn tree(&self, tree: &mut Tree, workspace: &Workspace) -> io::Result<Vec<TreePath>> {
        let has_secret = |bytes: &[u8]| self.automaton.is_match(bytes);
        let mut gone = Vec::new();
        for (path, node) in tree.iter() {
            let target = match &node.kind {
                NodeKind::Symlink(to) | NodeKind::HardLink(to) => to.as_bytes(),
                _ => &[],
            };
            if has_secret(path.as_bytes()) || has_secret(target) {
                gone.push(path.clone());
            }
        }
        for path in &gone {
            tree.remove(path);
        }
        let before: HashSet<&ContentHash> = workspace
            .tree
            .iter()
            .filter_map(|(_, node)| Some(node.content()?.0))
            .collect();
        let mut redacted: HashMap<ContentHash, Option<(ContentHash, u64)>> = HashMap::new();
        let mut changed = Vec::new();
        for (path, node) in tree.iter() {
            let Some((hash, _)) = node.content().filter(|(hash, _)| !before.contains(hash)) else {
                continue;
            };
            if !redacted.contains_key(hash) {
                redacted.insert(hash.clone(), self.content(hash, workspace)?);
            }
            if let Some((sha256, size)) = redacted[hash].clone() {
                let kind = NodeKind::File { sha256, size };
                changed.push((
                    path.clone(),
                    kodo_contract::Node {
                        kind,
                        ..node.clone()
                    },
                ));
            }
        }
        for (path, node) in changed {
            tree.insert(path, node);
        }
        Ok(gone)
    }

    /// Writes content without its secrets beside it; `None` if it has none.
    fn content(
        &self,
        hash: &ContentHash,
        workspace: &Workspace,
    ) -> io::Result<Option<(ContentHash, u64)>> {
        let spool = &workspace.content;
        let open = || {
            spool
                .open(hash)
                .ok_or(io::Error::from(io::ErrorKind::NotFound))
        };
        // Once to see whether there is anything, and how much is left without it.
        let (mut found, mut size) = (false, 0);
        self.replaced(open()?, |piece, replaced| {
            found |= replaced;
            size += piece.len() as u64;
            Ok(())
        })?;
        if !found {
            return Ok(None);
        }
        let (begin, file, mut digest) = (spool.reserve(size), spool.file(), Sha256::new());
        let mut at = begin;
        self.replaced(open()?, |piece, _| {
            file.write_all_at(piece, at)?;
            digest.update(piece);
            at += piece.len() as u64;
            Ok(())
        })?;
        let clean = ContentHash::from_digest(digest.finalize().into());
        spool.add(clean.clone(), begin..at);
        Ok(Some((clean, size)))
    }

    /// Reads content in pieces, and hands on what stands in place of it, and whether that is a replacement.
    fn replaced(
        &self,
        mut content: impl Read,
        mut each: impl FnMut(&[u8], bool) -> io::Result<()>,
    ) -> io::Result<()> {
        const PIECE: usize = 256 * 1024;
        let longest = self.patterns.iter().map(Vec::len).max().unwrap_or(1);
        let (mut held, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let count = content.read(&mut piece)?;
            held.extend_from_slice(&piece[..count]);
            // A secret that begins before this ends in what is held.
            let safe = match count {
                0 => held.len(),
                _ => (held.len() + 1).saturating_sub(longest),
            };
            let mut at = 0;
            for found in self.automaton.find_iter(&held) {
                if found.start() >= safe {
                    break;
                }
                each(&held[at..found.start()], false)?;
                each(&self.words[found.pattern().as_usize()], true)?;
                at = found.end();
            }
            if at < safe {
                each(&held[at..safe], false)?;
                at = safe;
            }
            held.drain(..at);
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn whole(&self, bytes: &[u8]) -> Vec<u8> {
        self.automaton.replace_all_bytes(bytes, &self.words)
    }

    fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.whole(text.as_bytes())).into_owned()
    }

    /// The same of text that may have been cut, possibly within a secret.
    fn cut_text(&self, text: &str) -> String {
        if text.chars().count() < CUT {
            return self.text(text);
        }
        String::from_utf8_lossy(&self.head(text.as_bytes())).into_owned()
    }

    /// The beginning of text that was cut: the end of it may be a part of a secret, and is removed.
    fn head(&self, bytes: &[u8]) -> Vec<u8> {
        let bytes = self.whole(bytes);
        let longest = |pattern: &Vec<u8>| {
            let most = (pattern.len() - 1).min(bytes.len());
            (1..=most)
                .rev()
                .find(|&count| bytes.ends_with(&pattern[..count]))
        };
        let cut = self.patterns.iter().filter_map(longest).max().unwrap_or(0);
        bytes[..bytes.len() - cut].to_vec()
    }

    /// The end of text that was cut: the same for its beginning.
    fn tail(&self, bytes: &[u8]) -> Vec<u8> {
        let bytes = self.whole(bytes);
        let longest = |pattern: &Vec<u8>| {
            let most = (pattern.len() - 1).min(bytes.len());
            (1..=most)
                .rev()
                .find(|&count| bytes.starts_with(&pattern[pattern.len() - count..]))
        };
        let cut = self.patterns.iter().filter_map(longest).max().unwrap_or(0);
        bytes[cut..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::tests::{KEY, file, folder, give, variable};
    use crate::{Captured, Ended, OutputFile, Skipped, Usage};

    fn result(stdout: Captured, stderr: Captured) -> JobResult {
        JobResult {
            provider: "test",
            ended: Ended::Exited(0),
            stdout,
            stderr,
            files: vec![OutputFile {
                name: format!("{KEY}.txt"),
                content: format!("a {KEY} b").into_bytes(),
                sha256: sha256_hex(format!("a {KEY} b").as_bytes()),
                executable: false,
            }],
            workspace: None,
            told: None,
            skipped: vec![Skipped {
                name: KEY.to_owned(),
                kind: "symlink".to_owned(),
            }],
            limits: crate::Limits::default(),
            enforced: std::collections::BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    fn captured(keeping: u64, text: &str) -> Captured {
        let mut stream = Captured::keeping(keeping);
        stream.push(text.as_bytes());
        stream
    }

    #[test]
    fn a_secret_is_in_nothing_that_a_job_left() {
        let (_kept, secrets) = folder();
        let (_, taken) = give(
            &secrets,
            &["KEY", "PEM"],
            &[variable("KEY"), file("PEM", "p")],
        )
        .unwrap();
        let mut result = result(
            captured(1000, &format!("{KEY}{KEY} end")),
            captured(1000, "one line: MIIBVwIBADANBgkq."),
        );
        taken.redact(&mut result, &JobSpec::new(["true"])).unwrap();
        assert_eq!(result.stdout.text(), "[secret KEY][secret KEY] end");
        assert_eq!(result.stderr.text(), "one line: [secret PEM].");
        assert_eq!(result.files[0].name, "[secret KEY].txt");
        assert_eq!(result.files[0].content, b"a [secret KEY] b");
        assert_eq!(result.files[0].sha256, sha256_hex(b"a [secret KEY] b"));
        assert_eq!(result.skipped[0].name, "[secret KEY]");
    }

    #[test]
    fn a_secret_is_in_nothing_that_a_sandbox_says_of_a_job() {
        let value = "quote\"back\\slash\tand more";
        let taken = Taken(vec![("ODD".to_owned(), value.as_bytes().to_vec())]);
        let mut result = result(Captured::keeping(0), Captured::keeping(0));
        let fault = kodo_contract::TreeFault::NoFolder {
            path: format!("a/{value}/b").as_str().into(),
        };
        result.told = Some(fault.to_string());
        let refused = format!("open {value}: Landlock");
        result.enforced.insert("refused", refused);
        result.enforced.insert("memory", "by a cgroup".to_owned());
        taken.redact(&mut result, &JobSpec::new(["true"])).unwrap();
        let told = result.told.take().unwrap();
        assert!(told.starts_with("\"a/[secret ODD]/b\""), "{told}");
        assert_eq!(result.enforced["refused"], "open [secret ODD]: Landlock");
        assert_eq!(result.enforced["memory"], "by a cgroup");
        // Cut within it, by whoever said it.
        let text = format!("{}{}", "x".repeat(CUT - 10), value.escape_debug());
        result.told = Some(text.chars().take(CUT).collect());
        taken.redact(&mut result, &JobSpec::new(["true"])).unwrap();
        assert_eq!(result.told, Some("x".repeat(CUT - 10)));
    }

    #[test]
    fn a_secret_that_was_cut_leaves_no_part_of_itself() {
        let (_kept, secrets) = folder();
        let (_, taken) = give(&secrets, &["KEY"], &[variable("KEY")]).unwrap();
        let middle = "-".repeat(100);
        for shift in 0..=40 {
            let text = format!(
                "{}{KEY}{middle}{KEY}{}",
                "h".repeat(shift),
                "t".repeat(shift)
            );
            let mut result = result(captured(60, &text), Captured::keeping(0));
            assert!(result.stdout.truncated());
            let missing = text.len() - 60;
            taken.redact(&mut result, &JobSpec::new(["true"])).unwrap();
            let left = result.stdout.text();
            assert!(
                left.contains(&format!("[{missing} bytes are not kept]")),
                "{left}"
            );
            for part in KEY.as_bytes().windows(5) {
                let part = std::str::from_utf8(part).unwrap();
                assert!(!left.contains(part), "{shift}: {part} in {left}");
            }
        }
    }

    #[test]
    fn a_secret_is_in_nothing_that_is_carried() {
        let (_kept, secrets) = folder();
        let (_, taken) = give(&secrets, &["KEY"], &[variable("KEY")]).unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut spec = JobSpec::new(["true"]);
        let content = std::sync::Arc::new(crate::Spool::in_folder(place.path()).unwrap());
        let put = |bytes: &[u8]| {
            let at = content.reserve(bytes.len() as u64);
            content.file().write_all_at(bytes, at).unwrap();
            let hash = ContentHash::of(bytes);
            content.add(hash.clone(), at..at + bytes.len() as u64);
            let size = bytes.len() as u64;
            kodo_contract::Node::new(NodeKind::File { sha256: hash, size }, 0o644, 0)
        };
        let link = |to: &str| kodo_contract::Node::new(NodeKind::Symlink(to.into()), 0o777, 0);
        // At every place around the border of a piece.
        let long = |shift: usize| format!("{}{KEY}{KEY}end", "-".repeat(256 * 1024 - shift));
        let mut result = result(Captured::keeping(0), Captured::keeping(0));
        let mut tree: Tree = [
            ("harmless".into(), put(b"nothing")),
            ("link".into(), link(&format!("/x/{KEY}"))),
            (
                format!("{KEY}.d").as_str().into(),
                kodo_contract::Node::new(NodeKind::Folder, 0o755, 0),
            ),
            (format!("{KEY}.d/below").as_str().into(), put(b"below")),
        ]
        .into_iter()
        .collect();
        for shift in 0..2 * KEY.len() + 2 {
            tree.insert(
                format!("long-{shift}").as_str().into(),
                put(long(shift).as_bytes()),
            );
        }
        result.workspace = Some(tree);
        spec.workspace = Some(Workspace {
            tree: Tree::default(),
            content: std::sync::Arc::clone(&content),
            bounds: kodo_contract::TreeBounds::default(),
        });
        taken.redact(&mut result, &spec).unwrap();
        let tree = result.workspace.unwrap();
        assert_eq!(tree.get(&"harmless".into()), Some(&put(b"nothing")));
        assert_eq!(
            tree.len(),
            1 + 2 * KEY.len() + 2,
            "neither the link nor the folder"
        );
        for shift in 0..2 * KEY.len() + 2 {
            let node = tree.get(&format!("long-{shift}").as_str().into()).unwrap();
            let (hash, size) = node.content().unwrap();
            let clean = content.read(hash).unwrap();
            let expected = long(shift).replace(KEY, "[secret KEY]");
            assert!(
                clean == expected.as_bytes() && size == clean.len() as u64,
                "{shift}"
            );
        }
        assert!(result.skipped.iter().all(|it| !it.name.contains(KEY)));
    }

    #[test]
    fn without_a_secret_nothing_is_changed() {
        let mut result = result(captured(10, KEY), Captured::keeping(0));
        let before = (result.stdout.clone(), result.files.clone());
        Taken(Vec::new())
            .redact(&mut result, &JobSpec::new(["true"]))
            .unwrap();
        assert_eq!(before, (result.stdout, result.files));
    }
}
