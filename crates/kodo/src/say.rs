//! Colour for people who look at a terminal.

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
