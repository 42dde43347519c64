//! Whether everything holds that was promised: judged by the rows against what clients were told, and by the product's own
//! invariants, which have the marks of the crash demos and the engine's checkpoints.
//!
//! No reason to fail is allowed: every fault of the soak passes by itself (a process gone, a database gone, a session
//! cut), the plans and the sandbox never fail, and a run is recovered far less often than the engine permits. A run
//! that is not `succeeded` is a violation, whatever its error says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use kodo_dev::harness::Databases;
use serde_json::Value;
use tokio::process::Command;

use super::board::{AcceptedRun, Told};
use super::evidence::{Rows, RunRow};

/// One promise, and what breaks it.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) promise: &'static str,
    /// How many things were looked at.
    pub(super) looked_at: usize,
    /// The offenders, with what is wrong about each.
    pub(super) broken: Vec<String>,
}

/// Looks at each thing; `wrong` says what is wrong about one.
fn check<T>(
    promise: &'static str,
    things: impl IntoIterator<Item = T>,
    wrong: impl Fn(T) -> Option<String>,
) -> Check {
    let wrong: Vec<Option<String>> = things.into_iter().map(wrong).collect();
    Check {
        promise,
        looked_at: wrong.len(),
        broken: wrong.into_iter().flatten().collect(),
    }
}

/// Judges. `reference` has what an undisturbed run of each kind of intent recorded.
pub(super) fn judge(told: &Told, rows: &Rows, reference: &[String]) -> Vec<Check> {
    let kinds = told.runs.iter().map(|run| (run.run.as_str(), run.kind));
    let kinds: BTreeMap<&str, usize> = kinds.collect();
    vec![
        Check {
            promise: "every request was answered, as the contract says, with one and the same id; services end when asked",
            looked_at: told.intents.len() + told.runs.len() + told.demos.len(),
            broken: told.wrong.clone(),
        },
        check(
            "every accepted request has its one run",
            &told.runs,
            |accepted| one_run(accepted, rows),
        ),
        nobody_asked(told, rows),
        check("every idempotency key is stored once", told.keys(), |key| {
            let times = rows.keys.iter().filter(|stored| *stored == key).count();
            (times != 1).then(|| format!("key {key} is stored {times} times"))
        }),
        check(
            "every run came to its end, and no fault failed one",
            &rows.runs,
            |row| {
                let error = row.error.as_deref();
                let wrong = row.status != "succeeded" || error.is_some();
                wrong.then(|| format!("{} is {} {}", row.id, row.status, error.unwrap_or_default()))
            },
        ),
        check(
            "every step and artifact is there exactly once, as in an undisturbed run",
            &rows.runs,
            |row| {
                // A run that nobody asked for is another promise's business.
                let expected = reference.get(*kinds.get(row.id.as_str())?)?;
                let found = row.evidence();
                (found != *expected).then(|| format!("{}: {found}", row.id))
            },
        ),
        check("every crash demo ended well", &told.demos, |id| {
            let status = rows.workflows.get(id).map(|row| row.status.as_str());
            (status != Some("SUCCESS")).then(|| format!("{id}: workflow {status:?}"))
        }),
    ]
}

fn one_run(accepted: &AcceptedRun, rows: &Rows) -> Option<String> {
    let AcceptedRun { run, key, .. } = accepted;
    let rows = rows.runs.iter();
    let by_key: Vec<&RunRow> = rows
        .filter(|row| row.trace_id.as_deref() == Some(key))
        .collect();
    match by_key.as_slice() {
        [row] if row.id == *run && row.intent_id == accepted.intent => None,
        [] => Some(format!("{run} of key {key} has no row")),
        rows => {
            let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
            Some(format!(
                "key {key} was answered with {run} and has the rows {ids:?}"
            ))
        }
    }
}

fn nobody_asked(told: &Told, rows: &Rows) -> Check {
    let runs = told.runs.iter().map(|run| run.run.as_str());
    let demos = told.demos.iter().map(String::as_str);
    let intents = told.intents.values().map(String::as_str);
    let asked: BTreeSet<&str> = runs
        .chain(demos)
        .chain(intents)
        .chain(told.keys())
        .collect();
    let found = rows.runs.iter().map(|row| &row.id);
    let found = found.chain(rows.workflows.keys());
    let found = found.chain(&rows.intents).chain(&rows.keys);
    check("nothing exists that no client asked for", found, |id| {
        (!asked.contains(id.as_str())).then(|| id.clone())
    })
}

