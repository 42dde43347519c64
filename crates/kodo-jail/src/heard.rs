//! What the other side of the conversation says came of a job, held against what was asked.

use std::io::{self, ErrorKind};
use std::path::{Component, Path};

use kodo_sandbox::{JobSpec, OutputFile};
use sha2::{Digest, Sha256};

use crate::wire::{Exit, Fault, FileHeader, Kind, Started, from_json};

/// What has been said so far.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) started: Option<Started>,
    pub(crate) fault: Option<Fault>,
    pub(crate) files: Vec<(FileHeader, Vec<u8>)>,
    pub(crate) exit: Option<Exit>,
}

/// What it says that it must not.
pub(crate) fn broken_protocol() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the helper broke the protocol")
}

impl Heard {
    /// Whether all of the file at hand has come.
    pub(crate) fn complete(&self) -> bool {
        self.files
            .last()
            .is_none_or(|(header, content)| header.size == content.len() as u64)
    }

    /// Takes a frame. The helper handles what a job left, so nothing it says is taken without bounds.
    pub(crate) fn take(&mut self, kind: Kind, content: Vec<u8>, spec: &JobSpec) -> io::Result<()> {
        let invalid = broken_protocol;
        if self.exit.is_some() || self.fault.is_some() {
            // That was the last word.
            return Err(invalid());
        }
        let limits = &spec.limits;
        match kind {
            Kind::Started => self.started = Some(from_json(&content)?),
            Kind::Fault => self.fault = Some(from_json(&content)?),
            Kind::Exit => {
                if !self.complete() {
                    return Err(invalid());
                }
                self.exit = Some(from_json(&content)?);
            }
            Kind::File => {
                let header: FileHeader = from_json(&content)?;
                let held: u64 = self.files.iter().map(|(header, _)| header.size).sum();
                let many = self.files.len() as u64 >= limits.returned_files;
                let outside = Path::new(&header.name)
                    .components()
                    .any(|it| !matches!(it, Component::Normal(_)));
                if !self.complete()
                    || many
                    || outside
                    || header.name.is_empty()
                    || held.saturating_add(header.size) > limits.returned_bytes
                {
                    return Err(invalid());
                }
                self.files.push((header, Vec::new()));
            }
            Kind::Data => {
                let (header, held) = self.files.last_mut().ok_or_else(invalid)?;
                if (held.len() + content.len()) as u64 > header.size {
                    return Err(invalid());
                }
                held.extend_from_slice(&content);
            }
            // Its socket is among those that came.
            Kind::Door => {}
            Kind::Spec | Kind::Stop | Kind::Dial => return Err(invalid()),
        }
        Ok(())
    }
}

/// The files as the port has them.
pub(crate) fn returned(files: Vec<(FileHeader, Vec<u8>)>) -> Vec<OutputFile> {
    files
        .into_iter()
        .map(|(header, content)| OutputFile {
            name: header.name,
            sha256: hex(&Sha256::digest(&content)),
            content,
            executable: header.executable,
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
