//! Secrets: values that a job is given by name just before it runs, and that are stored nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::redact::{SHORTEST, Taken};
use crate::{InputFile, JobSpec, Overlay, SandboxError};

/// The longest secret, in bytes: a certificate chain fits.
const LONGEST: usize = 64 * 1024;
/// The longest name.
const LONGEST_NAME: usize = 128;

/// Where secrets are: a folder with one file for each, as container platforms mount them. The name of the file is the
/// secret's name; its content, without one newline at its end, is the secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFolder(Option<PathBuf>);

/// The secrets that one job may have.
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
        // Without the path, which is the operator's: the error is recorded in rows that others read.
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

impl Grant<'_> {
    /// Reads the secrets that a job asks for, and adds them to its environment and its files.
    ///
    /// # Errors
    /// [`SandboxError::SecretRefused`] if the intent does not allow a secret, or there is none of that name. Nothing was run.
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
                            refuse("it is not text, so it can only be given as a file".to_owned())
                        })?;
                    job.env.insert(name.clone(), text);
                }
                SecretUse::File(file) => {
                    let mut files = Overlay::default();
                    for it in job.files.drain(..) {
                        files.put(&it.name.clone(), it);
                    }
                    let secret = InputFile {
                        secret: true,
                        ..InputFile::new(&file.file, value.clone())
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const KEY: &str = "correct-horse-battery";

    pub(crate) fn folder() -> (tempfile::TempDir, SecretFolder) {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, value: &[u8]| fs::write(folder.path().join(name), value).unwrap();
        put("KEY", format!("{KEY}\n").as_bytes());
        put("PEM", b"-----BEGIN-----\nMIIBVwIBADANBgkq\n-----END-----\n");
        put("SHORT", b"1234\n");
        put("BYTES", b"\xff\xfe\0\x01\x02\x03\x04\x05\x06");
        let secrets = SecretFolder::new(Some(folder.path().to_owned()));
        (folder, secrets)
    }

    pub(crate) fn give(
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

    pub(crate) fn variable(name: &str) -> SecretUse {
        SecretUse::Environment(name.to_owned())
    }

    pub(crate) fn file(name: &str, file: &str) -> SecretUse {
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
}
