//! Where there is no `runsc`, or something else is in its place, nothing runs, and what is missing is said. No test here
//! needs gVisor: what is started in its place is a few bytes of a program that does just one thing.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kodo_jail::gvisor::{Gvisor, GvisorConfig, Platform, hint_for};
use kodo_jail::{Helper, JailConfig};
use kodo_sandbox::SandboxError;

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-jail-probe");

/// What stands in the place of `runsc`.
#[derive(Default)]
struct Fake<'a> {
    /// What it says to the service, as our first process in a sandbox would.
    says: &'a [u8],
    /// What it complains about.
    prints: &'a [u8],
    /// What it ends with; not at all where there is none.
    exits: Option<u8>,
}

impl Fake<'_> {
    /// The program: the header of an executable file, one segment, and a few instructions. It needs no library, since
    /// there is none where it runs.
    fn program(&self) -> Vec<u8> {
        const BASE: u64 = 0x40_0000;
        const HEADERS: u64 = 64 + 56;
        let write = |to: u8, at: u64, bytes: &[u8]| {
            let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, to, 0, 0, 0, 0x48, 0xbe];
            code.extend(at.to_le_bytes());
            code.push(0xba);
            code.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            code.extend([0x0f, 0x05]);
            code
        };
        let end = match self.exits {
            // exit(code)
            Some(code) => vec![0xb8, 60, 0, 0, 0, 0xbf, code, 0, 0, 0, 0x0f, 0x05],
            // pause(), for ever
            None => vec![0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7],
        };
        let data = BASE + HEADERS + 2 * write(0, 0, b"").len() as u64 + end.len() as u64;
        let mut body = write(0, data, self.says);
        body.extend(write(2, data + self.says.len() as u64, self.prints));
        body.extend(end);
        body.extend(self.says);
        body.extend(self.prints);
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        file.extend((BASE + HEADERS).to_le_bytes());
        file.extend(64_u64.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        let length = HEADERS + body.len() as u64;
        for value in [0, BASE, BASE, length, length, 0x1000] {
            file.extend(value.to_le_bytes());
        }
        assert_eq!(file.len() as u64, HEADERS);
        file.extend(body);
        file
    }

    fn put(&self, folder: &Path) -> PathBuf {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let place = folder.join("runsc");
        fs::write(&place, self.program()).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }
}

fn config(runsc: PathBuf) -> GvisorConfig {
    GvisorConfig {
        runsc,
        trial: Duration::from_secs(2),
        jail: JailConfig {
            helper: Helper::program(PROBE.into(), vec!["jail-init".into()]),
            ..JailConfig::default()
        },
        ..GvisorConfig::default()
    }
}

async fn refusal(fake: Fake<'_>) -> (SandboxError, String) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let error = Gvisor::start(config(fake.put(folder.path())))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "sandbox_refused");
    let text = format!("{error} ({})", hint_for(&error).unwrap());
    (error, text)
}

/// A frame, as our processes send them to each other.
fn frame(kind: u8, content: &str) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
    frame.extend(content.as_bytes());
    frame
}

fn started() -> Vec<u8> {
    frame(
        b'R',
        r#"{"user":0,"landlock":0,"proc":"Whole","terminals":true,"open_files":4096}"#,
    )
}

fn exit(status: i32) -> Vec<u8> {
    let content = format!(
        r#"{{"status":{status},"cut":null,"disk_full":false,"inodes_full":false,"processes_full":false,
            "returned_full":false,"skipped":[],"wall_ms":1,"user_us":1,"system_us":1,"max_rss":1,
            "peak_memory":null,"disk_bytes":1}}"#
    );
    frame(b'X', &content)
}

