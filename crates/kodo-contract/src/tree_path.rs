//! A path in a workspace. It is bytes, as the kernel has it, relative to the job's folder, and leads nowhere else.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::TreeFault;

/// The longest path, in bytes: what Linux takes without the final NUL.
pub const MAX_TREE_PATH: usize = 4095;
/// The most folders that a path goes through.
pub const MAX_TREE_DEPTH: usize = 256;
/// The longest name of one entry: what file systems take.
const MAX_NAME: usize = 255;
/// The most characters of a path at its beginning, and as many at its end, that an error shows.
const SHOWN: usize = 100;

/// A path below the job's folder, or the target of a symbolic link: bytes without U+0000.
///
/// In JSON a string, or `{"hex": "…"}` where the bytes are no UTF-8. A list of the bytes is read, too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// These bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, with U+FFFD for what is none.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The folder that it is in; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let at = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..at].to_vec()))
    }

    /// Whether it lies below this folder.
    #[must_use]
    pub fn is_below(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(folder.0.as_slice())
            .is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// What is wrong with it as the path of an entry.
    ///
    /// # Errors
    /// [`TreeFault::Path`], or one of the limits.
    pub fn check(&self) -> Result<(), TreeFault> {
        let fault = |reason| {
            Err(TreeFault::Path {
                path: self.clone(),
                reason,
            })
        };
        if self.0.len() > MAX_TREE_PATH {
            return Err(TreeFault::PathLength {
                path: self.clone(),
                length: self.0.len(),
            });
        }
        if self.0.first() == Some(&b'/') {
            return fault("is absolute");
        }
        if self.0.contains(&0) {
            return fault("has a U+0000");
        }
        let mut depth = 0;
        for name in self.0.split(|byte| *byte == b'/') {
            depth += 1;
            match name {
                b"" => return fault("has an empty component"),
                b"." | b".." => return fault("has a component `.` or `..`"),
                long if long.len() > MAX_NAME => {
                    return fault("has a component of more than 255 bytes");
                }
                _ => {}
            }
        }
        if depth > MAX_TREE_DEPTH {
            return Err(TreeFault::Depth {
                path: self.clone(),
                depth,
            });
        }
        Ok(())
    }
}

impl From<&str> for TreePath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Chosen by a program: it must not draw on a terminal, and an error stays one line.
        let text = self.text();
        let mut at = text.char_indices().map(|(at, _)| at);
        let (begin, end) = (at.nth(SHOWN), at.nth_back(SHOWN - 1));
        match (begin, end) {
            // Of thousands of characters nobody reads more.
            (Some(begin), Some(end)) => write!(
                f,
                "\"{}…{}\"",
                text[..begin].escape_debug(),
                text[end..].escape_debug()
            ),
            _ => write!(f, "\"{}\"", text.escape_debug()),
        }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("hex", hex::encode(&self.0))]),
        }
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = TreePath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path: a string, `hex` with its bytes, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TreePath, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<TreePath, A::Error> {
                let mut path = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    path.push(byte);
                }
                Ok(TreePath(path))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TreePath, A::Error> {
                let bytes = match map.next_entry::<String, String>()? {
                    Some((key, digits)) if key == "hex" => hex::decode(digits).ok(),
                    _ => None,
                };
                let more = map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some();
                bytes
                    .filter(|_| !more)
                    .map(TreePath)
                    .ok_or_else(|| de::Error::custom("a path that is no string has `hex` alone"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_a_tree() {
        for bad in ["", "/a", "..", "a/../b", "a//b", "./a", "a/", "a\0"] {
            assert!(TreePath::from(bad).check().is_err(), "{bad:?}");
        }
        for bad in [
            "x".repeat(256),
            vec!["x".repeat(250); 17].join("/"),
            vec!["x"; 257].join("/"),
        ] {
            assert!(TreePath::from(&*bad).check().is_err(), "{}", bad.len());
        }
        for good in ["a", ".git", "a/b c/..d", "a\nb"] {
            assert_eq!(TreePath::from(good).check(), Ok(()), "{good:?}");
        }
        assert_eq!(TreePath::new(b"\xff/a".to_vec()).check(), Ok(()));
    }

    #[test]
    fn a_path_that_is_no_text_is_short_in_json_and_the_older_form_is_read() {
        let path = TreePath::new(b"a/\xff".to_vec());
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(text, r#"{"hex":"612fff"}"#);
        for form in [text.as_str(), "[97,47,255]"] {
            assert_eq!(serde_json::from_str::<TreePath>(form).unwrap(), path);
        }
        for bad in [
            r#"{"hex":"f"}"#,
            r#"{"hex":"zz"}"#,
            r#"{"other":"ff"}"#,
            "{}",
            r#"{"hex":"ff","hex":"ff"}"#,
        ] {
            assert!(serde_json::from_str::<TreePath>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_a_long_path_both_ends_are_shown() {
        let long = TreePath::from(&*format!("first/{}/last", "ä/".repeat(1000)));
        let shown = long.to_string();
        assert!(shown.starts_with("\"first/") && shown.ends_with("/last\""));
        assert!(shown.contains("…") && shown.len() < 500, "{shown}");
        assert_eq!(TreePath::from("a\nb").to_string(), r#""a\nb""#);
        let just = "x".repeat(200);
        assert_eq!(TreePath::from(&*just).to_string(), format!("\"{just}\""));
    }
}
