//! The marks of a shell block: whether and how the course runs it.

use std::time::Duration;

/// How long a block may take that says nothing about it.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// What a shell block without marks is told.
const UNMARKED: &str =
    "a shell block says whether the course runs it: add run, or no-run reason=\"…\"";

/// What to do with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Run it.
    Run(Marks),
    /// Leave it alone, for this reason.
    Illustration(String),
}

/// The marks of a block, the words after the language in its opening fence. `run` runs it in the one shell of the
/// course; `no-run reason="…"` stands alone and makes it an illustration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// `terminal=A`: run it in a shell of its own, beside the others, until the course ends.
    pub terminal: Option<String>,
    /// `exit=1`: its last command fails with this code.
    pub exit: u8,
    /// `timeout=20m`: how long it may take (`s`, `m`).
    pub timeout: Duration,
    /// `slow`: takes minutes; left out where speed was asked for.
    pub slow: bool,
    /// `once`: not run where the same commands have already held in this run of the course.
    pub once: bool,
    /// `evidence="…"`: the line of its output that a report quotes is the last one that holds this text.
    pub evidence: Option<String>,
}

impl Kind {
    pub(super) fn parse(words: &str) -> Result<Self, String> {
        let words = shlex::split(words).ok_or("a quote in the marks is not closed")?;
        let Some((first, words)) = words.split_first() else {
            return Err(UNMARKED.to_owned());
        };
        match (first.as_str(), words) {
            ("run", _) => {}
            ("no-run", [reason]) if reason.len() > "reason=".len() => {
                let reason = reason.strip_prefix("reason=");
                let reason = reason.ok_or("no-run has no other mark than its reason")?;
                return Ok(Self::Illustration(reason.to_owned()));
            }
            ("no-run", _) => {
                return Err("no-run says why, and nothing else: reason=\"…\"".to_owned());
            }
            _ => return Err(format!("unknown mark {first:?}: {UNMARKED}")),
        }
        let mut marks = Marks {
            timeout: DEFAULT_TIMEOUT,
            ..Marks::default()
        };
        for word in words {
            let refused = |accepted: &str| format!("mark {word:?} is not valid: {accepted}");
            match word.split_once('=') {
                None if word == "slow" => marks.slow = true,
                None if word == "once" => marks.once = true,
                Some(("terminal", name)) if !name.is_empty() => marks.terminal = Some(name.into()),
                Some(("evidence", text)) if !text.is_empty() => marks.evidence = Some(text.into()),
                Some(("exit", code)) => {
                    let code = code.parse();
                    marks.exit = code.map_err(|_| refused("a number from 0 to 255 is accepted"))?;
                }
                Some(("timeout", limit)) => {
                    let limit = duration(limit);
                    marks.timeout =
                        limit.ok_or_else(|| refused("whole seconds or minutes, as 90s or 20m"))?;
                }
                _ => {
                    return Err(refused(
                        "after run there are terminal=, exit=, timeout=, slow, once and evidence=",
                    ));
                }
            }
        }
        Ok(Self::Run(marks))
    }
}

/// `90s`, `20m` or `1h`; not 0.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    let number = number.parse::<u32>().ok().filter(|number| *number > 0)?;
    Some(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_marks_are_understood() {
        let all = r#"run slow once exit=3 timeout=20m evidence="it works" terminal=A"#;
        let marks = Marks {
            terminal: Some("A".to_owned()),
            exit: 3,
            timeout: Duration::from_secs(1200),
            slow: true,
            once: true,
            evidence: Some("it works".to_owned()),
        };
        assert_eq!(Kind::parse(all), Ok(Kind::Run(marks)));
    }

    #[test]
    fn what_is_no_mark_is_refused_with_what_would_be_one() {
        for (words, says) in [
            ("", "add run, or no-run"),
            ("slow", "add run, or no-run"),
            ("rnu", "unknown mark \"rnu\""),
            ("run fast", "\"fast\" is not valid"),
            ("run slow=1", "\"slow=1\" is not valid"),
            ("no-run", "says why"),
            ("no-run reason=", "says why"),
            ("no-run reason=x slow", "nothing else"),
            ("run no-run reason=x", "not valid"),
            ("run exit=256", "from 0 to 255"),
            ("run exit=-1", "from 0 to 255"),
            ("run timeout=20", "as 90s or 20m"),
            ("run timeout=0s", "as 90s or 20m"),
            ("run timeout=m", "as 90s or 20m"),
            ("run evidence=", "not valid"),
            ("run evidence='x", "not closed"),
        ] {
            let refused = Kind::parse(words).unwrap_err();
            assert!(refused.contains(says), "{words:?} says: {refused}");
        }
    }
}