/// Holds the rows against every invariant of `kodo prove`, with the services still up.
pub(super) async fn prove(program: &Path, databases: &Databases) -> anyhow::Result<Check> {
    let output = Command::new(program)
        .args(["prove", "--json"])
        .envs(databases.environment())
        .kill_on_drop(true)
        .output()
        .await
        .context("kodo prove")?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("kodo prove: {}", String::from_utf8_lossy(&output.stderr)))?;
    let invariants = said["invariants"].as_array().map_or(&[][..], Vec::as_slice);
    let mut check = check(
        "every invariant of kodo prove holds, with the services up",
        invariants,
        |it| (it["holds"] != true).then(|| format!("{}: {}", it["name"], it["violations"])),
    );
    if check.broken.is_empty() && !output.status.success() {
        check
            .broken
            .push(format!("kodo prove ended with {}", output.status));
    }
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::super::evidence::WorkflowRow;
    use super::*;

    fn accepted() -> AcceptedRun {
        AcceptedRun {
            run: "run_1".to_owned(),
            intent: "it_1".to_owned(),
            key: "k-run".to_owned(),
            kind: 0,
        }
    }

    /// One run and one crash demo, all as it should be.
    fn healthy() -> (Told, Rows, Vec<String>) {
        let run = RunRow {
            id: "run_1".to_owned(),
            intent_id: "it_1".to_owned(),
            workflow_id: "run_1".to_owned(),
            status: "succeeded".to_owned(),
            trace_id: Some("k-run".to_owned()),
            error: None,
            took_ms: 5,
            effects: "steps of run_1 for k-run".to_owned(),
        };
        let workflow = || WorkflowRow {
            status: "SUCCESS".to_owned(),
            recovery_attempts: 1,
            shape: "0:plan".to_owned(),
        };
        let told = Told {
            intents: [("k-intent".to_owned(), "it_1".to_owned())].into(),
            runs: vec![accepted()],
            demos: vec!["d".to_owned()],
            ..Told::default()
        };
        let rows = Rows {
            runs: vec![run],
            workflows: [
                ("run_1".to_owned(), workflow()),
                ("d".to_owned(), workflow()),
            ]
            .into(),
            intents: vec!["it_1".to_owned()],
            keys: vec!["k-intent".to_owned(), "k-run".to_owned()],
        };
        (told, rows, vec!["steps of RUN for TRACE".to_owned()])
    }

    /// The promises that are broken, by the first words of each.
    fn broken(told: &Told, rows: &Rows, reference: &[String]) -> Vec<String> {
        let checks = judge(told, rows, reference);
        let broken = checks.iter().filter(|check| !check.broken.is_empty());
        broken
            .map(|check| {
                check
                    .promise
                    .split(' ')
                    .take(3)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    #[test]
    fn what_is_as_it_should_be_breaks_nothing() {
        let (told, rows, reference) = healthy();
        assert_eq!(broken(&told, &rows, &reference), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_damage_breaks_its_promise() {
        type Damage = fn(&mut Told, &mut Rows);
        let table: [(Damage, &[&str]); 11] = [
            (
                |_, rows| rows.runs[0].status = "failed".to_owned(),
                &["every run came"],
            ),
            (
                |_, rows| rows.runs[0].error = Some("{}".to_owned()),
                &["every run came"],
            ),
            (
                |_, rows| rows.runs[0].effects.push('x'),
                &["every step and"],
            ),
            (
                |_, rows| rows.runs.push(rows.runs[0].clone()),
                &["every accepted request"],
            ),
            (|_, rows| rows.runs.clear(), &["every accepted request"]),
            (
                |_, rows| rows.keys.push("k-new".to_owned()),
                &["nothing exists that"],
            ),
            (|_, rows| drop(rows.keys.pop()), &["every idempotency key"]),
            (
                |_, rows| rows.keys.push("k-run".to_owned()),
                &["every idempotency key"],
            ),
            (
                |_, rows| rows.intents.push("it_2".to_owned()),
                &["nothing exists that"],
            ),
            (
                |_, rows| drop(rows.workflows.remove("d")),
                &["every crash demo"],
            ),
            (
                |told, _| told.wrong.push("500".to_owned()),
                &["every request was"],
            ),
        ];
        for (index, (damage, expected)) in table.into_iter().enumerate() {
            let (mut told, mut rows, reference) = healthy();
            damage(&mut told, &mut rows);
            assert_eq!(broken(&told, &rows, &reference), expected, "damage {index}");
        }
    }
}
