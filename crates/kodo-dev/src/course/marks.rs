//! What a shell block's info string says about it.

use std::time::Duration;

/// How long a block may take that says nothing about it.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// The marks of a block, the words after the language in its opening fence:
///
/// | mark | meaning |
/// |---|---|
/// | `run` | run it, in the one shell of the course |
/// | `no-run reason="…"` | an illustration, for this reason |
/// | `terminal=A` | run it in a shell of its own, beside the others, until the course ends |
/// | `exit=1` | its last command fails with this code |
/// | `timeout=20m` | how long it may take (`s`, `m`); without it two minutes |
/// | `slow` | takes minutes: left out where speed was asked for |
/// | `once` | not run where the same commands have already held in this run of the course |
/// | `evidence="…"` | the line of its output that a report quotes: the last one that holds this text |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Why it is not run, where it is not.
    pub no_run: Option<String>,
    /// The terminal of its own, if it has one.
    pub terminal: Option<String>,
    /// The exit code that the block ends with.
    pub exit: i32,
    /// How long it may take.
    pub timeout: Duration,
    /// It takes minutes.
    pub slow: bool,
    /// Having held once is enough.
    pub once: bool,
    /// Text in the line that a report quotes.
    pub evidence: Option<String>,
}

impl Marks {
    /// Reads the words after the language.
    ///
    /// # Errors
    /// One sentence: which mark is wrong and what is accepted.
    pub(crate) fn parse(words: &str) -> Result<Self, String> {
        let words = shlex::split(words)
            .ok_or_else(|| format!("the marks {words:?} have a quote that is not closed"))?;
        let mut marks = Self {
            no_run: None,
            terminal: None,
            exit: 0,
            timeout: DEFAULT_TIMEOUT,
            slow: false,
            once: false,
            evidence: None,
        };
        let (mut run, mut no_run, mut reason) = (false, false, None);
        for word in &words {
            match word.split_once('=') {
                None if word == "run" => run = true,
                None if word == "no-run" => no_run = true,
                None if word == "slow" => marks.slow = true,
                None if word == "once" => marks.once = true,
                Some(("reason", text)) => reason = Some(filled("reason", text)?),
                Some(("terminal", name)) => marks.terminal = Some(filled("terminal", name)?),
                Some(("evidence", text)) => marks.evidence = Some(filled("evidence", text)?),
                Some(("exit", code)) => marks.exit = exit_code(code)?,
                Some(("timeout", limit)) => marks.timeout = duration(limit)?,
                _ => {
                    return Err(format!(
                        "unknown mark {word:?}; there are run, no-run, reason=, terminal=, exit=, timeout=, slow, \
                         once and evidence="
                    ));
                }
            }
        }
        match (run, no_run, reason) {
            (true, false, None) => Ok(marks),
            (false, true, Some(reason)) if words.len() == 2 => {
                marks.no_run = Some(reason);
                Ok(marks)
            }
            (false, true, None) => {
                Err("a block that is not run says why: no-run reason=\"…\"".to_owned())
            }
            (false, true, Some(_)) => {
                Err("a block that is not run has no other mark than its reason".to_owned())
            }
            (true, _, _) => {
                Err("run stands for itself: no-run and reason= contradict it".to_owned())
            }
            (false, false, _) => Err(
                "a shell block says whether the course runs it: add run, or no-run reason=\"…\""
                    .to_owned(),
            ),
        }
    }
}

fn filled(mark: &str, text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(format!("{mark}= needs a text"));
    }
    Ok(text.to_owned())
}

fn exit_code(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(code @ 0..=255) => Ok(code),
        _ => Err(format!(
            "exit={text} is not valid: a number from 0 to 255 is accepted"
        )),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let refused = || {
        format!("timeout={text} is not valid: whole seconds or minutes are accepted, as 90s or 20m")
    };
    let (number, seconds) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').ok_or_else(refused)?, 1),
    };
    match number.parse::<u32>() {
        Ok(number) if number > 0 => Ok(Duration::from_secs(u64::from(number) * seconds)),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_marks_are_understood() {
        let marks =
            Marks::parse(r#"run slow once exit=3 timeout=20m evidence="it works" terminal=A"#)
                .unwrap();
        assert_eq!(marks.exit, 3);
        assert_eq!(marks.timeout, Duration::from_secs(1200));
        assert!(marks.slow && marks.once);
        assert_eq!(marks.evidence.as_deref(), Some("it works"));
        assert_eq!(marks.terminal.as_deref(), Some("A"));
        assert_eq!(marks.no_run, None);
        let marks = Marks::parse("no-run reason='needs Docker'").unwrap();
        assert_eq!(marks.no_run.as_deref(), Some("needs Docker"));
    }

    #[test]
    fn what_is_no_mark_is_refused_with_what_would_be_one() {
        for (words, says) in [
            ("", "add run, or no-run"),
            ("slow", "add run, or no-run"),
            ("rnu", "unknown mark \"rnu\""),
            ("run fast", "unknown mark \"fast\""),
            ("run slow=1", "unknown mark \"slow=1\""),
            ("no-run", "says why"),
            ("no-run reason=", "needs a text"),
            ("no-run reason=x slow", "no other mark"),
            ("run no-run reason=x", "contradict"),
            ("run exit=256", "from 0 to 255"),
            ("run exit=-1", "from 0 to 255"),
            ("run timeout=20", "as 90s or 20m"),
            ("run timeout=0s", "as 90s or 20m"),
            ("run timeout=m", "as 90s or 20m"),
            ("run evidence='x", "not closed"),
        ] {
            let refused = Marks::parse(words).unwrap_err();
            assert!(refused.contains(says), "{words:?} says: {refused}");
        }
    }
}
