//! `SBX_MODE=live`: tool calls are programs in a jail.

use std::fs;

use kodo_contract::{Intent, decode, parse_json};
use kodo_planner::fixture_key;
use serde_json::{Value, json};

use crate::program::kodo;
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World, program, until};

/// A world whose planner plans these tool calls for the demo intent.
async fn world(test: &str, scratch: &Scratch, tool_calls: &Value) -> World {
    let intent: Intent = decode(&parse_json(DEMO_INTENT.as_bytes()).unwrap()).unwrap();
    let key = fixture_key(&intent, 424_242);
    let response = json!({"prompt": "p", "toolCalls": tool_calls, "responses": [], "diffs": []});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    scratch.file(&format!("{key}.json"), &fixture.to_string());
    World::with(test, |options| {
        options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", 424_242)
            .env("SBX_MODE", "live")
            // What a job must not see.
            .env("KODO_TEST_CANARY", "secret")
    })
    .await
}

async fn run(world: &World) -> Value {
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await
}

/// Processes with this word in their arguments.
fn with_token(token: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|it| *it == 0).any(|it| it == token.as_bytes())
        })
        .count()
}

#[tokio::test]
async fn a_plans_calls_are_run_in_the_jail_and_what_came_of_them_is_recorded() {
    let scratch = Scratch::new("live_runs");
    let calls = json!([
        {"name": "exec", "args": {"argv": ["env"]}},
        {"name": "exec", "args": {
            "shell": "cat in/a; echo made > out; printf '\\000' > binary; test ! -e /etc/shadow",
            "files": {"in/a": "given\n"},
        }},
    ]);
    let world = world("live_runs", &scratch, &calls).await;
    let view = run(&world).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let first = &view["steps"][1]["output"];
    assert_eq!(first["provider"], "process");
    let environment = first["stdout"].as_str().unwrap();
    assert!(environment.contains("HOME=/job\n"), "{environment}");
    assert!(!environment.contains("KODO_TEST_CANARY"), "{environment}");
    let second = &view["steps"][2]["output"];
    assert_eq!(second["stdout"], "given\n");
    assert_eq!(second["files"][0]["encoding"], "base64");
    assert_eq!(second["files"][1]["content"], "made\n");
    assert_eq!(second["report"]["limits"]["processes"], 512);
    let kinds: Vec<_> = view["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["plan", "stdout", "stdout", "file", "file"]);
}

#[tokio::test]
async fn a_call_that_fails_or_is_ended_ends_the_run_and_says_how() {
    let scratch = Scratch::new("live_fails");
    let calls = json!([
        {"name": "exec", "args": {"argv": ["sleep", "600"], "limits": {"wallMs": 300}}},
    ]);
    let world = world("live_fails", &scratch, &calls).await;
    let view = run(&world).await;
    assert_eq!(view["status"], "failed");
    assert_eq!(view["steps"][1]["output"]["reason"], "timeout");
    let error = view["artifacts"].as_array().unwrap().last().unwrap();
    assert_eq!(error["inline"]["code"], "tool_failed");
    let message = error["inline"]["message"].as_str().unwrap();
    assert!(
        message.contains("exit code 137 (timeout: wallMs is 300, a call sets")
            && message.contains("SBX_MAX_WALL_MS"),
        "{message}"
    );
}

#[tokio::test]
async fn a_tool_that_the_sandbox_does_not_have_is_refused_and_never_run() {
    for (test, call, code) in [
        (
            "live_other_tool",
            json!({"name": "repo.inspect", "args": {}}),
            "tool_not_supported",
        ),
        (
            "live_wrong_args",
            json!({"name": "exec", "args": {"argv": "ls"}}),
            "tool_args_invalid",
        ),
    ] {
        let scratch = Scratch::new(test);
        let world = world(test, &scratch, &json!([call])).await;
        let view = run(&world).await;
        assert_eq!(view["status"], "failed");
        let error = view["artifacts"].as_array().unwrap().last().unwrap();
        assert_eq!(error["inline"]["code"], code, "{view:#}");
    }
}

#[tokio::test]
async fn a_job_dies_with_the_service_and_the_run_goes_on_after_a_restart() {
    let scratch = Scratch::new("live_killed");
    let token = format!("kodo-it-token-{}", std::process::id());
    let calls = json!([
        {"name": "exec", "args": {"argv": ["/bin/sh", "-c",
            "(setsid sh -c 'sleep 3; :' \"$0\" &); trap '' TERM; sleep 3; echo over", token]}},
    ]);
    let mut world = world("live_killed", &scratch, &calls).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    until("the job runs", || async { with_token(&token) >= 2 }).await;
    world.service.kill9().await.unwrap();
    until("all of the job is gone", || async {
        with_token(&token) == 0
    })
    .await;
    let options = world.options.clone();
    world.restart(&options).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(view["steps"][1]["output"]["stdout"], "over\n");
    let steps = world.count("SELECT count(*) FROM app.run_steps").await;
    assert_eq!(steps, 2, "planned once, executed once as far as rows go");
}

#[tokio::test]
async fn a_machine_that_cannot_hold_a_job_starts_no_service() {
    let output = tokio::process::Command::new(program())
        .args(["serve", "--port", "0", "--admin-port", "0"])
        .env("SBX_MODE", "live")
        .env("SBX_CGROUP", "/no/such/cgroup")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("kodo: SBX_MODE=live does not work on this machine:")
            && last.contains("SBX_CGROUP"),
        "{text}"
    );
}

