//! A key or password that must not be shown.

use std::fmt;

/// A key or password. It is in no error, log line or debug output, and is sent in one header only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The shortest key that is searched for in texts, in bytes.
///
/// Local servers get keys such as `ollama` or `EMPTY`, which protect nothing and are ordinary words.
const SHORTEST: usize = 12;

/// The text that replaces a key.
const REDACTED: &str = "[redacted]";

impl Secret {
    /// Takes a key.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key itself, for the header that it is sent in.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a text contains the key.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.0.len() >= SHORTEST && text.contains(&self.0)
    }

    /// The text without the key.
    pub(crate) fn redact(&self, text: &str) -> String {
        if self.is_in(text) {
            text.replace(&self.0, REDACTED)
        } else {
            text.to_owned()
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let secret = Secret::new("sk-0123456789abcdef");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(
            secret.redact("wrong key sk-0123456789abcdef, sorry"),
            "wrong key [redacted], sorry"
        );
    }

    #[test]
    fn a_word_that_guards_nothing_stays_in_the_text() {
        assert_eq!(Secret::new("ollama").redact("ask ollama"), "ask ollama");
        assert_eq!(Secret::new("").redact("ask"), "ask");
    }
}
