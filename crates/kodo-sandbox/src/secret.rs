//! Secrets: values that a job is given by name at the last moment, and that nothing keeps.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, MatchKind};
use kodo_contract::sha256_hex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{InputFile, JobResult, JobSpec, Overlay, SandboxError};

/// The shortest secret. A shorter one would be found in ordinary output, and guards little.
const SHORTEST: usize = 8;
/// The longest secret: a certificate chain fits.
const LONGEST: usize = 64 * 1024;
/// From where on the name of something that is not handed back may have been cut, in characters.
const CUT_NAME: usize = 1024;
/// The longest name.
const LONGEST_NAME: usize = 128;

/// Where secrets are: a folder with one file for each, as container platforms mount them. The name of the file is the
/// secret's name; its content, without one newline at its end, is the secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFolder(Option<PathBuf>);

/// What one job may have of them.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Where they are.
    pub folder: &'a SecretFolder,
    /// The names that the intent allows. Nothing else is given, whatever a plan asks for.
    pub names: &'a [String],
}

/// A secret that a job asks for, and how it wants it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SecretUse {
    /// As an environment variable of its name.
    Environment(String),
    /// As a file.
    File(SecretFile),
}

/// A secret as a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The secret's name.
    pub name: String,
    /// The file's path in the job's folder.
    pub file: String,
}

impl SecretUse {
    /// The secret's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Environment(name) => name,
            Self::File(file) => &file.name,
        }
    }
}

impl SecretFolder {
    /// The secrets of a folder.
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let Some(folder) = &self.0 else {
            return Err("this service has no secrets: SBX_SECRETS_DIR names no folder".to_owned());
        };
        // The path is the operator's business, and stays out of rows that others read.
        let mut value = fs::read(folder.join(name)).map_err(|error| {
            format!("the folder of SBX_SECRETS_DIR has no such file that can be read: {error}")
        })?;
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        if value.len() < SHORTEST || value.len() > LONGEST {
            return Err(format!(
                "a secret has {SHORTEST} to {LONGEST} bytes, this one has {}",
                value.len()
            ));
        }
        Ok(value)
    }
}

/// The secrets that one job has. Shows none of them.
pub(crate) struct Taken(Vec<(String, Vec<u8>)>);

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Grant<'_> {
    /// Reads what a job asks for and puts it in its place.
    ///
    /// # Errors
    /// [`SandboxError::SecretRefused`] where the intent does not allow a secret or there is none of that name. Nothing
    /// was run.
    pub(crate) fn give(
        &self,
        job: &mut JobSpec,
        wanted: &[SecretUse],
    ) -> Result<Taken, SandboxError> {
        let mut taken = Vec::with_capacity(wanted.len());
        for one in wanted {
            let name = one.name();
            let refuse = |reason: String| SandboxError::SecretRefused {
                name: name.chars().take(LONGEST_NAME).collect(),
                reason,
            };
            if !is_name(name) {
                return Err(refuse(format!(
                    "a name has 1 to {LONGEST_NAME} letters, digits and underscores, and no digit first"
                )));
            }
            if !self.names.iter().any(|allowed| allowed == name) {
                return Err(refuse(
                    "the intent's constraints.secrets does not name it".to_owned(),
                ));
            }
            let value = self.folder.read(name).map_err(refuse)?;
            match one {
                SecretUse::Environment(name) => {
                    let text = String::from_utf8(value.clone())
                        .ok()
                        .filter(|text| !text.contains('\0'))
                        .ok_or_else(|| {
                            refuse("it is no text, so it can only be given as a file".to_owned())
                        })?;
                    job.env.insert(name.clone(), text);
                }
                SecretUse::File(file) => {
                    let mut files = Overlay::default();
                    for it in job.files.drain(..) {
                        files.put(&it.name.clone(), it);
                    }
                    let secret = InputFile {
                        name: file.file.clone(),
                        content: value.clone(),
                        executable: false,
                    };
                    files.put(&file.file, secret);
                    job.files = files.into_files().collect();
                }
            }
            if !taken.iter().any(|(known, _)| known == name) {
                taken.push((name.to_owned(), value));
            }
        }
        Ok(Taken(taken))
    }
}

