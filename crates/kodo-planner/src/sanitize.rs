//! Text from a provider made safe to show: it ends up in rows, logs and fixtures.

use crate::Secret;

/// The most characters that are shown.
const SHOWN: usize = 300;

/// The text on one line, without control characters, without our key, without paths of the provider's machine, and
/// cut to [`SHOWN`] characters.
pub(crate) fn sanitized(text: &str, secret: Option<&Secret>) -> String {
    let text = match secret {
        Some(secret) => secret.redact(text),
        None => text.to_owned(),
    };
    let mut shown = String::new();
    for word in text.split_whitespace() {
        if !shown.is_empty() {
            shown.push(' ');
        }
        if is_path(word) {
            shown.push_str("[path]");
        } else {
            shown.extend(word.chars().filter(|character| !character.is_control()));
        }
        if shown.chars().count() > SHOWN {
            let cut: String = shown.chars().take(SHOWN).collect();
            return format!("{cut}…");
        }
    }
    shown
}

/// Whether a word looks like an absolute path, possibly in quotes or brackets.
fn is_path(word: &str) -> bool {
    let word =
        word.trim_start_matches(|character: char| !character.is_alphanumeric() && character != '/');
    let drive = word.get(1..3).is_some_and(|it| it == ":\\");
    drive || (word.starts_with('/') && word.matches('/').count() > 1 && !word.starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_somebody_else_is_made_harmless() {
        let secret = Secret::new("sk-0123456789abcdef");
        let text = "Incorrect key sk-0123456789abcdef:\u{1b}[31m see\n'/home/me/models/a.gguf', (C:\\m\\a) or 3/4";
        assert_eq!(
            sanitized(text, Some(&secret)),
            "Incorrect key [redacted]:[31m see [path] [path] or 3/4"
        );
        let long = sanitized(&"x".repeat(5000), None);
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert_eq!(sanitized(" \n", None), "");
    }
}
