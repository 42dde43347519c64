//! The bytes of an artifact whose row holds its content, and from which size on content is stored elsewhere.

use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kodo_contract::{ContentHash, canonical_json};
use serde_json::Value;

/// From this many bytes on, content is stored by its hash and no longer in its row.
pub const STORED_FROM: usize = 64 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// The content of an artifact that is in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What they are.
    pub media_type: &'static str,
    /// The hash of the bytes.
    pub sha256: ContentHash,
    /// The name of a file.
    pub name: Option<String>,
}

/// The bytes of an artifact whose row holds its content: those of the file if it is one, otherwise its canonical JSON, whose
/// hash is the row's.
#[must_use]
pub fn content_of(kind: &str, inline: &Value) -> Content {
    let file = (kind == "file").then(|| file(inline)).flatten();
    let (bytes, media_type, name) = file.unwrap_or_else(|| {
        let json = canonical_json(inline).into_bytes();
        (json, JSON, None)
    });
    Content {
        sha256: ContentHash::of(&bytes),
        bytes,
        media_type,
        name,
    }
}

/// Content, media type and name of a file in a row; `None` if the row has another shape.
fn file(inline: &Value) -> Option<(Vec<u8>, &'static str, Option<String>)> {
    let bytes = file_bytes(inline["content"].as_str()?, inline["encoding"].as_str())?;
    let media_type = media_type_of(&bytes);
    Some((
        bytes,
        media_type,
        inline["name"].as_str().map(str::to_owned),
    ))
}

/// The bytes of a file from its content in a row or in a tool's result; `None` if it is not in that encoding, or if the
/// encoding is another one than `base64`.
#[must_use]
pub fn file_bytes(content: &str, encoding: Option<&str>) -> Option<Vec<u8>> {
    match encoding {
        None => Some(content.as_bytes().to_vec()),
        Some("base64") => STANDARD.decode(content).ok(),
        Some(_) => None,
    }
}

/// The media type of bytes: text or not. More is not claimed, because a browser must not render a page that a program has
/// written.
#[must_use]
pub fn media_type_of(bytes: &[u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => TEXT,
        _ => BINARY,
    }
}

/// The same of content that is read piece by piece.
///
/// # Errors
/// Those of the reader.
pub fn media_type_of_content(mut content: impl Read) -> io::Result<&'static str> {
    let (mut piece, mut held) = (vec![0; 64 * 1024], 0);
    loop {
        let count = content.read(&mut piece[held..])?;
        let length = held + count;
        let bytes = &piece[..length];
        if bytes.contains(&0) {
            return Ok(BINARY);
        }
        // A character may be cut by the end of the piece.
        held = match std::str::from_utf8(bytes) {
            Ok(_) => 0,
            Err(error) if error.error_len().is_none() && count > 0 => length - error.valid_up_to(),
            Err(_) => return Ok(BINARY),
        };
        if count == 0 {
            return Ok(TEXT);
        }
        piece.copy_within(length - held..length, 0);
    }
}

/// Shortens a long text for a step's row: beginning and end, with a line in between that names the artifact with all of it.
/// Returns at most [`STORED_FROM`] bytes.
#[must_use]
pub fn shortened(text: &str, sha256: &ContentHash) -> String {
    // Room for the line itself.
    let half = STORED_FROM / 2 - 128;
    if text.len() <= 2 * half {
        return text.to_owned();
    }
    let head = &text[..text.floor_char_boundary(half)];
    let tail = &text[text.ceil_char_boundary(text.len() - half)..];
    let missing = text.len() - head.len() - tail.len();
    format!("{head}\n[{missing} bytes are not kept here; the whole is artifact {sha256}]\n{tail}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_text_or_not_wherever_it_is_cut() {
        struct Cut<'a>(&'a [u8], usize);
        impl Read for Cut<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(self.0.len()).min(buffer.len());
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
        for bytes in [
            "é€𝄞 text".as_bytes(),
            b"",
            b"a\0b",
            b"a\xffb",
            b"ends \xe2\x82",
        ] {
            for size in 1..=bytes.len().max(1) {
                let found = media_type_of_content(Cut(bytes, size)).unwrap();
                assert_eq!(found, media_type_of(bytes), "{bytes:?} in {size}");
            }
        }
    }

    #[test]
    fn a_file_is_its_bytes_and_anything_else_its_json() {
        let text = content_of(
            "file",
            &json!({"name": "a", "content": "é\n", "sha256": ""}),
        );
        assert_eq!(
            (text.bytes.as_slice(), text.media_type),
            ("é\n".as_bytes(), TEXT)
        );
        assert_eq!(text.name.as_deref(), Some("a"));
        let binary = json!({"name": "b", "content": "AP8=", "encoding": "base64"});
        let binary = content_of("file", &binary);
        assert_eq!(
            (binary.bytes.as_slice(), binary.media_type),
            (&[0, 255][..], BINARY)
        );
        let printed = content_of("stdout", &json!("hi\n"));
        assert_eq!(
            (printed.bytes.as_slice(), printed.media_type),
            (&br#""hi\n""#[..], JSON)
        );
        assert_eq!(printed.sha256, ContentHash::of(&printed.bytes));
    }

    #[test]
    fn a_file_of_a_shape_that_we_do_not_write_is_its_json() {
        for odd in [
            json!({"name": "a"}),
            json!({"content": "!", "encoding": "base64"}),
            json!({"content": "", "encoding": "rot13"}),
            json!(null),
        ] {
            assert_eq!(content_of("file", &odd).media_type, JSON, "{odd}");
        }
    }

    #[test]
    fn a_long_text_is_kept_at_both_ends_whole_characters_only() {
        let text: String = "äöü€\u{1f600}".chars().cycle().take(60_000).collect();
        let hash = ContentHash::of(text.as_bytes());
        let short = shortened(&text, &hash);
        assert!(short.len() <= STORED_FROM, "{}", short.len());
        let (head, rest) = short.split_once("\n[").unwrap();
        let (line, tail) = rest.split_once("]\n").unwrap();
        assert!(text.starts_with(head) && text.ends_with(tail));
        let missing = text.len() - head.len() - tail.len();
        assert_eq!(
            line,
            format!("{missing} bytes are not kept here; the whole is artifact {hash}")
        );
    }
}
