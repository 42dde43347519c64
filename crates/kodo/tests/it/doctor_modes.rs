//! What `kodo doctor` says of planners: whether the one that is asked for is there.

use crate::doctor::doctor;
use crate::program::kodo;
use crate::scratch::Scratch;
use crate::support::program;

/// OpenCode, to be started by the service, and a model that nobody asks.
const OPENCODE: [(&str, &str); 5] = [
    ("DB_PORT", "9"),
    ("OC_MODE", "live"),
    ("OC_PROVIDER", "opencode"),
    ("OC_BASE_URL", "http://127.0.0.1:9/v1"),
    ("OC_MODEL", "vendor/model"),
];

#[tokio::test]
async fn an_opencode_that_is_not_there_is_a_problem_and_the_next_command_installs_it() {
    let scratch = Scratch::new("doctor_no_opencode");
    let nowhere = scratch.path().display().to_string();
    let environment = [
        &OPENCODE[..],
        &[("PATH", &nowhere), ("KODO_DATA_DIR", &nowhere)],
    ]
    .concat();
    let (what, next) = doctor(&environment).await.problem("planner");
    assert!(
        what.starts_with("live: OC_PROVIDER=opencode needs OpenCode"),
        "{what}"
    );
    assert!(what.contains(&nowhere), "{what}");
    assert_eq!(next, "bin/mise run oc:opencode:install");
    // A service does not start on it either, for the same reason.
    let ended = kodo(&["serve"], &environment).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("needs OpenCode"), "{ended:?}");

    // One that is named and cannot be given to a jail is not taken for one.
    let script = scratch.file("opencode", "#!/usr/bin/env node\n");
    let script = script.display().to_string();
    let environment = [&OPENCODE[..], &[("OC_OPENCODE_BIN", &script)]].concat();
    let (what, _) = doctor(&environment).await.problem("planner");
    assert!(what.contains("is not a native program"), "{what}");
}

#[tokio::test]
async fn an_opencode_that_is_there_is_named_with_the_command_that_asks_it() {
    // Any program will do: the doctor starts none, since a start takes seconds.
    let program = program().display().to_string();
    let environment = [&OPENCODE[..], &[("OC_OPENCODE_BIN", &program)]].concat();
    let (level, what, next) = doctor(&environment).await.one("planner");
    assert_eq!(level, "ok", "{what}");
    assert!(
        what.starts_with("live, by ") && what.contains("vendor/model"),
        "{what}"
    );
    assert_eq!(next, "bin/mise run oc:live:smoke");
}
