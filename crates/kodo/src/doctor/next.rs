//! Commands to go on with, right for where the doctor was called.

use std::path::Path;

use crate::settings::Given;

/// Writes commands for this place: by `mise` in the repository, by the binary elsewhere, with the settings that were
/// given as flags (those of the environment are in force anyway).
#[derive(Debug, Clone)]
pub(crate) struct Next {
    repository: bool,
    settings: Vec<(String, String)>,
}

/// Tasks, and what the binary calls them.
const TASKS: [(&str, &str); 5] = [
    ("start", "serve"),
    ("db:up", "db up"),
    ("db:migrate", "db migrate"),
    ("db:reset", "db reset"),
    ("db:sys:reset", "db sys-reset"),
];

impl Next {
    pub(crate) fn new(given: &Given) -> Self {
        Self {
            repository: Path::new("bin/mise").is_file(),
            settings: given
                .flags()
                .map(|(variable, value)| (variable.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// A task.
    pub(crate) fn task(&self, task: &str) -> String {
        self.task_with(&[], task)
    }

    /// A task with other values of some settings.
    pub(crate) fn task_with(&self, changed: &[(&str, String)], task: &str) -> String {
        let binary = TASKS.iter().find(|(name, _)| *name == task);
        let command = match binary {
            Some((_, verb)) if !self.repository => format!("kodo {verb}"),
            _ => format!("bin/mise run {task}"),
        };
        self.set(changed) + &command
    }

    /// A command of the binary.
    pub(crate) fn kodo(&self, arguments: &str) -> String {
        let program = if self.repository {
            "scripts/kodo"
        } else {
            "kodo"
        };
        format!("{}{program} {arguments}", self.set(&[]))
    }

    /// Statements on a database of the server.
    pub(crate) fn sql(&self, database: &str, statements: &[String]) -> String {
        let psql = if self.repository {
            "scripts/db/psql-app.sh"
        } else {
            "psql"
        };
        let statements: Vec<String> = statements
            .iter()
            .map(|it| format!("-c {}", quoted(it)))
            .collect();
        format!(
            "{}{psql} -d {database} {}",
            self.set(&[]),
            statements.join(" ")
        )
    }

    /// `NAME=value ` for each, the changed ones first.
    fn set(&self, changed: &[(&str, String)]) -> String {
        let given = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        let given = given.filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
        let changed = changed.iter().map(|(name, value)| (*name, value));
        changed
            .chain(given)
            .map(|(name, value)| format!("{name}={} ", quoted(value)))
            .collect()
    }
}

/// A word that a shell takes as it is.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_carry_the_flags_that_were_given_and_fit_the_place() {
        let here = Next {
            repository: true,
            settings: vec![
                ("DB_PORT".to_owned(), "1".to_owned()),
                ("PORT".to_owned(), "2".to_owned()),
            ],
        };
        assert_eq!(here.task("db:up"), "DB_PORT=1 PORT=2 bin/mise run db:up");
        assert_eq!(
            here.task_with(&[("PORT", "9".to_owned())], "start"),
            "PORT=9 DB_PORT=1 bin/mise run start"
        );
        let elsewhere = Next {
            repository: false,
            settings: Vec::new(),
        };
        assert_eq!(elsewhere.task("db:sys:reset"), "kodo db sys-reset");
        assert_eq!(
            elsewhere.sql("postgres", &["SELECT 'a'".to_owned()]),
            r"psql -d postgres -c 'SELECT '\''a'\'''"
        );
    }
}
