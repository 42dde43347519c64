//! What a command prints. A closed pipe means that the reader has seen enough (`| head`), which is no error; every other
//! failed write is one: a full disk must not end in a short file and exit code 0.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

use crate::telemetry;

/// Pretty JSON with a final line feed.
pub(crate) fn json(value: &impl Serialize) -> String {
    // Serializing our own types to a string fails on nothing: their keys are strings.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Writes to standard output, and flushes. Returns whether somebody still reads.
///
/// # Errors
/// If the text could not be written for any reason but a closed pipe.
pub(crate) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<bool> {
    write(&mut std::io::stdout().lock(), text.as_ref()).context("cannot write to standard output")
}

/// The same for standard error, if what is written there is a result: a job's own standard error.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_to_stderr(text: impl AsRef<[u8]>) -> anyhow::Result<bool> {
    write(&mut std::io::stderr().lock(), text.as_ref()).context("cannot write to standard error")
}

/// Says one line on standard error, after what was logged before. If that cannot be written, there is no place left to
/// say so: the exit code has to do.
pub(crate) fn tell(line: impl std::fmt::Display) {
    telemetry::flush();
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn write(out: &mut impl Write, text: &[u8]) -> std::io::Result<bool> {
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
