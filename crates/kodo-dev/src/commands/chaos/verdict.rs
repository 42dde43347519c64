//! Whether everything holds that was promised, judged by the rows against what clients were told.
//!
//! No reason to fail is allowed: every fault of the soak is weather (a process gone, a database gone, a session
//! cut), the plans and the sandbox never fail, and a run is recovered far less often than the engine permits. A run
//! that is not `succeeded` is a violation, whatever its error says.

use std::collections::{BTreeMap, BTreeSet};

use super::board::Told;
use super::evidence::{Evidence, Rows};

/// Name of the workflow of a run.
const RUN_WORKFLOW: &str = "intent_run";

/// The checkpoints of a crash demo, by position and name.
const DEMO_SHAPE: &str = "0:s1 1:DBOS.sleep 2:s2";

/// One promise, and what breaks it.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) promise: &'static str,
    /// How many things were looked at.
    pub(crate) looked_at: usize,
    /// The offenders, with what is wrong about each.
    pub(crate) broken: Vec<String>,
}

/// Judges. `reference` has what an undisturbed run of each kind of intent recorded.
pub(crate) fn judge(told: &Told, rows: &Rows, reference: &[Evidence]) -> Vec<Check> {
    vec![
        answers(told),
        one_run_each(told, rows),
        nobody_asked(told, rows),
        keys(told, rows),
        succeeded(rows),
        workflows_agree(told, rows),
        compare(
            told,
            rows,
            reference,
            "every step and artifact is there exactly once, as in an undisturbed run",
            |evidence| &evidence.effects,
        ),
        compare(
            told,
            rows,
            reference,
            "the engine's checkpoints are those of an undisturbed run, without a gap",
            |evidence| &evidence.checkpoints,
        ),
        demos(told, rows),
    ]
}

fn answers(told: &Told) -> Check {
    Check {
        promise: "every request was answered, as the contract says, with one and the same id; services end when asked",
        looked_at: told.intents.len() + told.runs.len() + told.demos.len(),
        broken: told.wrong.clone(),
    }
}

fn one_run_each(told: &Told, rows: &Rows) -> Check {
    let mut broken = Vec::new();
    for accepted in &told.runs {
        let by_key: Vec<_> = rows
            .runs
            .iter()
            .filter(|row| row.trace_id.as_deref() == Some(&accepted.key))
            .collect();
        match by_key.as_slice() {
            [row] if row.id == accepted.run && row.intent_id == accepted.intent => {}
            [] => broken.push(format!(
                "{} of key {} has no row",
                accepted.run, accepted.key
            )),
            rows => {
                let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
                broken.push(format!(
                    "key {} was answered with {} and has the rows {ids:?}",
                    accepted.key, accepted.run
                ));
            }
        }
    }
    Check {
        promise: "every accepted request has its one run",
        looked_at: told.runs.len(),
        broken,
    }
}

fn nobody_asked(told: &Told, rows: &Rows) -> Check {
    let runs: BTreeSet<&str> = told.runs.iter().map(|run| run.run.as_str()).collect();
    let demos: BTreeSet<&str> = told.demos.iter().map(String::as_str).collect();
    let intents: BTreeSet<&str> = told.intents.values().map(String::as_str).collect();
    let mut broken = Vec::new();
    let strangers = rows
        .runs
        .iter()
        .filter(|row| !runs.contains(row.id.as_str()));
    broken.extend(strangers.map(|row| format!("run {} (trace {:?})", row.id, row.trace_id)));
    let strangers = rows
        .intents
        .iter()
        .filter(|id| !intents.contains(id.as_str()));
    broken.extend(strangers.map(|id| format!("intent {id}")));
    let strangers = rows
        .workflows
        .keys()
        .filter(|id| !runs.contains(id.as_str()) && !demos.contains(id.as_str()));
    broken.extend(strangers.map(|id| format!("workflow {id}")));
    let strangers = rows.marks.keys().filter(|id| !demos.contains(id.as_str()));
    broken.extend(strangers.map(|id| format!("marks of {id}")));
    Check {
        promise: "nothing exists that no client asked for",
        looked_at: rows.runs.len() + rows.intents.len() + rows.workflows.len() + rows.marks.len(),
        broken,
    }
}

fn keys(told: &Told, rows: &Rows) -> Check {
    let asked: BTreeSet<&str> = told
        .runs
        .iter()
        .map(|run| run.key.as_str())
        .chain(told.intents.keys().map(String::as_str))
        .collect();
    let mut broken = Vec::new();
    let mut stored = BTreeSet::new();
    for key in &rows.keys {
        if !stored.insert(key.as_str()) {
            broken.push(format!("key {key} is stored more than once"));
        }
    }
    broken.extend(
        asked
            .symmetric_difference(&stored)
            .map(|key| format!("key {key} is not on both sides")),
    );
    Check {
        promise: "every idempotency key is stored once",
        looked_at: asked.len(),
        broken,
    }
}

