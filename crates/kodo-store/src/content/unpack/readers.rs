//! Readers of an archive: bounded in all, and of exactly one entry.

use std::cell::Cell;
use std::io::{self, Read};

use kodo_contract::ContentHash;

use super::UnpackError;

/// Keeps content of exactly this length.
pub(super) fn content<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    size: u64,
    keep: &mut impl FnMut(&mut dyn Read, u64) -> io::Result<ContentHash>,
) -> Result<ContentHash, UnpackError> {
    let mut exact = Exact {
        from: entry,
        left: size,
        failed: None,
    };
    let kept = keep(&mut exact, size);
    match (kept, exact.failed) {
        (_, Some(error)) => Err(UnpackError::NoArchive(error)),
        (Ok(hash), None) => Ok(hash),
        (Err(error), None) => Err(UnpackError::Kept(error)),
    }
}

/// An archive of which only so much is read.
pub(super) struct Limited<'a, R> {
    pub(super) from: R,
    /// How many bytes are left; `None` once more were asked for.
    pub(super) left: &'a Cell<Option<u64>>,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some(left @ 1..) = self.left.get() else {
            self.left.set(None);
            return Err(io::Error::other("it is too long"));
        };
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        self.left.set(Some(left - count as u64));
        Ok(count)
    }
}

/// Content of an archive, which tells its own errors from those of whoever keeps it.
struct Exact<'a, R> {
    from: &'a mut R,
    left: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Exact<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = match self.from.read(&mut buffer[..most]) {
            Ok(0) if most > 0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            other => other,
        };
        let count = count.inspect_err(|error| {
            self.failed = Some(io::Error::new(error.kind(), error.to_string()));
        })?;
        self.left -= count as u64;
        Ok(count)
    }
}
