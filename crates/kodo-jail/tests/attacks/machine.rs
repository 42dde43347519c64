//! What a job must not read of the machine in `/proc`, `/sys` and `/etc`, and what it is told of itself instead.

use super::*;

/// What a job is told in /proc beside its processes.
const TOLD: [&str; 19] = [
    "proc-entries",
    "self",
    "thread-self",
    "mounts",
    "net",
    "cpuinfo",
    "meminfo",
    "stat",
    "loadavg",
    "uptime",
    "version",
    "swaps",
    "filesystems",
    "vmstat",
    "diskstats",
    "partitions",
    "cmdline",
    "cgroups",
    "sys",
];

#[tokio::test]
async fn proc_shows_nothing_of_the_machine() {
    let known: Vec<_> = TOLD.into_iter().chain(["sysvipc"]).collect();
    held_by(&known, &[Proc]).await;
    // What is in a list of the job's own /proc is not all that can be found there: every name that the machine has.
    let entries = fs::read_dir("/proc").unwrap().map(|it| it.unwrap());
    let names = entries.filter_map(|it| it.file_name().into_string().ok());
    let mut unknown = 0;
    for name in names.filter(|it| !it.bytes().all(|it| it.is_ascii_digit())) {
        if !known.contains(&name.as_str()) {
            held(&["absent", &format!("/proc/{name}")]).await;
            unknown += 1;
        }
    }
    assert!(unknown > 5, "{unknown}");
    held_by(&["absent", "/proc/interrupts"], &[Proc]).await;
    // None is there only because nobody has asked for it since: a job cannot get them back.
    let script = "mount -t proc -o remount,subset=all proc /proc; mount -o remount,hidepid=0 /proc; \
                  umount /proc/meminfo; cat /proc/interrupts";
    let job = JobSpec::new(["/bin/sh", "-c", script]);
    assert_ne!(run(&job, &[]).await.exit_code(), 0);
    for path in [
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/keys",
        "/proc/interrupts",
        "/proc/bus",
        "/proc/fs",
        "/proc/config.gz",
    ] {
        held(&["withheld", path]).await;
    }
    held_by(&["withheld", "/proc/interrupts"], &[Proc]).await;
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/fs/binfmt_misc",
        "/dev/mem",
    ] {
        held(&["read-file", path]).await;
    }
    for path in ["/dev/mem", "/dev/kmsg", "/dev/kvm"] {
        held(&["open-for-writing", path]).await;
    }
    for folder in ["/proc/sys", "/proc/sysvipc", "/sys", "/etc"] {
        held(&["write-below", folder]).await;
    }
    not_held(&["write-below", "/dev"], &[]).await;
}

#[tokio::test]
async fn sys_shows_processors_and_the_jobs_own_groups() {
    for path in [
        "/sys/kernel/security",
        "/sys/class",
        "/sys/block",
        "/sys/bus",
        "/sys/firmware",
        "/sys/devices/virtual",
    ] {
        held(&["read-file", path]).await;
    }
    let script = "cat /sys/devices/system/cpu/online /sys/devices/system/node/online; ls /sys/fs/cgroup | head -1; \
                  cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/uuid";
    let result = run(&JobSpec::new(["/bin/sh", "-c", script]), &[]).await;
    let text = result.stdout.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text} {}", result.stderr.text());
    assert_ne!(
        lines[4], lines[5],
        "a random number is another one each time"
    );
    let machines = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(lines[3], machines.trim());
}

/// A folder that is removed in the end.
struct Canary(std::path::PathBuf);

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Beside the service's own group there are those of other services of the machine, and below it those of other jobs.
#[tokio::test]
async fn a_job_sees_no_groups_but_its_own() {
    // Where this process may make some, there is at least one that is not the job's.
    let name = format!("canary-{}", std::process::id());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let canaries: Vec<_> = ["cpu", "cpuacct", "cpuset", "memory", "pids", ""]
        .iter()
        .filter_map(|controller| {
            let line = groups.lines().find(|it| {
                it.split(':')
                    .nth(1)
                    .is_some_and(|it| it.split(',').any(|it| it == *controller))
            })?;
            let own = line.splitn(3, ':').nth(2)?;
            let place = format!("/sys/fs/cgroup/{controller}{own}/{name}");
            fs::create_dir(&place).is_ok().then(|| Canary(place.into()))
        })
        .collect();
    let folder = open_folder();
    let without = |names: &[&str]| {
        Jail::new(JailConfig {
            helper: Helper::program(
                ordinary_user::helper(),
                names.iter().map(OsString::from).collect(),
            ),
            read_only: vec![folder.path().to_owned()],
            ..JailConfig::default()
        })
    };
    // A controller of version 1 has a folder of its own.
    let job = JobSpec::new([
        "/bin/sh",
        "-c",
        "cd /sys/fs/cgroup && find . -type d | sed 1d",
    ]);
    let ungrouped = ["cpu", "cpuacct", "cpuset"];
    for (jail, held) in [
        (without(&["jail-init"]), true),
        (without(&["weakened", "proc"]), false),
    ] {
        let result = jail.run(&job).await.unwrap();
        let text = result.stdout.text();
        assert_eq!(result.exit_code(), 0, "{}", result.stderr.text());
        let version_1 = result.enforced["memory"].contains("cgroup v1");
        let others = |line: &&str| !version_1 || line.matches('/').count() > 1;
        let others: Vec<_> = text.lines().filter(others).collect();
        let shown = version_1
            && canaries.iter().any(|it| {
                ungrouped
                    .iter()
                    .any(|name| it.0.starts_with(format!("/sys/fs/cgroup/{name}")))
            });
        assert_eq!(others.is_empty(), held || !shown, "{text}");
    }
    let script =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2> /dev/null";
    let mut job = JobSpec::new(["/bin/sh", "-c", &format!("{script} | head -1")]);
    job.limits.memory_bytes = 64 << 20;
    let text = without(&["jail-init"])
        .run(&job)
        .await
        .unwrap()
        .stdout
        .text();
    let told: u64 = text.trim().parse().unwrap();
    assert!((64 << 20..=68 << 20).contains(&told), "{told}");
}

