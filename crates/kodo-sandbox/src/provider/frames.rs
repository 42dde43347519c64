//! Frames on a byte stream: `kind` (one byte), `length` (four bytes, little-endian), `content`.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest content of a frame: a job's arguments and environment, which [`JobSpec::check`](crate::JobSpec::check)
/// bounds, fit into one.
const MAX_FRAME: usize = 8 * 1024 * 1024;
/// How many bytes of a file or a stream one frame holds at most.
pub const CHUNK: usize = 64 * 1024;
/// Bytes before the content of a frame.
const HEADER: usize = 5;

/// The kinds of frames of one protocol.
pub trait FrameKind: Copy + 'static {
    /// Every kind.
    const ALL: &'static [Self];

    /// Its first byte, different for each kind.
    fn byte(self) -> u8;
}

/// A frame as bytes.
#[must_use]
pub fn frame<K: FrameKind>(kind: K, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + content.len());
    bytes.push(kind.byte());
    // A frame whose length was cut here is larger than `MAX_FRAME` all the same, and refused by its receiver.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// A frame whose content is a value as JSON.
///
/// # Errors
/// If it is larger than the receiver accepts.
pub fn json_frame<K: FrameKind>(kind: K, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let content = serde_json::to_vec(value)?;
    if content.len() > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the message is too large to be sent",
        ));
    }
    Ok(frame(kind, &content))
}

/// Reads the content of a frame as JSON.
///
/// # Errors
/// If it is not JSON, or another value.
pub fn from_json<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    serde_json::from_slice(content).map_err(io::Error::from)
}

/// Writes one frame.
///
/// # Errors
/// Those of the stream.
pub fn send<K: FrameKind>(to: &mut impl Write, kind: K, content: &[u8]) -> io::Result<()> {
    to.write_all(&frame(kind, content))
}

/// Writes content in as many frames as it takes.
///
/// # Errors
/// Those of the stream.
pub fn send_data<K: FrameKind>(to: &mut impl Write, kind: K, content: &[u8]) -> io::Result<()> {
    content
        .chunks(CHUNK)
        .try_for_each(|chunk| send(to, kind, chunk))
}

/// Reads one frame, waiting for it.
///
/// # Errors
/// End of file, or a malformed frame.
pub fn receive<K: FrameKind>(from: &mut impl Read) -> io::Result<(K, Vec<u8>)> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let (kind, length) = parse(header)?;
    let mut content = vec![0; length];
    from.read_exact(&mut content)?;
    Ok((kind, content))
}

fn parse<K: FrameKind>(header: [u8; HEADER]) -> io::Result<(K, usize)> {
    let [byte, length @ ..] = header;
    let length = u32::from_le_bytes(length) as usize;
    match K::ALL.iter().find(|kind| kind.byte() == byte) {
        Some(kind) if length <= MAX_FRAME => Ok((*kind, length)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "malformed frame",
        )),
    }
}

/// Assembles frames from bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    read: usize,
}

impl Frames {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that have arrived and were not yet returned.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.read
    }

    /// The next frame, once it is complete.
    ///
    /// # Errors
    /// A malformed frame, told by its header alone: nothing is allocated for it.
    pub fn take<K: FrameKind>(&mut self) -> io::Result<Option<(K, Vec<u8>)>> {
        let rest = &self.bytes[self.read..];
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (kind, length) = parse(*header)?;
        let Some(content) = rest.get(HEADER..HEADER + length) else {
            return Ok(None);
        };
        let content = content.to_vec();
        self.read += HEADER + length;
        Ok(Some((kind, content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(u8)]
    enum Kind {
        Data = b'D',
        Exit = b'X',
    }

    impl FrameKind for Kind {
        const ALL: &'static [Self] = &[Self::Data, Self::Exit];

        fn byte(self) -> u8 {
            self as u8
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let mut all = frame(Kind::Data, b"abc");
        all.extend(frame(Kind::Data, b""));
        all.extend(frame(Kind::Exit, &[7; 100]));
        for size in 1..all.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in all.chunks(size) {
                frames.push(piece);
                while let Some(frame) = frames.take().unwrap() {
                    seen.push(frame);
                }
            }
            let expected = [
                (Kind::Data, b"abc".to_vec()),
                (Kind::Data, Vec::new()),
                (Kind::Exit, vec![7; 100]),
            ];
            assert_eq!(seen, expected, "{size}");
            assert_eq!(frames.waiting(), 0);
        }
    }

    #[test]
    fn a_malformed_frame_is_refused_by_its_header() {
        for bytes in [b"Z\0\0\0\0", b"D\xff\xff\xff\xff", b"hello"] {
            let mut frames = Frames::default();
            frames.push(bytes);
            assert!(frames.take::<Kind>().is_err(), "{bytes:?}");
            assert!(receive::<Kind>(&mut bytes.as_slice()).is_err());
        }
    }
}
