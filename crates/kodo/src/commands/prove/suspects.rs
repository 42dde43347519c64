//! Rows that offend against an invariant, and which of them are only transient states of a working service.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kodo_store::Offender;

/// Most rows that are remembered and shown of each invariant, to bound memory.
const MOST: usize = 10_000;

/// What became of a row that offends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It could be in passing.
    Open,
    /// It lasted.
    Violation,
    /// A worker would mend it, and none lives.
    Waiting,
}

/// The rows that offended against one invariant at the first look and at every one since.
///
/// What comes up later is not considered: on a service at work something else is in passing at every look, and whether
/// it lasts is for the next proof to say.
#[derive(Debug)]
pub(super) struct Suspects {
    since: Instant,
    /// For how long at least the rows that are left have offended, as of the last look.
    lasted: Duration,
    looks: u32,
    rows: BTreeMap<String, (Offender, Verdict)>,
    /// Rows of the first look that are not remembered.
    beyond: usize,
}

impl Suspects {
    /// Before the first look, whose rows offended at this moment at the latest.
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            lasted: Duration::ZERO,
            looks: 0,
            rows: BTreeMap::new(),
            beyond: 0,
        }
    }

    /// The beginning of a look, whose rows offend at this moment at the earliest.
    ///
    /// What lies between is what counts: a look at a large database, or on a busy machine, takes its time itself.
    pub(super) fn look(&mut self, at: Instant) -> Look<'_> {
        self.lasted = at.saturating_duration_since(self.since);
        self.looks += 1;
        Look {
            first: self.looks == 1,
            seen: BTreeMap::new(),
            suspects: self,
        }
    }

    /// Decides what can be decided. `dead`: no worker lives, so nothing is in passing.
    pub(super) fn judge(&mut self, dead: bool, margin: Duration) {
        let (lasted, seen_again) = (self.lasted, self.looks > 1);
        for (row, verdict) in self.rows.values_mut() {
            *verdict = match row.allowed {
                Some(_) if dead => Verdict::Waiting,
                // The two databases are read one after the other, so even what may never be is looked at twice. Also
                // where no worker lives: one whose connection was cut is about to take its lock again.
                allowed
                    if seen_again && lasted >= allowed.map_or(Duration::ZERO, |it| it + margin) =>
                {
                    Verdict::Violation
                }
                _ => Verdict::Open,
            };
        }
    }

    /// Whether nothing is open.
    pub(super) fn judged(&self) -> bool {
        !self
            .rows
            .values()
            .any(|(_, verdict)| *verdict == Verdict::Open)
    }

    /// Whether nothing is a violation.
    pub(super) fn holds(&self) -> bool {
        self.of(Verdict::Violation).next().is_none()
    }

    /// The rows with a verdict, by subject.
    pub(super) fn of(&self, wanted: Verdict) -> impl Iterator<Item = &Offender> {
        let rows = self.rows.values();
        rows.filter(move |(_, verdict)| *verdict == wanted)
            .map(|(row, _)| row)
    }

    /// Whether there are more than are remembered.
    pub(super) fn overflows(&self) -> bool {
        self.beyond > 0
    }
}

/// One look.
pub(super) struct Look<'a> {
    suspects: &'a mut Suspects,
    first: bool,
    seen: BTreeMap<String, (Offender, Verdict)>,
}

