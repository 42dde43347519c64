//! What must end with the job, and with the service.

use std::time::Instant;

use super::*;

/// Processes with this word among their arguments.
fn with_token(token: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|it| *it == 0)
                .any(|word| word == token.as_bytes())
        })
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends what a weakened jail has left, by its ids.
fn bury(pids: &[i32]) {
    for pid in pids {
        if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn token(test: &str) -> String {
    format!("kodo-token-{test}-{}", std::process::id())
}

#[tokio::test]
async fn nothing_survives_the_job() {
    let token = token("daemon");
    run(&attack(&["daemon", &token]), &[]).await;
    assert!(with_token(&token).is_empty());
    run(&attack(&["daemon", &token]), &[PidNamespace, KillAll]).await;
    let left = with_token(&token);
    bury(&left);
    assert!(!left.is_empty(), "the probe can see a survivor");
}

/// Kills a process that has a job in a jail, while the job runs.
fn kill_the_service(helper: &str, token: &str) {
    let mut service = Command::new(ordinary_user::helper())
        .args(["hold", "jail", helper, token])
        .spawn()
        .unwrap();
    // The service itself, the job's shell, its child, and the one that left the session.
    until("the job runs", || with_token(token).len() >= 4);
    service.kill().unwrap();
    service.wait().unwrap();
}

#[test]
fn nothing_survives_the_services_death_and_its_lifeline_is_why() {
    // A jail whose service dies before it has said that the job runs ends all the same, lifeline or not. Its processes
    // are seen before that is said, so that one killing may come too early.
    let survived = (0..5).any(|attempt| {
        let tokens = ["orphan", "service"].map(|name| token(&format!("{name}{attempt}")));
        let [weak, held] = &tokens;
        kill_the_service("weakened lifeline", weak);
        kill_the_service("jail-init", held);
        until("all of the job is gone", || with_token(held).is_empty());
        // This one's service died first.
        let left = with_token(weak);
        bury(&left);
        !left.is_empty()
    });
    assert!(survived, "the probe can see a survivor");
}
