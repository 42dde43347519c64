//! The process itself: it dies, stops, is another one than was tested, is not there, or is somebody else's.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Reply, ScriptedModel};
use kodo_contract::encode;
use kodo_jail::{lifeline_command, unprivileged_user};
use kodo_planner::{
    OpenCodeConfig, OpenCodePlace, OpenCodePlanner, OpenCodeUrl, Secret, UnjailedOpenCode,
    VersionRule,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::held::{below, called};
use crate::jailed::JailedOpenCode;
use crate::stage::{ask, config, failed, jail, launched, model, plan_json, program, stage, until};

const PATIENT: Duration = Duration::from_secs(90);

/// Sends a signal to the OpenCode of a planner in the jail, the newest one of this process.
fn signal(others: &[u32], signal: Signal) {
    let mine = below(std::process::id());
    let it = mine
        .iter()
        .find(|pid| called(**pid, "service") && !others.contains(pid));
    let pid = Pid::from_raw(*it.unwrap() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn one_that_dies_or_stops_is_replaced_and_a_plan_outlives_it_once() {
    let stage = stage();
    stage.run(async {
        let others = below(std::process::id());
        let model = model().await;
        let planner = OpenCodePlanner::new(config(&model.url(), PATIENT));
        planner.start().await.unwrap();

        // In the middle of a plan: the same question, to a new one.
        model.next(Reply::Hang);
        let (planned, ()) = tokio::join!(ask(&planner), async {
            until("the request", || model.seen().len() == 1).await;
            signal(&others, Signal::KILL);
        });
        assert_eq!(encode(&planned.unwrap().plan).unwrap(), plan_json());
        assert_eq!(model.seen().len(), 2);

        // And again, as often as it takes.
        model.next(Reply::Hang);
        model.next(Reply::Hang);
        let (planned, ()) = tokio::join!(ask(&planner), async {
            for number in [3, 4] {
                until("the request", || model.seen().len() == number).await;
                signal(&others, Signal::KILL);
            }
        });
        assert_eq!(encode(&planned.unwrap().plan).unwrap(), plan_json());
        ask(&planner).await.unwrap();
    });
}

#[test]
fn one_that_hangs_costs_a_plan_its_time_and_no_later_one() {
    let stage = stage();
    stage.run(async {
        let others = below(std::process::id());
        let model = model().await;
        let planner = OpenCodePlanner::new(config(&model.url(), Duration::from_secs(30)));
        planner.start().await.unwrap();
        model.next(Reply::Hang);
        let (planned, ()) = tokio::join!(ask(&planner), async {
            until("the request", || model.seen().len() == 1).await;
            signal(&others, Signal::STOP);
        });
        assert_eq!(failed(planned).0, "planner_deadline");
        // The model was let go, whatever OpenCode does.
        until("the end of the connection", || model.abandoned() == 1).await;
        // It did not even abort: another one takes its place. On a busy machine that takes longer than this deadline.
        planner.start().await.unwrap();
        ask(&planner).await.unwrap();
    });
}

#[test]
fn another_version_is_refused_with_both_and_what_to_set() {
    let stage = stage();
    stage.run(async {
        let model = model().await;
        let another = OpenCodeConfig {
            version: VersionRule::Exactly("1.0.0".to_owned()),
            ..config(&model.url(), PATIENT)
        };
        let error = OpenCodePlanner::new(another).start().await.unwrap_err();
        let text = error.to_string();
        for part in ["version 1.18.33", "1.0.0 is wanted", "OC_OPENCODE_VERSION"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        // What the operator takes on himself.
        let any = OpenCodeConfig {
            version: VersionRule::Any,
            ..config(&model.url(), PATIENT)
        };
        OpenCodePlanner::new(any).start().await.unwrap();
    });
}

#[test]
fn a_program_that_is_no_opencode_or_is_not_there_is_a_reason_and_no_wait() {
    let stage = stage();
    stage.run(async {
        for (program, expected) in [
            ("/bin/true", "it exited with 0"),
            ("/nowhere/opencode", "No such file"),
        ] {
            let launchers: [Arc<dyn kodo_planner::OpenCodeLauncher>; 1] = [Arc::new(
                JailedOpenCode::new(PathBuf::from(program), jail()),
            )];
            for launcher in launchers {
                let config = launched(launcher, "http://127.0.0.1:1", Duration::from_secs(2));
                let planner = OpenCodePlanner::new(config);
                let text = planner.start().await.unwrap_err().to_string();
                assert!(text.contains(expected), "{text}");
                // A plan waits for one that works, within its deadline.
                let (_, text) = failed(ask(&planner).await);
                assert!(text.contains(expected), "{text}");
            }
        }
    });
    let nowhere = record(
        "http://127.0.0.1:1",
        &[("OC_OPENCODE_BIN", "/nowhere/opencode")],
    );
    let output = nowhere.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("OC_OPENCODE_BIN=/nowhere/opencode"),
        "{text}"
    );
}

/// `kodo oc record` with these settings, on its way.
pub fn record(url: &str, settings: &[(&str, &str)]) -> Child {
    let folder = tempfile::tempdir().unwrap().keep();
    let intent = folder.join("intent.json");
    let question = json!({"goal": "g", "inputs": {}, "constraints": {}});
    std::fs::write(&intent, question.to_string()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_kodo"))
        .args(["oc", "record"])
        .arg(&intent)
        .env("OC_PROVIDER", "opencode")
        .env("OC_OPENCODE_BIN", program())
        .env("OC_BASE_URL", url)
        .env("OC_MODEL", "scripted")
        .env("OC_FIXTURES_DIR", &folder)
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// An OpenCode that somebody else runs, with the agent of `docs/planner.md`.
struct Somebodys {
    child: Child,
    url: String,
    _home: TempDir,
}

impl Drop for Somebodys {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Somebodys {
    async fn start(model: &ScriptedModel, agent: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let place = |name: &str| home.path().join(name);
        let provider = json!({
            "npm": "@ai-sdk/openai-compatible", "name": "local",
            "options": {"baseURL": model.url(), "apiKey": "unused"},
            "models": {"scripted": {"name": "scripted", "tool_call": true}},
        });
        let mut configuration: serde_json::Value = serde_json::from_str(agent).unwrap();
        configuration["provider"] = json!({"local": provider});
        configuration["enabled_providers"] = json!(["local"]);
        std::fs::write(place("opencode.json"), configuration.to_string()).unwrap();
        std::fs::create_dir_all(place(".config/opencode/node_modules")).unwrap();
        let plugin = json!({"dependencies": {"@opencode-ai/plugin": "*"}});
        std::fs::write(place(".config/opencode/package.json"), plugin.to_string()).unwrap();
        let lock = json!({"lockfileVersion": 3, "packages": {"": plugin}});
        std::fs::write(
            place(".config/opencode/package-lock.json"),
            lock.to_string(),
        )
        .unwrap();
        let mut command = Command::new(program());
        command
            .args(["serve", "--pure", "--hostname", "127.0.0.1", "--port", "0"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .env("OPENCODE_CONFIG", place("opencode.json"))
            .env("OPENCODE_DISABLE_MODELS_FETCH", "1")
            .env("OPENCODE_DISABLE_AUTOUPDATE", "1")
            .env("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1")
            .env("OPENCODE_SERVER_PASSWORD", "hush-hush-hush")
            .current_dir(home.path())
            .stdout(std::fs::File::create(place("out")).unwrap())
            .stderr(Stdio::null())
            .process_group(0);
        let child = command.spawn().unwrap();
        let mut url = None;
        until("its address", || {
            let said = std::fs::read_to_string(place("out")).unwrap();
            let address = said
                .split_whitespace()
                .find(|it| it.starts_with("http://127"));
            url = address.map(str::to_owned);
            url.is_some()
        })
        .await;
        Self {
            child,
            url: url.unwrap(),
            _home: home,
        }
    }

    fn attached(&self, password: &str, deadline: Duration) -> OpenCodePlanner {
        OpenCodePlanner::new(OpenCodeConfig {
            place: OpenCodePlace::Attached {
                url: OpenCodeUrl::parse(&self.url, false).unwrap(),
                user: "opencode".to_owned(),
                password: Some(Secret::new(password)),
            },
            model: "local/scripted".to_owned(),
            ..config("http://127.0.0.1:1", deadline)
        })
    }
}

/// The configuration that the documentation gives an operator.
fn documented() -> String {
    let docs = include_str!("../../../../docs/planner.md");
    let block = docs.split("```json\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[test]
fn somebody_elses_is_attached_to_with_its_password_and_aborted_at_the_deadline() {
    let stage = stage();
    stage.run(async {
        let model = model().await;
        let theirs = Somebodys::start(&model, &documented()).await;
        let wrong = theirs.attached("not-the-password", PATIENT);
        let error = wrong.start().await.unwrap_err();
        assert_eq!(error.code.as_str(), "planner_unauthorized");
        assert!(error.message.contains("OC_OPENCODE_PASSWORD"), "{error}");

        let planner = theirs.attached("hush-hush-hush", PATIENT);
        planner.start().await.unwrap();
        assert!(model.seen().is_empty(), "attaching asks no model");
        let planned = ask(&planner).await.unwrap();
        assert_eq!(encode(&planned.plan).unwrap(), plan_json());

        // Nothing but the abort tells it: a client that goes away does not.
        let hasty = theirs.attached("hush-hush-hush", Duration::from_secs(15));
        hasty.start().await.unwrap();
        model.next(Reply::Hang);
        let (planned, ()) = tokio::join!(ask(&hasty), async {
            until("the request", || model.seen().len() == 2).await;
        });
        assert_eq!(failed(planned).0, "planner_deadline");
        until("the end of the connection", || model.abandoned() == 1).await;

        // It keeps asking a model that fails; the deadline is ours.
        for _ in 0..20 {
            model.next(Reply::error(500, "out of memory"));
        }
        assert_eq!(failed(ask(&hasty).await).0, "planner_deadline");

        drop(theirs);
        let (_, text) = failed(ask(&hasty).await);
        assert!(text.contains("OpenCode"), "{text}");
    });
}

#[test]
fn somebody_elses_agent_that_may_do_more_than_answer_is_refused() {
    let stage = stage();
    stage.run(async {
        let model = model().await;
        let mut free: serde_json::Value = serde_json::from_str(&documented()).unwrap();
        free["agent"]["kodo-planner"]["permission"]["bash"] = json!("allow");
        let theirs = Somebodys::start(&model, &free.to_string()).await;
        let error = theirs.attached("hush-hush-hush", PATIENT).start().await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("(bash)"), "{text}");
        drop(theirs);
        let theirs = Somebodys::start(&model, "{}").await;
        let error = theirs.attached("hush-hush-hush", PATIENT).start().await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no agent kodo-planner"), "{text}");
    });
}

#[test]
fn outside_of_the_jail_it_works_the_same_where_the_operator_wants_that() {
    let stage = stage();
    stage.run(async {
        let model = model().await;
        let (user, helper) = (unprivileged_user(), Path::new(env!("CARGO_BIN_EXE_kodo")));
        let command = move || lifeline_command(helper, &program(), user);
        let launcher = Arc::new(UnjailedOpenCode::new(user, command));
        let planner = OpenCodePlanner::new(launched(launcher, &model.url(), PATIENT));
        planner.start().await.unwrap();
        let planned = ask(&planner).await.unwrap();
        assert_eq!(encode(&planned.plan).unwrap(), plan_json());
        assert_eq!(model.seen().len(), 1);
    });
}