#[tokio::test]
async fn gvisor_that_is_asked_for_and_not_there_runs_nothing_and_says_what_to_do() {
    let refused = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = tokio::process::Command::new(program())
            .args(arguments)
            .env("SBX_MODE", "live")
            .env("SBX_RUNSC", "/no/such/runsc")
            .env("SBX_MICROVM_DIR", "/no/such/folder")
            .envs(variables.iter().copied())
            .output()
            .await
            .unwrap();
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code(),
            text.lines().last().unwrap().to_owned(),
        )
    };
    let one = ["sandbox", "run", "echo", "ran"];
    let (code, text) = refused(&one, &[("SBX_PROVIDER", "gvisor")]).await;
    assert_eq!(code, Some(125));
    let begins =
        "kodo: sandbox_refused: no sandbox that SBX_PROVIDER=gvisor allows works here: gvisor: ";
    assert!(text.starts_with(begins), "{text}");
    assert!(text.contains("/no/such/runsc: No such file"), "{text}");
    assert!(
        text.contains("SBX_RUNSC") && !text.contains("microvm"),
        "{text}"
    );
    // What would be weaker is not taken, though this machine can do it.
    let service = ["serve", "--port", "0", "--admin-port", "0"];
    let (code, text) = refused(&service, &[("SBX_MIN_ISOLATION", "gvisor")]).await;
    assert_eq!(code, Some(1));
    assert!(
        text.contains("no sandbox that SBX_MIN_ISOLATION=gvisor allows works here: microvm: "),
        "{text}"
    );
    assert!(
        text.contains("; gvisor: ") && !text.contains("process: "),
        "{text}"
    );
}

