//! The workspace of a run: what a call leaves in its folder is what the next one finds.

use serde_json::{Value, json};

use crate::proof::assert_invariants_hold;
use crate::scratch::Scratch;
use crate::support::World;
use crate::tool_calls::{call, error, goal, run, stdout, step, world_with};

async fn world(scratch: &Scratch, test: &str, intent: &Value, calls: &Value) -> World {
    world_with(scratch, test, intent, calls, &[]).await
}

/// Calls one after the other.
fn calls(shell: &[&str]) -> Value {
    let calls = shell
        .iter()
        .map(|it| json!({"name": "exec", "args": {"shell": it}}));
    calls.collect()
}

/// Ten times: a second is long enough for two calls, and what is wrong about times shows only then.
#[tokio::test]
async fn a_build_sees_what_an_earlier_call_changed() {
    let scratch = Scratch::new("spaces_make");
    let intent = goal(json!({}), json!({}));
    let write =
        "printf '#include <stdio.h>\\nint main(void) { puts(\"old\"); return 0; }\\n' > main.c
        printf 'prog: main.c\\n\\tcc -o prog main.c\\n' > Makefile; make; ./prog";
    let mut shell = vec![write];
    for round in 0..10 {
        shell.push(if round % 2 == 0 {
            "sed -i s/old/new/ main.c"
        } else {
            "sed -i s/new/old/ main.c"
        });
        shell.push("make -s; ./prog");
    }
    let calls = calls(&shell);
    let world = world(&scratch, "spaces_make", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    for round in 0..10 {
        let expected = if round % 2 == 0 { "new\n" } else { "old\n" };
        assert_eq!(
            stdout(&view, &format!("tool-{:03}", 3 + 2 * round)),
            expected,
            "{round}"
        );
    }
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn folders_links_and_removals_are_found_as_they_were_left() {
    let scratch = Scratch::new("spaces_git");
    let intent = goal(
        json!({"files": {"gone.txt": "x", "src/app.js": "console.log(1)\n"}}),
        json!({}),
    );
    let git =
        "export HOME=/tmp; git config --global user.email a@b.c; git config --global user.name n;";
    let calls = calls(&[
        &format!("{git} git init -q . && git add src && git commit -qm first; rm gone.txt
            mkdir -p node_modules/.bin node_modules/tool; printf '#!/bin/sh\\necho ran\\n' > node_modules/tool/cli.sh
            chmod +x node_modules/tool/cli.sh; ln -s ../tool/cli.sh node_modules/.bin/tool; ln src/app.js linked"),
        &format!("{git} git status --short src; git log --format=%s; node_modules/.bin/tool; ls gone.txt 2>&1 | wc -l; test ! -e gone.txt
            echo more >> linked; tail -1 src/app.js"),
    ]);
    let world = world(&scratch, "spaces_git", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-002"), "first\nran\n1\nmore\n");
    let workspace = &step(&view, "tool-002")["output"]["workspace"];
    assert!(workspace["entries"].as_u64() > Some(20), "{workspace}");
}

#[tokio::test]
async fn what_parallel_calls_changed_differently_ends_the_call_that_needs_both() {
    let scratch = Scratch::new("spaces_conflict");
    let intent = goal(json!({"files": {"a": "0", "b": "0", "c": "0"}}), json!({}));
    let calls = json!([
        call("one", "echo 1 > a; rm b; echo same > c", &[]),
        call("two", "echo 2 > d; touch b; echo same > c", &[]),
        call("both", "cat a c d; test ! -e b", &["one", "two"]),
        call("other", "echo 3 > a", &[]),
        call("clash", "true", &["both", "other"]),
    ]);
    let world = world(&scratch, "spaces_conflict", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(error(&view)["code"], "workspace_conflict", "{view:#}");
    assert_eq!(error(&view)["stepId"], "tool-005");
    let message = error(&view)["message"].as_str().unwrap();
    assert!(
        message.contains("\"a\" was changed differently by tool call 1 and by tool call 4"),
        "{message}"
    );
    assert_eq!(stdout(&view, "tool-003"), "1\nsame\n2\n");
}

#[tokio::test]
async fn a_run_whose_service_was_killed_goes_on_with_the_workspace() {
    let scratch = Scratch::new("spaces_killed");
    let intent = goal(json!({}), json!({}));
    let calls = calls(&[
        "mkdir d; ln -s d l; echo 1 > d/f; touch -d '2001-02-03 04:05:06.5' d/f; echo x > gone",
        "rm gone; echo 2 >> l/f",
        "cat l/f; test ! -e gone; stat -c %F l",
    ]);
    // After the content of the second call has been stored, before its row.
    let killed_there = [("KODO_FAILPOINT", "tool-002:stored")];
    let mut world = world_with(&scratch, "spaces_killed", &intent, &calls, &killed_there).await;
    let id = world.intent(&intent.to_string()).await;
    let run = world.run(&id).await;
    let limit = std::time::Duration::from_secs(30);
    world.service.wait(limit).await.expect("it is killed");
    let again = world.options.clone().env("KODO_FAILPOINT", "");
    world.restart(&again).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-003"), "1\n2\nsymbolic link\n");
    assert_invariants_hold(&world).await;
}

/// What an older version planned has no workspace: its calls find what they found there.
#[tokio::test]
async fn a_run_that_began_under_the_older_rule_ends_under_it() {
    let scratch = Scratch::new("spaces_older");
    let intent = goal(json!({"files": {"given": "g\n"}}), json!({}));
    let calls = calls(&[
        "rm given; echo made > made; ln -s made link",
        "cat given made; test ! -e link",
    ]);
    let killed_there = [
        ("KODO_FAILPOINT", "tool-001:before"),
        // The plan has its checkpoint by then.
        ("CHECKPOINT_LINGER_MS", "0"),
    ];
    let mut world = world_with(&scratch, "spaces_older", &intent, &calls, &killed_there).await;
    let id = world.intent(&intent.to_string()).await;
    let run = world.run(&id).await;
    let limit = std::time::Duration::from_secs(30);
    world.service.wait(limit).await.expect("it is killed");
    // As an older version would have left it.
    let row = sqlx::query(
        "UPDATE app.run_steps SET output = output - 'workspace' WHERE output ? 'workspace'",
    );
    assert_eq!(row.execute(&world.app).await.unwrap().rows_affected(), 1);
    sqlx::query("DELETE FROM app.workspace_objects")
        .execute(&world.app)
        .await
        .unwrap();
    let checkpoint = sqlx::query(
        "UPDATE dbos.operation_outputs SET output = (output::jsonb - 'workspace')::text
         WHERE function_name = 'plan' AND output LIKE '%workspace%'",
    );
    assert_eq!(
        checkpoint
            .execute(&world.system)
            .await
            .unwrap()
            .rows_affected(),
        1
    );
    let again = world.options.clone().env("KODO_FAILPOINT", "");
    world.restart(&again).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-002"), "g\nmade\n");
    assert!(step(&view, "tool-001")["output"].get("workspace").is_none());
}

#[tokio::test]
async fn artifacts_are_what_changed_or_what_the_call_names_and_never_end_it() {
    let scratch = Scratch::new("spaces_artifacts");
    let intent = goal(json!({"files": {"kept": "k"}}), json!({}));
    let calls = json!([
        {"name": "exec", "args": {"shell": "i=0; while [ $i -lt 30 ]; do echo $i > f$i; i=$((i+1)); done; mkdir d; echo x > d/a.log
            head -c 100000 /dev/zero > large", "limits": {"returnedFiles": 5}}},
        {"name": "exec", "args": {"shell": "ls | wc -l; echo y > d/b.log", "artifacts": ["**/*.log", "large"]}},
        {"name": "exec", "args": {"shell": "echo z > other", "artifacts": []}},
    ]);
    let world = world(&scratch, "spaces_artifacts", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let first = &step(&view, "tool-001")["output"];
    assert_eq!(first["files"].as_array().unwrap().len(), 5);
    let omitted = &first["report"]["artifacts"];
    assert_eq!(omitted["omitted"], 27);
    assert!(
        omitted["limit"]
            .as_str()
            .unwrap()
            .contains("limits.returnedFiles is 5")
    );
    assert_eq!(stdout(&view, "tool-002").trim(), "33");
    let names = |id: &str| -> Vec<String> {
        let files = step(&view, id)["output"]["files"]
            .as_array()
            .unwrap()
            .clone();
        files
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("tool-002"), ["d/a.log", "d/b.log", "large"]);
    assert_eq!(
        step(&view, "tool-002")["output"]["files"][2]["stored"],
        true
    );
    assert!(names("tool-003").is_empty());
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_limit_that_ends_a_call_is_told_with_its_number_and_its_setting() {
    for (test, shell, environment, said) in [
        (
            "spaces_bytes",
            "head -c 3000000 /dev/zero > f",
            ("SBX_WORKSPACE_MIB", "2"),
            "more than 2097152 bytes, the most that is carried from one call to the next (SBX_WORKSPACE_MIB)",
        ),
        (
            "spaces_entries",
            "touch a b c",
            ("SBX_WORKSPACE_ENTRIES", "2"),
            "more than 2 entries, the most that is carried from one call to the next (SBX_WORKSPACE_ENTRIES)",
        ),
        (
            "spaces_disk",
            "head -c 300000000 /dev/zero > f",
            ("SBX_WORKSPACE_ENTRIES", "2"),
            "diskBytes is 268435456",
        ),
    ] {
        let scratch = Scratch::new(test);
        let intent = goal(json!({}), json!({}));
        let world = world_with(&scratch, test, &intent, &calls(&[shell]), &[environment]).await;
        let view = run(&world, &intent).await;
        assert_eq!(error(&view)["code"], "tool_failed", "{view:#}");
        let message = error(&view)["message"].as_str().unwrap();
        assert!(message.contains(said), "{message}");
    }
}