impl Look<'_> {
    /// A row that offends at this look.
    pub(super) fn sees(&mut self, row: Offender) {
        // Two findings about one subject are two rows.
        let key = match self.seen.contains_key(&row.subject) {
            true => format!("{}\n{}", row.subject, row.finding),
            false => row.subject.clone(),
        };
        if self.first && self.seen.len() < MOST || self.suspects.rows.contains_key(&key) {
            self.seen.insert(key, (row, Verdict::Open));
        } else if self.first {
            self.suspects.beyond += 1;
        }
    }

    /// The end: what was not seen is gone.
    pub(super) fn end(self) {
        self.suspects.rows = self.seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, allowed: Option<u64>) -> Offender {
        Offender {
            subject: subject.to_owned(),
            finding: "x".to_owned(),
            allowed: allowed.map(Duration::from_millis),
        }
    }

    fn look(suspects: &mut Suspects, rows: &[Offender]) {
        let mut look = suspects.look(Instant::now());
        for row in rows {
            look.sees(row.clone());
        }
        look.end();
    }

    fn subjects(suspects: &Suspects, verdict: Verdict) -> Vec<&str> {
        suspects
            .of(verdict)
            .map(|row| row.subject.as_str())
            .collect()
    }

    #[test]
    fn what_is_gone_at_the_second_look_was_in_passing_and_what_comes_up_then_is_not_judged() {
        let mut suspects = Suspects::new(Instant::now());
        look(&mut suspects, &[row("a", None), row("b", None)]);
        suspects.judge(false, Duration::ZERO);
        assert!(!suspects.judged() && suspects.holds());
        look(&mut suspects, &[row("b", None), row("c", None)]);
        suspects.judge(false, Duration::ZERO);
        assert!(suspects.judged());
        assert_eq!(subjects(&suspects, Verdict::Violation), ["b"]);
        assert!(!suspects.overflows());
    }

    #[test]
    fn the_time_that_a_look_takes_is_no_time_that_a_row_has_lasted() {
        let rows = [row("a", Some(2000))];
        let begun = Instant::now();
        // The first look had its rows after a minute; the second one began one or two seconds later.
        for (seconds, verdict) in [(61, Verdict::Open), (62, Verdict::Violation)] {
            let mut suspects = Suspects::new(begun + Duration::from_secs(60));
            for at in [0, seconds] {
                let mut look = suspects.look(begun + Duration::from_secs(at));
                look.sees(rows[0].clone());
                look.end();
            }
            suspects.judge(false, Duration::ZERO);
            assert_eq!(subjects(&suspects, verdict), ["a"], "{seconds}");
        }
    }

    #[test]
    fn what_a_sweep_may_mend_is_given_its_time_while_a_worker_lives() {
        let mut suspects = Suspects::new(Instant::now());
        let rows = [row("a", Some(3_600_000)), row("b", None)];
        look(&mut suspects, &rows);
        look(&mut suspects, &rows);
        suspects.judge(false, Duration::ZERO);
        assert_eq!(subjects(&suspects, Verdict::Open), ["a"]);
        assert_eq!(subjects(&suspects, Verdict::Violation), ["b"]);
        suspects.judge(true, Duration::ZERO);
        assert_eq!(subjects(&suspects, Verdict::Waiting), ["a"]);
    }

    #[test]
    fn where_no_worker_lives_what_it_would_mend_waits_and_the_rest_is_a_violation() {
        let mut suspects = Suspects::new(Instant::now());
        let rows = [row("a", None), row("b", Some(2000))];
        look(&mut suspects, &rows);
        suspects.judge(true, Duration::from_secs(3));
        assert!(!suspects.judged());
        look(&mut suspects, &rows);
        suspects.judge(true, Duration::from_secs(3));
        assert!(suspects.judged());
        assert_eq!(subjects(&suspects, Verdict::Violation), ["a"]);
        assert_eq!(subjects(&suspects, Verdict::Waiting), ["b"]);
    }

    #[test]
    fn two_findings_about_one_subject_are_both_kept_and_memory_is_bounded() {
        let mut suspects = Suspects::new(Instant::now());
        let other = Offender {
            finding: "y".to_owned(),
            ..row("a", None)
        };
        look(&mut suspects, &[row("a", None), other]);
        assert_eq!(suspects.of(Verdict::Open).count(), 2);
        let mut suspects = Suspects::new(Instant::now());
        let many: Vec<Offender> = (0..MOST + 5).map(|n| row(&n.to_string(), None)).collect();
        look(&mut suspects, &many);
        assert_eq!(suspects.of(Verdict::Open).count(), MOST);
        assert!(suspects.overflows());
    }
}
