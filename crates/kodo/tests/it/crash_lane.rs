//! Databases and services on which cases are played, one after the other, and disturbed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kodo_dev::harness::{Answer, Service, ServiceOptions};
use serde_json::Value;
use similar::TextDiff;
use tokio::task::JoinHandle;

use crate::crash_scenes::{Case, Fixtures, Life, Scene};
use crate::evidence::killed;
use crate::support::{World, until};

/// The failpoint variables of debug builds; see `kodo_engine::failpoint`.
const FAILPOINT: &str = "KODO_FAILPOINT";
const TRACE: &str = "KODO_FAILPOINT_TRACE";

/// How many looks at a point that was not passed are enough once the case is over.
const LAST_LOOKS: usize = 100;

/// What happens to a process at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    Kill,
    Stop,
}

/// What a scene comes to when nobody disturbs it.
#[derive(Debug, Clone)]
pub struct Undisturbed {
    /// The points that it passes: those of the requests first, since they are passed while the rest goes on.
    pub points: Vec<String>,
    /// What is recorded in the end.
    pub state: Value,
}

/// A process that was struck.
pub struct Struck {
    pub service: Service,
    /// The request that was under way.
    pub asked: Option<JoinHandle<anyhow::Result<Answer>>>,
}

pub struct Lane {
    pub world: World,
    name: String,
    cases: usize,
    fixtures: Arc<Fixtures>,
    /// The scene whose options the running service has.
    serving: Option<Scene>,
}

impl Lane {
    pub fn new(world: World, name: &str, fixtures: &Arc<Fixtures>) -> Self {
        Self {
            world,
            name: name.to_owned(),
            cases: 0,
            fixtures: Arc::clone(fixtures),
            serving: None,
        }
    }

    fn options(&self, scene: Scene) -> ServiceOptions {
        self.fixtures.options(scene, &self.world.options)
    }

    /// A service that nothing happens to, under the scene's options.
    pub async fn serve(&mut self, scene: Scene) {
        let alive = self
            .world
            .service
            .pid()
            .is_some_and(|pid| state(pid) == 'S');
        if alive && self.serving == Some(scene) {
            return;
        }
        let options = self.options(scene);
        self.world.restart(&options).await;
        self.serving = Some(scene);
    }

    /// A case that is where its life says: asked for by nobody yet, or killed where it was.
    pub async fn prepare(&mut self, life: &Life) -> Case {
        self.serve(life.scene).await;
        self.cases += 1;
        // With an end of its own, so that no key is the beginning of another.
        let key = format!("{}-{}-key", self.name, self.cases);
        let case = Case::new(&self.world, life, key).await;
        if !life.beside {
            for (nth, point) in life.killed_at.iter().enumerate() {
                self.kill9().await;
                let struck = self.strike(&case, Blow::Kill, point, nth == 0).await;
                drop(struck.unwrap_or_else(|| panic!("{life}: {point} was not passed")));
            }
        }
        case
    }

    /// Ends the lane's service.
    pub async fn kill9(&mut self) {
        self.world.service.kill9().await.expect("kill");
        self.serving = None;
    }

    /// Plays a life to its end with nobody in its way, and says what it came by.
    pub async fn undisturbed(&mut self, life: &Life) -> Undisturbed {
        let case = self.prepare(life).await;
        let file = trace_file(&case.key);
        let traced = self.options(life.scene).env(TRACE, file.display());
        let mut from = 0;
        let mut beside = None;
        if life.beside {
            let mut victim = self.halted(&case).await;
            let mut other = Service::start(&traced).await.expect("another worker");
            from = passed(&file).len();
            victim.kill9().await.expect("kill");
            std::mem::swap(&mut self.world.service, &mut other);
            self.world.client = self.world.service.client();
            beside = Some(other);
        } else {
            self.world.restart(&traced).await;
            if life.is_asked_for() {
                from = passed(&file).len();
                let answer = case.ask(&self.world.client).await.expect("an answer");
                assert_eq!(answer.status, case.yes(), "{life}: {}", answer.text());
            }
        }
        let made = case.made(&self.world).await.expect("what was asked for");
        case.over(&self.world, &made).await;
        let state = case.state(&self.world, &made).await;
        // A process that ends in good order has passed what it was about to.
        let ended = self.world.service.stop().await.expect("an exit");
        assert!(ended.success(), "{}", self.world.service.log());
        drop(beside);
        self.serving = None;
        let points = in_order(&passed(&file)[from..]);
        std::fs::remove_file(&file).expect("the trace");
        Undisturbed { points, state }
    }

    /// The first worker of a life that another one takes over: asked, and stopped at the life's first point, where it
    /// still holds its slot and the run. So another worker can start beside it, and whatever its sweep looks at, there
    /// is no run that was stored and not begun: the other one takes this run over, and never starts it.
    async fn halted(&mut self, case: &Case) -> Service {
        self.kill9().await;
        let point = case.life.killed_at.first().expect("a point");
        let armed = self
            .options(case.life.scene)
            .env(FAILPOINT, format!("stop:{point}"));
        let victim = Service::start(&armed).await.expect("the first worker");
        let pid = victim.pid().expect("a process");
        // It may be stopped before its answer has left, so nobody waits for that.
        let (asking, client) = (case.clone(), victim.client());
        tokio::spawn(async move { asking.ask(&client).await });
        until(&format!("{}: the first worker", case.life), || async {
            state(pid) == 'T'
        })
        .await;
        victim
    }

