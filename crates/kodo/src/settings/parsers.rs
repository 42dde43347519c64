//! Value parsers of settings, for clap. The error of each says what is accepted: `given.rs` makes a sentence of it.

use std::fmt::{self, Debug, Display};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A value whose type can read it; `accepted` describes such values.
pub(super) fn parsed<T: FromStr>(
    accepted: &'static str,
) -> impl Fn(&str) -> Result<T, &'static str> + Clone + Send + Sync {
    move |text| text.parse().map_err(|_| accepted)
}

/// A whole number from `least` to `most`, both included.
pub(super) fn number<T>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync,
{
    move |text| match text.parse() {
        Ok(number) if least <= number && number <= most => Ok(number),
        _ => Err(format!("a whole number from {least} to {most}")),
    }
}

/// A time in milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    let count = number(0, u32::MAX)(text)?;
    Ok(Duration::from_millis(count.into()))
}

/// A time in milliseconds that is not zero.
pub(super) fn some_milliseconds(text: &str) -> Result<Duration, String> {
    let count = number(1, u32::MAX)(text)?;
    Ok(Duration::from_millis(count.into()))
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    parsed("true or false")(text)
}

/// One of some words, each of which stands for a value.
pub(super) fn word<T: Copy + Send + Sync + 'static>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            words.join(", ")
        })
    }
}

/// A text that is not empty; `accepted` describes it.
pub(super) fn filled(
    accepted: &'static str,
) -> impl Fn(&str) -> Result<String, &'static str> + Clone + Send + Sync {
    move |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(accepted);
        }
        Ok(text.to_owned())
    }
}

/// A host name, an address, or the folder of a socket.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    let good = match text.starts_with('/') {
        true => !text.contains(char::is_control),
        // Names are not only ASCII, and an address may name its interface (`fe80::1%eth0`).
        false => {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_alphanumeric() || "-_.:%".contains(c))
        }
    };
    if !good {
        return Err("one host name, one address, or the absolute path of a socket's folder");
    }
    Ok(text.to_owned())
}

/// The name of a database that needs no quoting in any place where names are written: URLs, SQL, shells.
pub(super) fn database(text: &str) -> Result<String, &'static str> {
    // 63 bytes is the longest name that Postgres keeps whole.
    let good = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !good {
        return Err("a name of 1 to 63 letters, digits, '_', '-' and '.'");
    }
    Ok(text.to_owned())
}

/// The path of a folder that exists.
pub(super) fn existing_folder(text: &str) -> Result<PathBuf, &'static str> {
    let folder = Path::new(text);
    if !folder.is_dir() {
        return Err("an existing folder");
    }
    Ok(folder.to_owned())
}

/// The absolute path of a folder that exists.
pub(super) fn absolute_folder(text: &str) -> Result<PathBuf, &'static str> {
    let folder = Path::new(text);
    if !folder.is_absolute() || !folder.is_dir() {
        return Err("the absolute path of an existing folder");
    }
    Ok(folder.to_owned())
}

/// The text of a secret. Its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretText(String);

impl SecretText {
    /// The secret itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
