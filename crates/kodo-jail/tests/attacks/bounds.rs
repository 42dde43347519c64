//! What ends at its bound: processes, disk, open files, time, output, and what is collected.

use super::*;

#[tokio::test]
async fn a_bomb_of_processes_ends_at_its_bound_each_of_several_at_its_own() {
    let count = |text: &str| -> usize {
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().position(|it| *it == "forked").unwrap();
        words[at + 1].parse().unwrap()
    };
    let bombs = [(); 3].map(|()| tokio::spawn(async { verdict(&["fork", "40"], &[]).await }));
    for bomb in bombs {
        let (result, text) = bomb.await.unwrap();
        assert_eq!(result.ended, Ended::Exited(HELD), "{text}");
        assert!((12..=16).contains(&count(&text)), "{text}");
    }
    not_held(&["fork", "40"], &[ResourceLimits]).await;
}

#[tokio::test]
async fn the_disk_ends_at_its_bounds() {
    let mut job = attack(&["fill", "8000000"]);
    job.limits.disk_bytes = 4 << 20;
    assert_eq!(run(&job, &[]).await.ended.reason(), Some("disk"));
    job.limits.returned_bytes = 16 << 20;
    let free = run(&job, &[DiskSize, ResourceLimits]).await;
    assert_eq!(free.ended, Ended::Exited(NOT_HELD));
    let mut job = attack(&["many-files", "200"]);
    job.limits.inodes = 64;
    assert_eq!(run(&job, &[]).await.ended, Ended::Exited(HELD));
    assert_eq!(
        run(&job, &[DiskInodes]).await.ended,
        Ended::Exited(NOT_HELD)
    );
    let job = attack(&["sparse"]);
    assert_eq!(run(&job, &[]).await.ended, Ended::Exited(HELD));
    let free = run(&job, &[ResourceLimits]).await;
    assert!(matches!(
        free.ended,
        Ended::Stopped {
            reason: Reason::Returned,
            status: NOT_HELD
        }
    ));
}

#[tokio::test]
async fn open_files_end_at_their_bound() {
    let mut job = attack(&["open-files", "500"]);
    job.limits.open_files = 400;
    assert_eq!(run(&job, &[]).await.ended, Ended::Exited(HELD));
    job.limits.open_files = 600;
    assert_eq!(run(&job, &[]).await.ended, Ended::Exited(NOT_HELD));
}

#[tokio::test]
async fn time_ends_at_its_bound() {
    let mut job = attack(&["sleep", "1500"]);
    job.limits.wall = Duration::from_millis(400);
    assert_eq!(run(&job, &[]).await.ended.reason(), Some("timeout"));
    assert_eq!(run(&job, &[Deadline]).await.ended, Ended::Exited(0));
}

#[test]
fn endless_output_does_not_grow_the_service() {
    // In a process of its own, which does nothing else.
    let output = Command::new(ordinary_user::helper())
        .args(["hold", "listen"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (printed, peak) = text.trim().split_once(' ').unwrap();
    assert_eq!(printed, "300000000");
    let peak: u64 = peak.parse().unwrap();
    assert!(peak < 32 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn the_dead_are_buried() {
    let script =
        "i=0; while [ $i -lt 100 ]; do (sh -c : &) ; i=$((i+1)); done; sleep 0.2; echo over";
    let mut job = JobSpec::new(["/bin/sh", "-c", script]);
    job.limits.processes = 24;
    let result = run(&job, &[]).await;
    assert_eq!(result.stdout.text(), "over\n", "{}", result.stderr.text());
}

#[tokio::test]
async fn no_link_leads_the_collection_astray() {
    let job = JobSpec::new(["/bin/sh", "-c", "ln -s /etc/passwd stolen"]);
    let result = run(&job, &[]).await;
    assert!(result.files.is_empty());
    assert_eq!(result.skipped[0].kind, "symlink");
    let result = run(&job, &[NoFollow]).await;
    assert_eq!(result.files[0].name, "stolen");
}
