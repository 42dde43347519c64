//! Telling a person what happens: plain words, colour where a terminal shows it.

use std::io::{IsTerminal, Write};

use crate::environment;

/// Writes to standard output, in colour on a terminal that wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    colour: bool,
}

impl Say {
    /// Colour on a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb.
    pub(crate) fn new() -> Self {
        let wanted = environment::text("NO_COLOR").is_none()
            && environment::text("TERM").is_none_or(|term| term != "dumb");
        Self {
            colour: wanted && std::io::stdout().is_terminal(),
        }
    }

    /// A line.
    pub(crate) fn line(self, text: &str) {
        // A reader that has seen enough (`| head`) must not end the story before it has cleaned up.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A heading.
    pub(crate) fn step(self, number: usize, text: &str) {
        self.line(&format!("\n{} {text}", self.bold(&format!("{number}."))));
    }

    /// Something that went as promised.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something that is interrupted or wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Something of less weight.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Something of more weight.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// The same text padded to a width and painted; padding first, since paint has no width.
    pub(crate) fn cell(self, text: &str, width: usize) -> String {
        let padded = format!("{text:width$}");
        match text {
            "before" | "recorded" => self.good(&padded),
            "after" => self.bold(&padded),
            "-" => self.dim(&padded),
            _ => padded,
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
