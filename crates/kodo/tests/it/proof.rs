//! `kodo prove` on a world's databases, for every test that wants its rows proven at the end.

use serde_json::Value;

use crate::program::Ended;
use crate::support::World;
use crate::workflow_commands::kodo_on;

/// Every invariant holds. Also with the service live or killed; what is in passing is waited for.
pub async fn assert_invariants_hold(world: &World) {
    let ended = kodo_on(world, &["prove"]).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
}

/// The proof as a program reads it, and the exit code that must fit it.
pub async fn proof(world: &World) -> Value {
    read(&kodo_on(world, &["prove", "--json"]).await)
}

/// The JSON that `kodo prove` printed.
pub fn read(ended: &Ended) -> Value {
    assert_eq!(ended.stderr, "", "{ended:?}");
    let proof: Value = serde_json::from_str(&ended.stdout).expect("one JSON document");
    let expected = if proof["holds"] == true { 0 } else { 1 };
    assert_eq!(ended.code, Some(expected), "{proof:#}");
    proof
}

/// The entry of one invariant.
pub fn invariant<'a>(proof: &'a Value, name: &str) -> &'a Value {
    let all = proof["invariants"].as_array().expect("invariants");
    all.iter()
        .find(|invariant| invariant["name"] == name)
        .unwrap_or_else(|| panic!("{name} in {proof:#}"))
}

/// The names of the invariants that are violated.
pub fn violated(proof: &Value) -> Vec<&str> {
    let all = proof["invariants"].as_array().expect("invariants");
    all.iter()
        .filter(|invariant| invariant["holds"] == false)
        .filter_map(|invariant| invariant["name"].as_str())
        .collect()
}
