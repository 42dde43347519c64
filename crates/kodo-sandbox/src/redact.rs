//! Removes the secrets that a job was given from what it left.

use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};
use kodo_contract::sha256_hex;

use crate::{JobResult, SandboxError};

/// The shortest secret, in bytes. A shorter one would be found in ordinary output.
pub(crate) const SHORTEST: usize = 8;

/// The length in characters from which on the name of something that is not handed back may have been cut.
const CUT_NAME: usize = 1024;

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
    pub(crate) fn redact(&self, result: &mut JobResult) -> Result<(), SandboxError> {
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
        for skipped in &mut result.skipped {
            skipped.name = match skipped.name.chars().count() < CUT_NAME {
                true => redactor.text(&skipped.name),
                // The name was cut, possibly within a secret.
                false => {
                    let beginning = redactor.head(skipped.name.as_bytes());
                    String::from_utf8_lossy(&beginning).into_owned()
                }
            };
        }
        Ok(())
    }

    fn redactor(&self) -> Result<Option<Redactor>, SandboxError> {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        let mut words: Vec<Vec<u8>> = Vec::new();
        for (name, value) in &self.0 {
            let lines = value.split(|it| *it == b'\n').map(<[u8]>::trim_ascii);
            for part in std::iter::once(value.as_slice()).chain(lines) {
                if part.len() >= SHORTEST && !patterns.iter().any(|known| known == part) {
                    patterns.push(part.to_vec());
                    words.push(format!("[secret {name}]").into_bytes());
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
    fn whole(&self, bytes: &[u8]) -> Vec<u8> {
        self.automaton.replace_all_bytes(bytes, &self.words)
    }

    fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.whole(text.as_bytes())).into_owned()
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
        taken.redact(&mut result).unwrap();
        assert_eq!(result.stdout.text(), "[secret KEY][secret KEY] end");
        assert_eq!(result.stderr.text(), "one line: [secret PEM].");
        assert_eq!(result.files[0].name, "[secret KEY].txt");
        assert_eq!(result.files[0].content, b"a [secret KEY] b");
        assert_eq!(result.files[0].sha256, sha256_hex(b"a [secret KEY] b"));
        assert_eq!(result.skipped[0].name, "[secret KEY]");
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
            taken.redact(&mut result).unwrap();
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
    fn without_a_secret_nothing_is_changed() {
        let mut result = result(captured(10, KEY), Captured::keeping(0));
        let before = (result.stdout.clone(), result.files.clone());
        Taken(Vec::new()).redact(&mut result).unwrap();
        assert_eq!(before, (result.stdout, result.files));
    }
}