/// An ordinary user's service keeps its user and groups in the jail: what is theirs alone in `/etc` is covered.
#[tokio::test]
async fn of_etc_a_job_reads_only_what_every_user_may_read() {
    let folder = open_folder();
    let make = |name: &str, mode| {
        let place = folder.path().join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, format!("content of {name}\n")).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    };
    make("open", 0o644);
    make("own", 0o600);
    make("sub/groups", 0o640);
    make("sub/open", 0o644);
    make("closed/open", 0o644);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = folder.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o750)).unwrap();
    // An ordinary user is one again after the mount.
    let (namespaces, again) = match is_root() {
        true => ("-m", ""),
        false => ("-Urm", "unshare -U --map-user=1000 --map-group=1000"),
    };
    let jail = |arguments: &str| {
        let script = format!(
            "mount --bind {} /etc/terminfo && exec {again} {} {arguments}",
            folder.path().display(),
            ordinary_user::helper().display()
        );
        let words = [namespaces, "/bin/sh", "-c", &script];
        Jail::new(JailConfig {
            ready: 0,
            cgroup: CgroupPolicy::Never,
            helper: Helper::program(
                "/usr/bin/unshare".into(),
                words.iter().map(OsString::from).collect(),
            ),
            ..JailConfig::default()
        })
    };
    let script = "cd /etc/terminfo && cat open own sub/* closed/*";
    let job = JobSpec::new(["/bin/sh", "-c", script]);
    let read = jail("jail-init").run(&job).await.unwrap();
    let (text, said) = (read.stdout.text(), read.stderr.text());
    assert_eq!(text, "content of open\ncontent of sub/open\n", "{said}");
    // Where the job is another user than the service, the kernel refuses it besides.
    if !is_root() {
        let read = jail("weakened etc").run(&job).await.unwrap();
        assert_eq!(
            read.stdout.text().lines().count(),
            5,
            "{}",
            read.stderr.text()
        );
    }
}

/// A job of user 0's service is another user: what is user 0's alone in `/usr` and in the folders of the configuration, it
/// cannot read. (An ordinary user's service has no other user that its jobs could be.)
#[tokio::test]
async fn a_job_of_the_machines_user_0_reads_no_private_file() {
    if !is_root() {
        return;
    }
    let folder = open_folder();
    let own = tempfile::tempdir_in("/usr/local").unwrap();
    for (place, mode) in [
        (folder.path().join("private"), 0o600),
        (folder.path().join("groups"), 0o640),
        (own.path().join("private"), 0o600),
        (own.path().join("open"), 0o644),
    ] {
        fs::write(&place, "content").unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let jail = jail(&[], folder.path(), false);
    for place in [
        folder.path().join("private"),
        folder.path().join("groups"),
        own.path().join("private"),
    ] {
        let job = JobSpec::new(["cat", place.to_str().unwrap()]);
        let read = jail.run(&job).await.unwrap();
        assert!(read.stderr.text().contains("Permission denied"), "{read:?}");
    }
    let open = own.path().join("open");
    let job = JobSpec::new(["cat", open.to_str().unwrap()]);
    assert_eq!(jail.run(&job).await.unwrap().stdout.text(), "content");
}

#[tokio::test]
async fn a_job_is_told_its_own_memory() {
    let mut job = attack(&["memory-told", &(68_u64 << 20).to_string()]);
    job.limits.memory_bytes = 64 << 20;
    let result = run(&job, &[]).await;
    assert_eq!(
        result.ended,
        Ended::Exited(HELD),
        "{}",
        result.stdout.text()
    );
    let free = run(&job, &[Proc]).await;
    assert_eq!(free.exit_code(), NOT_HELD, "{}", free.stdout.text());
    // The same by the cgroup that the machine gives.
    let folder = open_folder();
    let probe = folder.path().join("probe");
    ordinary_user::copy_program(&ordinary_user::helper(), &probe);
    job.argv[0] = probe.to_str().unwrap().to_owned();
    let jail = Jail::new(JailConfig {
        read_only: vec![folder.path().to_owned()],
        helper: Helper::program(ordinary_user::helper(), vec!["jail-init".into()]),
        ..JailConfig::default()
    });
    let result = jail.run(&job).await.unwrap();
    assert_eq!(
        result.ended,
        Ended::Exited(HELD),
        "{}",
        result.stdout.text()
    );
}
