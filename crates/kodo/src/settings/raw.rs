//! One value of the configuration, before it is parsed: where it came from, and what it is refused for.

use anyhow::{Context, bail, ensure};

use crate::environment;

/// A value before it is parsed, with where it came from.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) variable: &'static str,
    pub(super) flag: &'static str,
    pub(super) value: String,
    pub(super) given: bool,
    pub(super) by_flag: bool,
}

impl Raw {
    pub(super) fn new(
        flag: &'static str,
        variable: &'static str,
        by_flag: Option<&str>,
        default: &str,
    ) -> Self {
        let by_environment = || {
            let value = environment::variable(variable)?
                .to_string_lossy()
                .into_owned();
            // `PORT= kodo serve` is how shells and compose files say "not set"; a password may be empty.
            (!value.is_empty() || variable == "DB_PASSWORD").then_some(value)
        };
        let given = by_flag.map(str::to_owned).or_else(by_environment);
        Self {
            variable,
            flag,
            given: given.is_some(),
            by_flag: by_flag.is_some(),
            value: given.unwrap_or_else(|| default.to_owned()),
        }
    }

    /// The default, as if nothing had been given.
    pub(super) fn unset(flag: &'static str, variable: &'static str, default: &str) -> Self {
        Self {
            variable,
            flag,
            value: default.to_owned(),
            given: false,
            by_flag: false,
        }
    }

    /// What the user has to look at.
    pub(super) fn name(&self) -> String {
        if self.by_flag {
            format!("--{}", self.flag)
        } else {
            self.variable.to_owned()
        }
    }

    pub(super) fn refuse<T>(&self, accepted: &str) -> anyhow::Result<T> {
        bail!(
            "{}={} is not valid: {accepted} is accepted",
            self.name(),
            self.value
        )
    }

    pub(super) fn parse<T: std::str::FromStr>(&self, accepted: &str) -> anyhow::Result<T> {
        self.value.parse().or_else(|_| self.refuse(accepted))
    }

    pub(super) fn number<T>(&self, least: T, most: T) -> anyhow::Result<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        match self.value.parse::<T>() {
            Ok(number) if least <= number && number <= most => Ok(number),
            _ => self.refuse(&format!("a whole number from {least} to {most}")),
        }
    }

    /// The number that was given, or another one than the default where none was.
    pub(super) fn or_unset(&self, unset: u16) -> anyhow::Result<u16> {
        if self.given {
            self.number(0, u16::MAX)
        } else {
            Ok(unset)
        }
    }

    /// The number that a flag gave, or another one.
    pub(super) fn by_flag_or(&self, otherwise: u16) -> anyhow::Result<u16> {
        if self.by_flag {
            self.number(0, u16::MAX)
        } else {
            Ok(otherwise)
        }
    }

    pub(super) fn filled(self, accepted: &str) -> anyhow::Result<String> {
        if self.value.is_empty() || self.value.contains('\0') {
            return self.refuse(accepted);
        }
        Ok(self.value)
    }

    /// A name that needs no quoting in any of the places where one is written: URLs, SQL, shells.
    pub(super) fn database(self) -> anyhow::Result<String> {
        // 63 bytes is the longest name that Postgres keeps whole.
        let good = (1..=63).contains(&self.value.len())
            && self
                .value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if !good {
            return self.refuse("a name of 1 to 63 letters, digits, '_', '-' and '.'");
        }
        Ok(self.value)
    }

    pub(super) fn one_of(&self, accepted: &[&str]) -> anyhow::Result<()> {
        if accepted.contains(&self.value.as_str()) {
            return Ok(());
        }
        self.refuse(&accepted.join(", "))
    }
}

/// A secret, from its variable or from the file that another one names. Neither is ever shown.
pub(super) fn secret(value: &Raw, file: &Raw, what: &str) -> anyhow::Result<Option<String>> {
    // The name of the file is no secret.
    let (text, place) = match (value.given, file.given) {
        (false, false) => return Ok(None),
        (true, true) => bail!(
            "{} and {} are both set: set one of them",
            value.variable,
            file.variable
        ),
        (true, false) => (value.value.clone(), value.name()),
        (false, true) => {
            let place = format!("{}={}", file.name(), file.value);
            let text = std::fs::read_to_string(&file.value)
                .with_context(|| format!("{place} cannot be read"))?;
            (text.trim_end().to_owned(), place)
        }
    };
    ensure!(
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
        "{place} is not valid: {what} of visible ASCII characters is accepted, since a header has to carry it"
    );
    Ok(Some(text))
}
