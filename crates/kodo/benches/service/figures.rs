//! What the bench says: a JSON line a figure on standard output, everything else on standard error.

use std::io::Write;

use serde_json::{Value, json};

/// An aim, and whether the figure reaches it.
#[derive(Debug)]
struct Aim {
    what: String,
    seen: String,
    met: bool,
}

/// Prints figures and remembers the aims.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    aims: Vec<Aim>,
}

impl Figures {
    /// Prints a figure. Each is flushed: whoever reads along sees it when it is there.
    pub(crate) fn print(&self, figure: &Value) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{figure}")?;
        out.flush()?;
        Ok(())
    }

    /// Remembers what came of an aim.
    pub(crate) fn aim(&mut self, what: &str, seen: String, met: bool) {
        let what = what.to_owned();
        self.aims.push(Aim { what, seen, met });
    }

    /// Tells a person how the aims were met. A missed one is no failure: the machine may be busy.
    pub(crate) fn summary(&self) {
        say("aims:");
        for aim in &self.aims {
            let verdict = if aim.met { "met   " } else { "MISSED" };
            say(&format!("  {verdict}  {:<54} {}", aim.what, aim.seen));
        }
    }
}

/// Tells a person what goes on.
pub(crate) fn say(text: &str) {
    eprintln!("bench: {text}");
}

/// A number for a figure: three decimals tell more than any of these measurements can hold.
pub(crate) fn rounded(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}