    /// Starts a service that is struck at the point, lets it come there, and returns it; `None` where the case came
    /// to its end without passing the point.
    pub async fn strike(
        &mut self,
        case: &Case,
        blow: Blow,
        point: &str,
        ask: bool,
    ) -> Option<Struck> {
        let action = match blow {
            Blow::Kill => "kill",
            Blow::Stop => "stop",
        };
        let options = self.options(case.life.scene);
        let victim = match case.life.beside {
            true => Some(self.halted(case).await),
            false => None,
        };
        let armed = options.env(FAILPOINT, format!("{action}:{point}"));
        let mut service = Service::spawn(&armed).await.expect("the ports");
        let pid = service.pid().expect("a process");
        let is_struck = || match blow {
            Blow::Kill => matches!(state(pid), 'Z' | 'X'),
            Blow::Stop => state(pid) == 'T',
        };
        let client = service.client();
        // It may come to the point while it starts.
        until(&format!("{point} or a service that is ready"), || async {
            let ready = tokio::time::timeout(Duration::from_millis(100), client.get("/readyz"));
            is_struck() || matches!(ready.await, Ok(Ok(answer)) if answer.status == 200)
        })
        .await;
        if let Some(mut victim) = victim {
            victim.kill9().await.expect("kill");
        }
        let asked = ask.then(|| {
            let (case, client) = (case.clone(), client.clone());
            tokio::spawn(async move { case.ask(&client).await })
        });
        let last_looks = AtomicUsize::new(0);
        until(&format!("{}: {point}", case.life), || async {
            if is_struck() {
                return true;
            }
            // Of a stopped database nobody asks: this is only ever reached while it is up.
            if let Some(made) = case.made(&self.world).await
                && case.is_over(&self.world, &made).await
            {
                last_looks.fetch_add(1, Ordering::Relaxed);
            }
            last_looks.load(Ordering::Relaxed) > LAST_LOOKS
        })
        .await;
        if !is_struck() {
            service.kill9().await.expect("kill");
            return None;
        }
        if blow == Blow::Kill {
            killed(&mut service, point).await;
        }
        Some(Struck { service, asked })
    }

    /// The client's next try, and the end: as if nothing had happened.
    pub async fn finish(
        &mut self,
        case: &Case,
        what: &str,
        before: &BTreeMap<String, String>,
        undisturbed: &Undisturbed,
    ) {
        // 503 is no answer yet, wherever it comes from: the client was told to come again.
        let answer = Mutex::new(None);
        until(&format!("{what}: an answer"), || async {
            let asked = case.ask(&self.world.client).await;
            let asked = asked.ok().filter(|asked| asked.status != 503);
            let done = asked.is_some();
            *answer.lock().unwrap() = asked;
            done
        })
        .await;
        let answer = answer.into_inner().unwrap().expect("an answer");
        assert_eq!(answer.status, case.yes(), "{what}: {}", answer.text());
        let stored = before.keys().any(|row| row.starts_with("key "));
        if stored {
            let replayed = answer.header("Idempotency-Replayed");
            assert_eq!(replayed, Some("true"), "{what}: it was stored");
        }
        let made = case.made(&self.world).await.expect("what was asked for");
        assert!(answer.text().contains(&made), "{what}: {}", answer.text());
        case.over(&self.world, &made).await;
        let state = case.state(&self.world, &made).await;
        same(what, &undisturbed.state, &state);
        let after = case.effects(&self.world).await;
        for (row, transaction) in before {
            assert_eq!(
                after.get(row),
                Some(transaction),
                "{what}: {row} was written again"
            );
        }
    }

    /// Nothing of all that was played here is left under way.
    pub async fn at_rest(&self) {
        let runs = "SELECT count(*) FROM app.runs WHERE status NOT IN ('succeeded', 'failed')";
        assert_eq!(self.world.count(runs).await, 0, "unfinished runs");
        let workflows: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM dbos.workflow_status WHERE status NOT IN ('SUCCESS', 'ERROR')",
        )
        .fetch_one(&self.world.system)
        .await
        .expect("workflows");
        assert_eq!(workflows, 0, "unfinished workflows");
    }
}

/// Fails with what differs, line by line.
pub fn same(what: &str, expected: &Value, found: &Value) {
    let lines = |value: &Value| format!("{value:#}\n");
    if expected != found {
        let (expected, found) = (lines(expected), lines(found));
        let diff = TextDiff::from_lines(&expected, &found);
        panic!(
            "{what}:\n{}",
            diff.unified_diff().header("expected", "found")
        );
    }
}

/// The state of a process of this machine, as proc(5) abbreviates it; `X` where there is none.
fn state(pid: u32) -> char {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 'X';
    };
    // The second field is the command in parentheses and may hold anything, parentheses too.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    match state.expect("field 3 of /proc/PID/stat") {
        // Running, waiting for the disk or for anything else: it lives.
        'R' | 'D' | 'I' => 'S',
        other => other,
    }
}

fn trace_file(key: &str) -> PathBuf {
    std::env::temp_dir().join(format!("kodo_it_{}_{key}.trace", std::process::id()))
}

fn passed(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a trace; is the service a debug build?");
    text.lines().map(str::to_owned).collect()
}

/// Each once, those of requests first.
fn in_order(passed: &[String]) -> Vec<String> {
    let mut points: Vec<String> = Vec::new();
    for point in passed {
        if !points.contains(point) {
            points.push(point.clone());
        }
    }
    let of_a_request = |point: &String| {
        ["intent:", "accept:", "demo:"]
            .iter()
            .any(|prefix| point.starts_with(prefix))
    };
    points.sort_by_key(|point| !of_a_request(point));
    points
}