#[tokio::test]
async fn one_job_can_be_run_from_the_command_line() {
    let sandbox = async |arguments: &[&str]| {
        let output = tokio::process::Command::new(program())
            .args(["sandbox", "run"])
            .args(arguments)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let scratch = Scratch::new("live_cli");
    let input = scratch.file("input", "given\n");
    let given = format!("{}:in.txt", input.display());
    let out = scratch.path().join("out");
    let out = out.to_str().unwrap();
    let script = "cat in.txt; echo $K >&2; mkdir d; echo made > d/out; exit 3";
    let ran = sandbox(&[
        "--file", &given, "--env", "K=v", "--out", out, "--", "sh", "-c", script,
    ])
    .await;
    assert_eq!(ran, (Some(3), "given\n".to_owned(), "v\n".to_owned()));
    let made = fs::read_to_string(scratch.path().join("out/d/out")).unwrap();
    assert_eq!(made, "made\n");

    // What is left is bounded by what a run carries, and not by what becomes artifacts.
    let out = scratch.path().join("many");
    let script = "for i in $(seq 1100); do echo $i > $i; done; head -c 9000000 /dev/zero > large; ln -s 1 link";
    let left = [
        "--out",
        out.to_str().unwrap(),
        "-o",
        "json",
        "--",
        "sh",
        "-c",
        script,
    ];
    let ran = sandbox(&left).await;
    assert_eq!(ran.0, Some(0), "{}", ran.2);
    assert_eq!(ran.2, "kodo: --out: 1 symbolic links are not written\n");
    assert_eq!(fs::metadata(out.join("large")).unwrap().len(), 9_000_000);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1101);
    let result: Value = serde_json::from_str(&ran.1).unwrap();
    assert_eq!(result["files"].as_array().unwrap().len(), 1024);
    assert_eq!(result["report"]["artifacts"]["omitted"], 77);
    let script = "head -c 100000 /dev/zero | tr '\\0' x > large; echo a > small";
    let ran = sandbox(&["-o", "json", "--", "sh", "-c", script]).await;
    let result: Value = serde_json::from_str(&ran.1).unwrap();
    assert_eq!(result["files"][0]["content"], "x".repeat(100_000));
    assert_eq!(result["files"][1]["content"], "a\n");

    let ran = sandbox(&["-o", "json", "--limit", "wallMs=300", "sleep", "60"]).await;
    assert_eq!(ran.0, Some(137));
    let result: Value = serde_json::from_str(&ran.1).unwrap();
    assert_eq!(result["reason"], "timeout");

    // The line can be read, and no job can be made of it.
    for refused in [
        &["--limit", "wallMs=0", "true"][..],
        &["--file", "/no/such/file:x", "true"],
        &["--cwd", "/etc", "true"],
        &["--out", scratch.path().to_str().unwrap(), "true"],
    ] {
        let ran = sandbox(refused).await;
        assert_eq!(
            (ran.0, ran.1.as_str()),
            (Some(125), ""),
            "{refused:?}: {}",
            ran.2
        );
        assert!(ran.2.starts_with("kodo: "), "{}", ran.2);
    }
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2_and_a_setting_that_cannot_be_used_with_125() {
    for (wrong, said) in [
        (
            &["--limit", "foo", "true"][..],
            "'foo' for '--limit <NAME=NUMBER>': NAME=NUMBER is accepted",
        ),
        (
            &["--limit", "wallMs=soon", "true"],
            "'wallMs=soon' for '--limit <NAME=NUMBER>': NAME=NUMBER is accepted",
        ),
        (
            &["--limit", "speed=1", "true"],
            "'speed=1' for '--limit <NAME=NUMBER>': unknown field `speed`, expected one of `wallMs`, `memoryBytes`",
        ),
        (
            &["--env", "K", "true"],
            "'K' for '--env <KEY=VALUE>': KEY=VALUE is accepted",
        ),
        (
            &["--file", "nonsense", "true"],
            "'nonsense' for '--file <HOST_PATH:NAME>': HOST_PATH:NAME is accepted",
        ),
        (&[], "required arguments were not provided"),
    ] {
        let arguments: Vec<&str> = ["sandbox", "run"].iter().chain(wrong).copied().collect();
        let ended = kodo(&arguments, &[]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
    let ended = kodo(&["sandbox", "run", "true"], &[("SBX_PROVIDER", "foo")]).await;
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (
            Some(125),
            "kodo: SBX_PROVIDER=foo is not valid: auto, process, gvisor, microvm is accepted\n"
        )
    );
}
