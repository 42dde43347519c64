//! What holds it, seen from the machine; and that nothing of it outlives the service.

use std::collections::BTreeSet;
use std::fs;

use crate::model::Reply;

use crate::processes::record;
use crate::stage::{KEY, ask, model, stage, until};

/// Every process that comes from this one.
pub fn below(ancestor: u32) -> Vec<u32> {
    let numbers = |path: &str| -> Vec<u32> {
        let entries = fs::read_dir(path).unwrap().flatten();
        entries
            .filter_map(|it| it.file_name().to_str()?.parse().ok())
            .collect()
    };
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let all: Vec<(u32, Option<u32>)> = numbers("/proc")
        .into_iter()
        .map(|pid| (pid, parent(pid)))
        .collect();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let before = found.len();
        for (pid, parent) in &all {
            if parent.is_some_and(|parent| found.contains(&parent)) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            found.remove(&ancestor);
            return found.into_iter().collect();
        }
    }
}

/// Whether a process lives and has this name.
pub fn called(pid: u32, name: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let named = stat.contains(&format!("({name})"));
    let dead = stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    named && !dead
}

#[test]
fn it_is_not_user_0_in_a_network_of_its_own_and_does_not_have_the_key() {
    let stage = stage();
    stage.run(ask(&stage.planner)).unwrap();
    let mine = below(std::process::id());
    let held: Vec<u32> = mine
        .into_iter()
        .filter(|pid| called(*pid, "service"))
        .collect();
    assert!(!held.is_empty());
    for pid in held {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(field("Uid:").iter().all(|id| id != "0"), "{status}");
        assert!(
            field("CapEff:").iter().all(|it| it == "0000000000000000"),
            "{status}"
        );
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        assert_eq!(field("Seccomp:"), ["2"]);
        // Of its network there is the loopback alone.
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        let devices: Vec<&str> = devices.lines().skip(2).map(|it| it.trim()).collect();
        assert!(
            devices.iter().all(|it| it.starts_with("lo:")),
            "{devices:?}"
        );
        assert_eq!(devices.len(), 1);
        // Only who may look into it (user 0, as a rule) can see the rest.
        for name in ["environ", "cmdline", "root/job/opencode.json"] {
            if let Ok(content) = fs::read(format!("/proc/{pid}/{name}")) {
                let content = String::from_utf8_lossy(&content);
                assert!(!content.contains(KEY), "{name}");
                assert!(!content.contains("OC_API_KEY"), "{name}");
            }
        }
    }
}

#[test]
fn nothing_of_it_outlives_a_service_that_is_killed() {
    let stage = stage();
    for jail in ["true", "false"] {
        stage.run(async {
            let model = model().await;
            model.next(Reply::Hang);
            let mut service = record(&model.url(), &[("OC_OPENCODE_JAIL", jail)]);
            until("the request", || model.seen().len() == 1).await;
            let children = below(service.id());
            assert!(!children.is_empty());
            service.kill().unwrap();
            service.wait().unwrap();
            until("the end of all", || {
                children.iter().all(|pid| {
                    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
                    stat.is_err() || stat.is_ok_and(|it| it.contains(") Z "))
                })
            })
            .await;
            until("the end of the connection", || model.abandoned() == 1).await;
        });
    }
}
