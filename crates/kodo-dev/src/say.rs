//! Telling a person what happens: plain words, colour where a terminal shows it.

use std::io::Write;

use anstyle::{AnsiColor, Style};

/// A line. Colour is left out where standard output is no terminal or wants none (`NO_COLOR`, a dumb terminal). A reader
/// that has seen enough (`| head`) must not end the caller before it has cleaned up, so failures are not looked at.
pub(crate) fn line(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// A heading.
pub(crate) fn step(number: usize, text: &str) {
    line(&format!("\n{} {text}", bold(&format!("{number}."))));
}

/// Something that went as promised.
pub(crate) fn good(text: &str) -> String {
    paint(AnsiColor::Green.on_default(), text)
}

/// Something that is interrupted or wrong.
pub(crate) fn bad(text: &str) -> String {
    paint(AnsiColor::Red.on_default(), text)
}

/// Something of less weight.
pub(crate) fn dim(text: &str) -> String {
    paint(Style::new().dimmed(), text)
}

/// Something of more weight.
pub(crate) fn bold(text: &str) -> String {
    paint(Style::new().bold(), text)
}

/// The cell of a table. The text is padded before it is painted, since paint has no width.
pub(crate) fn cell(text: &str, width: usize) -> String {
    let padded = format!("{text:width$}");
    match text {
        "before" | "recorded" => good(&padded),
        "after" => bold(&padded),
        "-" => dim(&padded),
        _ => padded,
    }
}

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