fn succeeded(rows: &Rows) -> Check {
    let failed = rows
        .runs
        .iter()
        .filter(|row| row.status != "succeeded" || row.error.is_some());
    Check {
        promise: "every run came to its end, and weather failed none",
        looked_at: rows.runs.len(),
        broken: failed
            .map(|row| {
                format!(
                    "{} is {} {}",
                    row.id,
                    row.status,
                    row.error.as_deref().unwrap_or_default()
                )
            })
            .collect(),
    }
}

fn workflows_agree(told: &Told, rows: &Rows) -> Check {
    let mut broken = Vec::new();
    for row in &rows.runs {
        let workflow = rows.workflows.get(&row.workflow_id);
        let said = workflow.map(|workflow| (workflow.name.as_deref(), workflow.status.as_str()));
        let agree = matches!(
            (row.status.as_str(), said),
            ("succeeded", Some((Some(RUN_WORKFLOW), "SUCCESS")))
                | (
                    "failed",
                    Some((
                        Some(RUN_WORKFLOW),
                        "ERROR" | "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
                    ))
                )
                | ("canceled", Some((Some(RUN_WORKFLOW), "CANCELLED")))
        );
        if row.workflow_id != row.id || !agree {
            broken.push(format!(
                "{} is {}, its workflow {} says {said:?}",
                row.id, row.status, row.workflow_id
            ));
        }
    }
    Check {
        promise: "every run has its one workflow, and both say the same of its end",
        looked_at: told.runs.len(),
        broken,
    }
}

fn compare(
    told: &Told,
    rows: &Rows,
    reference: &[Evidence],
    promise: &'static str,
    part: impl Fn(&Evidence) -> &String,
) -> Check {
    let kinds: BTreeMap<&str, usize> = told
        .runs
        .iter()
        .map(|run| (run.run.as_str(), run.kind))
        .collect();
    let mut broken = Vec::new();
    for row in &rows.runs {
        // A run that nobody asked for is another promise's business.
        let Some(expected) = kinds
            .get(row.id.as_str())
            .and_then(|kind| reference.get(*kind))
        else {
            continue;
        };
        let found = rows.evidence(row);
        if part(&found) != part(expected) {
            broken.push(format!("{}: {}", row.id, part(&found)));
        }
    }
    Check {
        promise,
        looked_at: rows.runs.len(),
        broken,
    }
}

fn demos(told: &Told, rows: &Rows) -> Check {
    let mut broken = Vec::new();
    for id in &told.demos {
        let marks = rows.marks.get(id).copied().unwrap_or_default();
        let workflow = rows.workflows.get(id);
        let said = workflow.map(|row| (row.status.as_str(), row.shape.as_str()));
        if marks != (1, 1) || said != Some(("SUCCESS", DEMO_SHAPE)) {
            broken.push(format!("{id}: marks {marks:?}, workflow {said:?}"));
        }
    }
    Check {
        promise: "every crash demo has its two marks once each, and ended well",
        looked_at: told.demos.len(),
        broken,
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::AcceptedRun;
    use super::super::evidence::{RunRow, WorkflowRow};
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
    fn healthy() -> (Told, Rows, Vec<Evidence>) {
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
        let workflow = |name: &str, shape: &str| WorkflowRow {
            name: Some(name.to_owned()),
            status: "SUCCESS".to_owned(),
            recovery_attempts: 1,
            shape: shape.to_owned(),
            checkpoints: "plan".to_owned(),
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
                ("run_1".to_owned(), workflow(RUN_WORKFLOW, "0:plan")),
                ("d".to_owned(), workflow("crash_demo", DEMO_SHAPE)),
            ]
            .into(),
            intents: vec!["it_1".to_owned()],
            keys: vec!["k-intent".to_owned(), "k-run".to_owned()],
            marks: [("d".to_owned(), (1, 1))].into(),
        };
        let reference = Evidence {
            effects: "steps of RUN for TRACE".to_owned(),
            checkpoints: "plan".to_owned(),
        };
        (told, rows, vec![reference])
    }

    /// The promises that are broken, by the first words of each.
    fn broken(told: &Told, rows: &Rows, reference: &[Evidence]) -> Vec<String> {
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
        let table: [(Damage, &[&str]); 12] = [
            (
                |_, rows| rows.runs[0].status = "failed".to_owned(),
                &["every run came", "every run has"],
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
                |_, rows| drop(rows.workflows.remove("run_1")),
                &["every run has", "the engine's checkpoints"],
            ),
            (
                |_, rows| {
                    if let Some(row) = rows.workflows.get_mut("run_1") {
                        row.status = "ERROR".to_owned();
                    }
                },
                &["every run has"],
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
                |_, rows| {
                    rows.marks.insert("d".to_owned(), (1, 0));
                },
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