#[tokio::test]
async fn a_runsc_that_is_not_there_is_named_with_what_to_do() {
    let error = Gvisor::start(config("no-such-runsc".into()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "sandbox_refused");
    assert!(error.to_string().contains("no-such-runsc"), "{error}");
    assert!(hint_for(&error).unwrap().contains("SBX_RUNSC"));
}

#[tokio::test]
async fn a_program_that_needs_libraries_cannot_be_it() {
    let program = fs::canonicalize("/bin/ls").unwrap();
    let error = Gvisor::start(config(program)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("gvisor") && text.contains("no libraries"),
        "{text}"
    );
    assert!(hint_for(&error).unwrap().contains("SBX_RUNSC"));
}

#[tokio::test]
async fn one_that_hangs_is_given_up_in_bounded_time() {
    let began = Instant::now();
    let (_, text) = refusal(Fake::default()).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(text.contains("platform systrap"), "{text}");
    assert!(text.contains("did not come up within 2s"), "{text}");
    assert!(text.contains("SBX_GVISOR_PLATFORM"), "{text}");
}

#[tokio::test]
async fn one_that_does_not_know_the_platform_is_too_old() {
    let (_, text) = refusal(Fake {
        prints: b"FATAL ERROR: unknown platform: systrap\n",
        exits: Some(128),
        ..Fake::default()
    })
    .await;
    assert!(text.contains("too old"), "{text}");
    assert!(text.contains("SBX_GVISOR_PLATFORM=ptrace"), "{text}");
}

#[tokio::test]
async fn what_it_complains_about_is_told_as_far_as_a_line_goes() {
    let long = [b"begin ".as_slice(), &b"word ".repeat(5000), b"the end\n"].concat();
    let (error, _) = refusal(Fake {
        prints: &long,
        exits: Some(1),
        ..Fake::default()
    })
    .await;
    let text = error.to_string();
    assert!(text.ends_with("word the end"), "{text}");
    assert!(text.len() < 1000 && !text.contains("begin"), "{text}");
}

#[tokio::test]
async fn one_that_ends_without_a_word_or_talks_nonsense_is_refused() {
    let nonsense: [&[u8]; 5] = [
        b"",
        b"nonsense that is no frame",
        b"R\xff\xff\xff\xff",
        &started(),
        &[started(), b"X\x02\0\0\0{}".to_vec()].concat(),
    ];
    for says in nonsense {
        let (error, text) = refusal(Fake {
            says,
            exits: Some(0),
            ..Fake::default()
        })
        .await;
        let SandboxError::Refused { mechanism, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(mechanism, "gvisor-platform", "{says:?}: {text}");
    }
}

/// What comes out of a sandbox is held against what was asked, whoever says it.
#[tokio::test]
async fn what_must_not_be_said_ends_the_talk() {
    let file = |name: &str, size: u64| {
        frame(
            b'F',
            &format!(r#"{{"path":"{name}","kind":{{"File":{size}}},"mode":420,"modified":0}}"#),
        )
    };
    let data = |content: &str| frame(b'D', content);
    for bad in [
        vec![file("../x", 0), exit(0)],
        vec![file("/etc/x", 0), exit(0)],
        vec![file("", 0), exit(0)],
        vec![file("x", 1 << 40), exit(0)],
        vec![file("x", 1), data("two"), exit(0)],
        vec![file("x", 2), exit(0)],
        vec![data("of no file"), exit(0)],
        vec![frame(b'S', "{}"), exit(0)],
        vec![exit(0), exit(0)],
    ] {
        let says = [started(), bad.concat()].concat();
        let (_, text) = refusal(Fake {
            says: &says,
            exits: Some(0),
            ..Fake::default()
        })
        .await;
        assert!(text.contains("broke the protocol"), "{text}");
    }
    // The same without any of it: so it was that.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let says = [started(), file("x", 3), data("abc"), exit(0)].concat();
    let fake = Fake {
        says: &says,
        exits: None,
        ..Fake::default()
    };
    assert!(Gvisor::start(config(fake.put(folder.path()))).await.is_ok());
}

#[tokio::test]
async fn a_trial_whose_job_fails_is_no_sandbox() {
    let says = [started(), exit(3 << 8)].concat();
    let (_, text) = refusal(Fake {
        says: &says,
        ..Fake::default()
    })
    .await;
    assert!(text.contains("ended with 3"), "{text}");
}

#[tokio::test]
async fn kvm_without_its_device_is_refused_before_anything_is_started() {
    if Path::new("/dev/kvm").exists() {
        eprintln!("this machine has the device");
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let fake = Fake::default().put(folder.path());
    let error = Gvisor::start(GvisorConfig {
        platform: Platform::Kvm,
        ..config(fake)
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("/dev/kvm"), "{error}");
}

/// The first process of a sandbox, started elsewhere, with somebody who talks with it.
fn guest_elsewhere(command: &mut Command) -> (Option<i32>, String) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let child = command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = ours.write_all(&frame(b'S', "{}"));
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

#[test]
fn what_runs_jobs_in_a_sandbox_runs_nothing_outside_of_one() {
    let (code, text) = guest_elsewhere(Command::new(PROBE).arg("jail-guest"));
    assert_eq!(code, Some(2));
    assert!(text.contains("runs nothing outside of gVisor"), "{text}");
    // Where it is user 0 and the first process, as in a sandbox, the kernel is still not gVisor's.
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--pid", "--fork"]);
    if !unshare.arg("true").status().is_ok_and(|it| it.success()) {
        eprintln!("this machine has no unshare, or no user namespaces");
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--pid", "--fork"]);
    let (code, text) = guest_elsewhere(unshare.arg(PROBE).arg("jail-guest"));
    assert_eq!(code, Some(2));
    assert!(text.contains("runs nothing outside of gVisor"), "{text}");
    assert!(!text.contains("first process of a sandbox"), "{text}");
}
