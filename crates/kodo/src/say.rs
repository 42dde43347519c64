//! Words and colours for people who look at a terminal.

use std::io::IsTerminal;

use crate::environment;

/// Colours words of standard output, on a terminal that wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    colour: bool,
}

impl Say {
    /// Colour on a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb.
    pub(crate) fn new() -> Self {
        let wanted = environment::variable("NO_COLOR").is_none_or(|value| value.is_empty())
            && environment::variable("TERM").is_none_or(|term| term != "dumb");
        Self {
            colour: wanted && std::io::stdout().is_terminal(),
        }
    }

    /// Something that is as promised.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something that is wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Something of less weight.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// So many of something that is named in the plural.
pub(crate) fn counted(number: i64, units: &str) -> String {
    if number != 1 {
        return format!("{number} {units}");
    }
    if units.contains(" and ") {
        return format!("1 of {units}");
    }
    // `workflows of runs`, `unfinished runs`.
    let (counted, rest) = units.split_at(units.find(" of ").unwrap_or(units.len()));
    format!("1 {}{rest}", counted.strip_suffix('s').unwrap_or(counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_not_said_in_the_plural() {
        for (number, units, said) in [
            (0, "runs", "0 runs"),
            (1, "runs", "1 run"),
            (2, "runs", "2 runs"),
            (1, "unfinished runs", "1 unfinished run"),
            (1, "workflows of runs", "1 workflow of runs"),
            (1, "steps and checkpoints", "1 of steps and checkpoints"),
        ] {
            assert_eq!(counted(number, units), said);
        }
    }
}
