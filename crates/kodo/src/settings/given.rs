//! The settings that somebody gave, by flag or environment variable: which they are, what clap makes of them, and what
//! is wrong with those that it refuses.
//!
//! Each setting is an argument of clap's with a value parser (`settings/*.rs`). The command line accepts any text for
//! them, so that a value that cannot be used ends as one line that names it, or as a finding of `kodo doctor`, instead of
//! ending the program with a usage message. The value parsers run after that, setting by setting.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::Flags;

/// Settings that may be given as an empty text. Elsewhere an empty variable is one that is not set, because shells and
/// compose files write `PORT=` for that.
const MAY_BE_EMPTY: &str = "DB_PASSWORD";

/// A setting that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Refusal {
    /// The variable of the setting.
    pub(crate) variable: String,
    /// One line: the setting by the name it was given with, its value, what is accepted.
    pub(crate) reason: String,
}

/// The settings that were given, in the order of their declaration.
#[derive(Clone, Default)]
pub(crate) struct Given(Vec<Value>);

#[derive(Clone)]
struct Value {
    variable: String,
    text: String,
    flag: String,
    by_flag: bool,
}

/// Every setting, as clap knows it. Their names are flags without the dashes, and variables.
pub(super) fn arguments() -> Command {
    Flags::augment_args(Command::new("settings").no_binary_name(true))
}

/// The variable of a setting.
pub(super) fn variable_of(argument: &Arg) -> String {
    let variable = argument.get_env().unwrap_or_default();
    variable.to_string_lossy().into_owned()
}

/// The command line with the settings on it: every command takes them, and `kodo serve --help` alone shows them.
pub(crate) fn with_settings(command: Command) -> Command {
    let settings: Vec<Arg> = arguments().get_arguments().map(on_command_line).collect();
    let hidden = settings.iter().map(|setting| setting.clone().hide(true));
    command
        .args(hidden)
        .mut_subcommand("serve", |serve| serve.args(settings.clone()))
}

/// A setting that accepts any text, wherever it stands.
fn on_command_line(setting: &Arg) -> Arg {
    setting
        .clone()
        .value_parser(AnyText(setting.get_possible_values()))
        .global(true)
        .hide_env_values(true)
        .hide_short_help(true)
}

/// Accepts any text, and shows the values that the setting's own parser accepts in the help.
#[derive(Clone)]
struct AnyText(Vec<PossibleValue>);

impl TypedValueParser for AnyText {
    type Value = OsString;

    fn parse_ref(
        &self,
        _: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        (!self.0.is_empty()).then(|| Box::new(self.0.iter().cloned()) as Box<_>)
    }
}

