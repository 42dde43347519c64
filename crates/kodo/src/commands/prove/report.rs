//! What `kodo prove` prints.

use std::collections::BTreeMap;
use std::fmt::Write;

use kodo_store::Offender;
use serde::Serialize;

use super::Proof;
use super::suspects::{Suspects, Verdict};
use crate::output;
use crate::say::{Say, counted};

/// Most rows that a person is shown of each invariant.
const SHOWN: usize = 10;

/// Where lines of text are broken, and how far they are indented.
const WIDTH: usize = 100;
const INDENT: &str = "          ";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    holds: bool,
    product_database: &'a str,
    system_database: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<i64>,
    workers: &'a [String],
    runs: &'a BTreeMap<String, i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
    invariants: Vec<Line<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    name: &'a str,
    sentence: &'a str,
    holds: bool,
    looked_at: i64,
    units: &'a str,
    violations: Vec<Row<'a>>,
    /// Whether there are more than are listed.
    more: bool,
    /// What a worker would mend, if one lived.
    waiting: Vec<Row<'a>>,
    query: String,
}

#[derive(Serialize)]
struct Row<'a> {
    subject: &'a str,
    finding: &'a str,
}

impl<'a> From<&'a Offender> for Row<'a> {
    fn from(row: &'a Offender) -> Self {
        Self {
            subject: &row.subject,
            finding: &row.finding,
        }
    }
}

/// The command that shows an invariant's offenders, from the root of the repository.
fn query(name: &str) -> String {
    format!("scripts/db/psql-both.sh -f db/invariants/{name}.sql")
}

/// For programs.
pub(super) fn json(proof: &Proof) -> String {
    let invariants = proof.found.iter().map(|(invariant, rows)| Line {
        name: invariant.name,
        sentence: &invariant.sentence,
        holds: rows.holds(),
        looked_at: invariant.looked_at,
        units: &invariant.units,
        violations: rows.of(Verdict::Violation).map(Row::from).collect(),
        more: rows.overflows(),
        waiting: rows.of(Verdict::Waiting).map(Row::from).collect(),
        query: query(invariant.name),
    });
    let report = Report {
        holds: proof.violated() == 0,
        product_database: &proof.product,
        system_database: &proof.system,
        instance: &proof.instance,
        newest: proof.newest,
        workers: &proof.workers,
        runs: &proof.runs,
        warning: proof.warning.as_deref(),
        invariants: invariants.collect(),
    };
    output::json(&report)
}

/// For people.
pub(super) fn text(proof: &Proof) -> String {
    let say = Say::new();
    let mut text = head(proof);
    // Those that are violated come last: on a screen the end is what one sees.
    let (hold, violated): (Vec<_>, Vec<_>) = proof.found.iter().partition(|(_, rows)| rows.holds());
    for (invariant, rows) in hold.into_iter().chain(violated) {
        let looked_at = counted(invariant.looked_at, &invariant.units);
        let mark = match (rows.holds(), invariant.looked_at) {
            // True, and no evidence of anything.
            (true, 0) => say.dim("holds     "),
            (true, _) => say.good("holds     "),
            (false, _) => say.bad("VIOLATED  "),
        };
        let sentence = wrapped(&invariant.sentence).join(&format!("\n{INDENT}"));
        // Writing to a String never fails, here and below.
        let _ = writeln!(text, "\n{mark}{sentence}");
        let _ = match invariant.looked_at {
            0 if rows.holds() => writeln!(text, "{INDENT}no rows to check: {looked_at}"),
            _ => writeln!(text, "{INDENT}{} in {looked_at}", found(rows)),
        };
        list(&mut text, rows, Verdict::Violation);
        list(&mut text, rows, Verdict::Waiting);
        let _ = writeln!(text, "{INDENT}{}", say.dim(&query(invariant.name)));
    }
    let all = proof.found.len();
    let seen = proof
        .found
        .iter()
        .filter(|(it, _)| it.looked_at > 0)
        .count();
    let _ = match proof.violated() {
        0 if seen == 0 => writeln!(
            text,
            "\nAll {all} invariants hold, but there are no rows to check."
        ),
        0 if seen < all => writeln!(
            text,
            "\nAll {all} invariants hold; {} of them had no rows to check.",
            all - seen
        ),
        0 => writeln!(text, "\nAll {all} invariants hold."),
        1 => writeln!(text, "\n1 of {all} invariants is violated."),
        more => writeln!(text, "\n{more} of {all} invariants are violated."),
    };
    text
}

fn head(proof: &Proof) -> String {
    let Proof {
        product,
        system,
        place,
        instance,
        ..
    } = proof;
    let workers = match proof.workers.as_slice() {
        [] => "No worker lives".to_owned(),
        [one] => format!("1 worker lives ({one})"),
        more => format!("{} workers live ({})", more.len(), more.join(", ")),
    };
    let runs = match proof.runs.values().sum::<i64>() {
        0 => "no runs yet".to_owned(),
        all => {
            let each = proof.runs.iter();
            let each: Vec<String> = each.map(|(status, n)| format!("{n} {status}")).collect();
            let plural = if all == 1 { "" } else { "s" };
            format!("{all} run{plural}: {}", each.join(", "))
        }
    };
    let waiting = match proof.unfinished() {
        waiting if waiting > 0 && proof.workers.is_empty() => {
            format!("{waiting} of them not over: they wait until one does.\n")
        }
        _ => String::new(),
    };
    let window = match proof.newest {
        Some(newest) => format!("Looked at the newest {newest} runs alone (--newest).\n"),
        None => String::new(),
    };
    let warning = match &proof.warning {
        Some(warning) => format!("Note: {warning}.\n"),
        None => String::new(),
    };
    format!(
        "Product database {product} (instance {instance}), system database {system}, at {place}.\n\
         {workers}; {runs}.\n{waiting}{window}{warning}"
    )
}

fn found(rows: &Suspects) -> String {
    match rows.of(Verdict::Violation).count() {
        0 => "nothing found".to_owned(),
        count if rows.overflows() => format!("more than {count} found"),
        count => format!("{count} found"),
    }
}

fn list(text: &mut String, rows: &Suspects, verdict: Verdict) {
    let count = rows.of(verdict).count();
    if verdict == Verdict::Waiting && count > 0 {
        let _ = writeln!(
            text,
            "{INDENT}{count} for the next worker to bring in order:"
        );
    }
    for row in rows.of(verdict).take(SHOWN) {
        let _ = writeln!(text, "{INDENT}  {}: {}", row.subject, row.finding);
    }
    if count > SHOWN {
        let more = count - SHOWN;
        let _ = writeln!(
            text,
            "{INDENT}  and {more} more (kodo prove --json lists them)"
        );
    }
}

/// Words in lines that fit beside the indent.
fn wrapped(sentence: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if INDENT.len() + line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