/// The names of the secrets that an intent's constraints grant to its jobs: those of `secrets`, an array. A constraint of
/// another shape grants nothing.
#[must_use]
pub fn granted_secrets(constraints: &Map<String, Value>) -> Vec<String> {
    let names = constraints.get("secrets").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

fn is_name(name: &str) -> bool {
    let head = name.bytes().next().is_some_and(|it| !it.is_ascii_digit());
    head && name.len() <= LONGEST_NAME
        && name
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'_')
        && Path::new(name).components().count() == 1
}

impl Taken {
    /// Takes every secret out of what a job left: a secret as it is, and each of its lines that is long enough to be
    /// one. What a job makes of a secret, its base64 for instance, is not known here and stays.
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
                // It may go on.
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
            // Too many bytes of secrets: what cannot be searched for must not be kept.
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

    /// The beginning of something of which more followed: a secret may have been cut at its end.
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

    /// The end of something of which more came before.
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
    use crate::{Captured, Ended, OutputFile, Skipped, Usage};

    const KEY: &str = "correct-horse-battery";

    fn folder() -> (tempfile::TempDir, SecretFolder) {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, value: &[u8]| fs::write(folder.path().join(name), value).unwrap();
        put("KEY", format!("{KEY}\n").as_bytes());
        put("PEM", b"-----BEGIN-----\nMIIBVwIBADANBgkq\n-----END-----\n");
        put("SHORT", b"1234\n");
        put("BYTES", b"\xff\xfe\0\x01\x02\x03\x04\x05\x06");
        let secrets = SecretFolder::new(Some(folder.path().to_owned()));
        (folder, secrets)
    }

    fn give(
        secrets: &SecretFolder,
        allowed: &[&str],
        wanted: &[SecretUse],
    ) -> Result<(JobSpec, Taken), SandboxError> {
        let names: Vec<String> = allowed.iter().map(|&it| it.to_owned()).collect();
        let mut job = JobSpec::new(["true"]);
        let grant = Grant {
            folder: secrets,
            names: &names,
        };
        grant.give(&mut job, wanted).map(|taken| (job, taken))
    }

    fn variable(name: &str) -> SecretUse {
        SecretUse::Environment(name.to_owned())
    }

    fn file(name: &str, file: &str) -> SecretUse {
        SecretUse::File(SecretFile {
            name: name.to_owned(),
            file: file.to_owned(),
        })
    }

    #[test]
    fn a_secret_comes_as_a_variable_or_as_a_file() {
        let (_kept, secrets) = folder();
        let wanted = [variable("KEY"), file("BYTES", "keys/bytes")];
        let (job, taken) = give(&secrets, &["KEY", "BYTES"], &wanted).unwrap();
        assert_eq!(job.env["KEY"], KEY);
        assert_eq!(job.files[0].name, "keys/bytes");
        assert_eq!(job.files[0].content.len(), 9);
        assert!(job.check().is_ok());
        assert_eq!(format!("{taken:?}"), r#"["KEY", "BYTES"]"#);
    }

    #[test]
    fn what_the_intent_does_not_allow_or_nobody_has_is_refused_by_name() {
        let (_kept, secrets) = folder();
        let refused = |secrets: &SecretFolder, allowed: &[&str], wanted: SecretUse| {
            let error = give(secrets, allowed, &[wanted]).unwrap_err();
            assert_eq!(error.code(), "secret_refused");
            assert!(!error.is_transient());
            let text = error.to_string();
            assert!(!text.contains(KEY) && !text.contains('/'), "{text}");
            text
        };
        assert!(refused(&secrets, &[], variable("KEY")).contains("constraints.secrets"));
        assert!(refused(&secrets, &["NONE"], variable("NONE")).contains("no such file"));
        assert!(refused(&secrets, &["SHORT"], variable("SHORT")).contains("8 to"));
        assert!(refused(&secrets, &["BYTES"], variable("BYTES")).contains("as a file"));
        let none = SecretFolder::default();
        assert!(refused(&none, &["KEY"], variable("KEY")).contains("SBX_SECRETS_DIR"));
        for name in ["", "1A", "a-b", ".", "..", "a.b", &"x".repeat(129)] {
            assert!(
                refused(&secrets, &[name], variable(name)).contains("a name has"),
                "{name}"
            );
        }
        let error = give(&secrets, &["../KEY"], &[variable("../KEY")]).unwrap_err();
        assert!(error.to_string().contains("a name has"), "{error}");
    }

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