impl Given {
    /// The settings on a command line that [`with_settings`] made, and in its environment.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let arguments = arguments();
        let given = arguments.get_arguments().filter_map(|setting| {
            let id = setting.get_id().as_str();
            let source = matches.value_source(id)?;
            let text = matches.get_one::<OsString>(id)?;
            let value = Value {
                variable: variable_of(setting),
                text: text.to_string_lossy().into_owned(),
                flag: format!("--{}", setting.get_long().unwrap_or_default()),
                by_flag: source == ValueSource::CommandLine,
            };
            let may_be_empty = value.by_flag || value.variable == MAY_BE_EMPTY;
            let set = source != ValueSource::DefaultValue;
            (set && (may_be_empty || !value.text.is_empty())).then_some(value)
        });
        Self(given.collect())
    }

    /// Takes out every setting that its value parser refuses.
    pub(super) fn take_unreadable(&mut self) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for setting in arguments().get_arguments() {
            let variable = variable_of(setting);
            let Some(value) = self.value(&variable) else {
                continue;
            };
            let alone = Command::new("setting").no_binary_name(true);
            let read = alone
                .arg(setting.clone().env(None))
                .try_get_matches_from([format!("{}={}", value.flag, value.text)]);
            if let Err(error) = read {
                refused.push(self.refuse(&variable, accepted(&error)));
                self.take(&variable);
            }
        }
        refused
    }

    /// The settings, typed, with the defaults of those that were not given.
    ///
    /// # Errors
    /// If a value cannot be read: [`Given::take_unreadable`] finds those.
    pub(super) fn read(&self) -> anyhow::Result<Flags> {
        let given = self.0.iter();
        let given = given.map(|value| format!("{}={}", value.flag, value.text));
        let matches = arguments()
            .mut_args(|setting| setting.env(None))
            .try_get_matches_from(given)
            .context("settings")?;
        Ok(Flags::from_arg_matches(&matches)?)
    }

    /// Forgets a setting; `false` if it was not given.
    pub(super) fn take(&mut self, variable: &str) -> bool {
        let known = self.has(variable);
        self.0.retain(|value| value.variable != variable);
        known
    }

    fn value(&self, variable: &str) -> Option<&Value> {
        self.0.iter().find(|value| value.variable == variable)
    }

    /// Whether it was given.
    pub(crate) fn has(&self, variable: &str) -> bool {
        self.value(variable).is_some()
    }

    /// Whether it was given by a flag.
    pub(crate) fn by_flag(&self, variable: &str) -> bool {
        self.value(variable).is_some_and(|value| value.by_flag)
    }

    /// A setting as it was given: `--port` or `PORT`.
    pub(super) fn name(&self, variable: &str) -> String {
        match self.value(variable) {
            Some(value) if value.by_flag => value.flag.clone(),
            _ => variable.to_owned(),
        }
    }

    /// A setting with its value, as it was given: `--port=3001` or `PORT=3001`.
    pub(super) fn assignment(&self, variable: &str) -> String {
        // An error is one line, whatever is in the value.
        let shown = self.shown(variable);
        let escaped = shown.chars().map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        });
        escaped.collect()
    }

    fn shown(&self, variable: &str) -> String {
        let text = self.value(variable).map_or("", |value| &value.text);
        let name = self.name(variable);
        if !text.contains("://") && !variable.ends_with("_URL") {
            return format!("{name}={text}");
        }
        // A URL may have a password in it, or a key in its query, also if the scheme is missing or mistyped.
        let query = text.find(['?', '#']);
        let (before, rest) = match text.rfind('@') {
            Some(at) if query.is_some_and(|query| query < at) => return format!("{name}=…"),
            Some(at) => ("…@", &text[at + 1..]),
            None => ("", text),
        };
        let (rest, after) = match rest.find(['?', '#']) {
            Some(at) => (&rest[..=at], "…"),
            None => (rest, ""),
        };
        format!("{name}={before}{rest}{after}")
    }

    /// The refusal of a setting whose value is not accepted.
    pub(super) fn refuse(&self, variable: &str, accepted: impl std::fmt::Display) -> Refusal {
        let assignment = self.assignment(variable);
        refusal(
            variable,
            format!("{assignment} is not valid: {accepted} is accepted"),
        )
    }

    /// The variable of every setting, with its value if it was given, secrets included: the environment of a program that
    /// is to have the same settings.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (String, Option<&str>)> {
        let settings: Vec<String> = arguments().get_arguments().map(variable_of).collect();
        settings.into_iter().map(|variable| {
            let value = self.value(&variable).map(|value| value.text.as_str());
            (variable, value)
        })
    }

    /// Variables and values of what was given by flags, without secrets.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&str, &str)> {
        let flags = self.0.iter().filter(|value| value.by_flag);
        flags
            // A URL may have a password in it, or a key.
            .filter(|value| {
                !(value.variable.ends_with("_URL") && value.text.contains(['@', '?', '#']))
            })
            .map(|value| (value.variable.as_str(), value.text.as_str()))
            .filter(|(variable, _)| {
                !["TOKEN", "PASSWORD", "KEY"]
                    .iter()
                    .any(|secret| variable.ends_with(secret))
            })
    }

    /// A secret: the text of `variable`, or the content of the file that `variable` with `_FILE` names. Neither text nor
    /// content is ever shown.
    pub(super) fn secret(
        &self,
        variable: &str,
        text: Option<&super::SecretText>,
        file: Option<&PathBuf>,
        what: &str,
    ) -> Result<Option<String>, Refusal> {
        let of_file = format!("{variable}_FILE");
        let (named, place, secret) = match (text, file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let reason = format!("{variable} and {of_file} are both set: set one of them");
                return Err(refusal(&of_file, reason));
            }
            (Some(text), None) => {
                let place = self.name(variable);
                (variable, place, text.expose().to_owned())
            }
            (None, Some(file)) => {
                // The name of the file is no secret.
                let place = self.assignment(&of_file);
                let text = read_secret(file).map_err(|error| {
                    refusal(&of_file, format!("{place} cannot be read: {error}"))
                })?;
                (of_file.as_str(), place, text.trim_end().to_owned())
            }
        };
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            let reason = format!(
                "{place} is not valid: {what} of visible ASCII characters is accepted, since a header has to carry it"
            );
            return Err(refusal(named, reason));
        }
        Ok(Some(secret))
    }
}

/// The content of a small file. A secret is short; what is longer is another file, or has no end.
fn read_secret(file: &Path) -> std::io::Result<String> {
    const MOST: u64 = 64 << 10;
    let mut text = String::new();
    let read = File::open(file)?.take(MOST + 1).read_to_string(&mut text)?;
    if read as u64 > MOST {
        let what = format!("it has more than {MOST} bytes, which no secret has");
        return Err(std::io::Error::other(what));
    }
    Ok(text)
}

/// A refusal in other words than those of [`Given::refuse`].
pub(super) fn refusal(variable: &str, reason: String) -> Refusal {
    Refusal {
        variable: variable.to_owned(),
        reason,
    }
}

/// What clap's error says is accepted: the text of our value parsers' errors, or the words of an enum.
fn accepted(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) => words.join(", "),
        _ => "only what `kodo serve --help` says about it".to_owned(),
    }
}
