//! What a job must not be able to do, tried.

use std::fs;
use std::io::{self, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::time::Duration;

use crate::tracing;

/// What came of an attack.
pub(crate) struct Verdict {
    pub(crate) held: bool,
    pub(crate) what: String,
}

pub(crate) fn verdict(held: bool, what: impl ToString) -> Verdict {
    Verdict {
        held,
        what: what.to_string(),
    }
}

/// Held where it fails.
fn fails<T>(result: io::Result<T>) -> Verdict {
    match result {
        Ok(_) => verdict(false, "it worked"),
        Err(error) => verdict(true, error),
    }
}

/// Held where it fails with one of these; another error means that it got further than it should.
fn fails_with<T>(result: io::Result<T>, expected: &[i32]) -> Verdict {
    match result {
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|it| expected.contains(&it)) =>
        {
            verdict(true, error)
        }
        Err(error) => verdict(false, format!("it got as far as {error}")),
        Ok(_) => verdict(false, "it worked"),
    }
}

/// A system call with up to five numbers. The filter answers before the kernel looks at them; where there is
/// no filter, they are chosen so that nothing comes of it.
fn call(number: libc::c_long, arguments: [libc::c_long; 5]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: every use below passes null pointers, or numbers that make the kernel refuse or do nothing to
    // this process's memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// What programs expect of a call that exists and that they must not make.
const NOT_ALLOWED: &[i32] = &[libc::EPERM];

/// Tries one.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Verdict {
    let argument = arguments.first().copied().unwrap_or("");
    let status = |field: &str| {
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(field).map(|it| it.trim().to_owned()))
            .unwrap_or_default()
    };
    let refused = |number, arguments| fails_with(call(number, arguments), NOT_ALLOWED);
    match name {
        // files
        "read-file" => fails_with(fs::read(argument), &[libc::ENOENT]),
        "write-folder" => fails_with(fs::write(argument, "x"), &[libc::ENOENT]),
        "open-for-writing" => fails_with(
            fs::OpenOptions::new().write(true).open(argument),
            &[libc::ENOENT],
        ),
        "withheld" => fails_with(
            fs::File::open(argument).and_then(|mut it| it.read(&mut [0])),
            WITHHELD,
        ),
        "absent" => fails_with(fs::symlink_metadata(argument), &[libc::ENOENT]),
        "write-below" => {
            let mut opened = Vec::new();
            open_below(std::path::Path::new(argument), &mut opened);
            verdict(opened.is_empty(), format!("{opened:?}"))
        }
        "proc-entries" => proc_entries(arguments),
        "memory-told" => memory_told(argument.parse().unwrap_or(0)),
        "write-into" => fails(fs::write(format!("{argument}/x"), "x")),
        "write-system" => fails(fs::write("/usr/x", "x").or_else(|_| fs::write("/etc/x", "x"))),
        // who one is
        "machine-user-0" => {
            let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let outside = map.split_whitespace().nth(1).unwrap_or("0").to_owned();
            verdict(outside != "0", format!("user {outside} of the machine"))
        }
        "capabilities" => {
            let sets = ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"].map(status);
            let none = sets.iter().all(|it| !it.is_empty() && it.bytes().all(|it| it == b'0'));
            verdict(none, format!("{sets:?}"))
        }
        "no-new-privileges" => verdict(status("NoNewPrivs:") == "1", status("NoNewPrivs:")),
        #[expect(
            clippy::disallowed_methods,
            reason = "looks for what must not be there"
        )]
        "environment" => match std::env::var(argument) {
            Ok(value) => verdict(false, format!("{argument}={value}")),
            Err(_) => verdict(true, "not there"),
        },
        "descriptors" => descriptors(),
        "session" => {
            // SAFETY: takes and returns a number.
            let session = unsafe { libc::getsid(0) };
            verdict(session > 0, format!("session {session}"))
        }
        "first-environment" => fails(fs::read("/proc/1/environ")),
        // namespaces
        "namespace" => {
            let path = format!("/proc/self/ns/{argument}");
            let own = fs::read_link(path).unwrap_or_default();
            let machines = arguments.get(1).copied().unwrap_or("");
            verdict(own.to_str() != Some(machines), own.display())
        }
        "host-name" => {
            let name = rustix::system::uname();
            let name = name.nodename().to_string_lossy();
            verdict(name != argument, name)
        }
        "connect" => fails(
            argument
                .parse()
                .map_err(io::Error::other)
                .and_then(|to| TcpStream::connect_timeout(&to, Duration::from_secs(2))),
        ),
        // Connecting a datagram socket looks for a route and sends nothing.
        "route" => fails(UdpSocket::bind("0.0.0.0:0").and_then(|it| it.connect(argument))),
        "abstract-socket" => fails(
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(argument)
                .and_then(|address| UnixStream::connect_addr(&address)),
        ),
        "shared-memory" => {
            let key = argument.parse().unwrap_or(0);
            refused_or(call(libc::SYS_shmget, [key, 1, 0, 0, 0]), libc::ENOENT)
        }
        // processes
        "see-process" => {
            let pid = argument.parse().unwrap_or(0);
            fails_with(call(libc::SYS_kill, [pid, 0, 0, 0, 0]), &[libc::ESRCH])
        }
        "signal-first" => fails(call(libc::SYS_kill, [1, 0, 0, 0, 0])),
        "trace-first" => {
            const SEIZE: libc::c_long = 0x4206;
            fails(call(libc::SYS_ptrace, [SEIZE, 1, 0, 0, 0]))
        }
        "fork" => forks(argument.parse().unwrap_or(0)),
        "daemon" => {
            daemon(argument);
            verdict(true, "started")
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(argument.parse().unwrap_or(0)));
            verdict(true, "awake")
        }
        // resources
        "fill" => fails(fs::write("large", vec![0; argument.parse().unwrap_or(0)])),
        "sparse" => fails(sparse()),
        "many-files" => fails((0..argument.parse().unwrap_or(0)).try_for_each(|number: u32| {
            fs::write(format!("file{number}"), "")
        })),
        // the kernel's surface
        "new-user-namespace" => {
            refused(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0])
        }
        "clone-user-namespace" => {
            // A flag that cannot go with it, so that no process comes of it where nothing holds it.
            let flags = libc::CLONE_NEWUSER | libc::CLONE_FS;
            refused(libc::SYS_clone, [flags.into(), 0, 0, 0, 0])
        }
        "clone3" => fails_with(call(libc::SYS_clone3, [0; 5]), &[libc::ENOSYS]),
        "mount" => fails(
            rustix::mount::mount(
                "tmpfs",
                "/tmp",
                "tmpfs",
                rustix::mount::MountFlags::empty(),
                c"",
            )
            .map_err(io::Error::from),
        ),
        "bpf" => refused(libc::SYS_bpf, [9999, 0, 0, 0, 0]),
        "perf" => refused(libc::SYS_perf_event_open, [0, 0, -1, -1, 0]),
        "io-uring" => refused(libc::SYS_io_uring_setup, [0; 5]),
        "keyring" => refused(libc::SYS_keyctl, [0, -3, 0, 0, 0]),
        "add-key" => refused(libc::SYS_add_key, [0; 5]),
        // 1: faults of user mode alone, which every user may handle.
        "userfaultfd" => refused(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        "read-process-memory" => refused(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
        "personality" => refused(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0]),
        "device-node" => {
            let path = c"/tmp/node".as_ptr() as libc::c_long;
            let kind = libc::c_long::from(libc::S_IFCHR | 0o600);
            let at = libc::c_long::from(libc::AT_FDCWD);
            // The one device that every user may make: 0 of 0, which nobody can open.
            refused(libc::SYS_mknodat, [at, path, kind, 0, 0])
        }
        "type-into-terminal" => {
            let character = c"x".as_ptr() as libc::c_long;
            let request = libc::TIOCSTI as libc::c_long;
            refused(libc::SYS_ioctl, [0, request, character, 0, 0])
        }
        "line-discipline" => {
            // No terminal is asked: without the filter the kernel says so.
            let (request, discipline) = (libc::TIOCSETD as libc::c_long, c"".as_ptr() as libc::c_long);
            refused(libc::SYS_ioctl, [0, request, discipline, 0, 0])
        }
        "read-first-memory" => tracing::memory_of_the_first(),
        "trace-own" => tracing::of_a_child(),
        "trace-around-the-filter" => tracing::around_the_filter(),
        "terminals" => opens("/dev/ptmx", argument.parse().unwrap_or(0)),
        "open-files" => opens("/dev/null", argument.parse().unwrap_or(0)),
        "socket" => {
            let numbers: Vec<libc::c_long> =
                arguments.iter().filter_map(|it| it.parse().ok()).collect();
            match numbers.as_slice() {
                [family, kind, protocol] => {
                    refused(libc::SYS_socket, [*family, *kind, *protocol, 0, 0])
                }
                _ => verdict(false, "three numbers are needed"),
            }
        }
        "old-calls" => old_calls(),
        other => verdict(false, format!("{other} is no attack")),
    }
}

/// What the kernel says of a file that is there for nobody.
const WITHHELD: &[i32] = &[libc::ENOENT, libc::EACCES, libc::EPERM];

/// Opens every file below a folder for writing, and adds those that it could.
fn open_below(folder: &std::path::Path, opened: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => open_below(&path, opened),
            Ok(kind) if kind.is_symlink() => {}
            _ if fs::OpenOptions::new().append(true).open(&path).is_ok() => {
                opened.push(path.display().to_string());
            }
            _ => {}
        }
    }
}

/// Entries of /proc that are no process and none of those that are known, and that can be read all the same.
fn proc_entries(known: &[&str]) -> Verdict {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.bytes().all(|it| it.is_ascii_digit());
        if process || known.contains(&name.as_str()) {
            continue;
        }
        let read = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::read_dir(entry.path()).map(drop),
            _ => fs::File::open(entry.path()).map(drop),
        };
        if read.is_ok() {
            found.push(name);
        }
    }
    verdict(found.is_empty(), format!("{found:?}"))
}

/// Held where everything that tells a program how much memory there is says at most so much.
fn memory_told(most: u64) -> Verdict {
    let mut told = Vec::new();
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|it| it.strip_prefix("MemTotal:"));
    let total = total.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    told.push(total.map_or(u64::MAX, |it| it * 1024));
    for path in ["memory.max", "memory/memory.limit_in_bytes"] {
        if let Ok(text) = fs::read_to_string(format!("/sys/fs/cgroup/{path}")) {
            told.push(text.trim().parse().unwrap_or(u64::MAX));
        }
    }
    let held = told.len() > 1 && told.iter().all(|it| *it <= most);
    verdict(held, format!("{told:?}"))
}

fn refused_or(result: io::Result<libc::c_long>, or: i32) -> Verdict {
    fails_with(result, &[libc::EPERM, libc::ENOSYS, or])
}

/// Opens a file so often, or until it may not any more.
fn opens(path: &str, most: usize) -> Verdict {
    let open = |_| fs::OpenOptions::new().read(true).write(true).open(path);
    let files: io::Result<Vec<_>> = (0..most).map(open).collect();
    fails(files)
}

/// Descriptors beside the three standard ones, and what is in them.
fn descriptors() -> Verdict {
    let mut found = Vec::new();
    for fd in 3..1024 {
        let Ok(target) = fs::read_link(format!("/proc/self/fd/{fd}")) else {
            continue;
        };
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(format!("/proc/self/fd/{fd}")) {
            let _ = file.by_ref().take(64).read_to_string(&mut text);
        }
        found.push(format!("{fd} {} {text}", target.display()));
    }
    verdict(found.is_empty(), format!("{found:?}"))
}

/// Forks until it may not any more, at most so often, and says how often.
fn forks(most: usize) -> Verdict {
    let mut children = 0;
    while children < most {
        // SAFETY: this program has one thread; the child does nothing but wait for its end.
        match unsafe { libc::fork() } {
            -1 => break,
            0 => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            _ => children += 1,
        }
    }
    verdict(children < most, format!("forked {children} times"))
}

/// Leaves something behind that has cut every tie to this process.
fn daemon(token: &str) {
    // SAFETY: this program has one thread, so the child may do what the parent may.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: takes nothing.
        unsafe { libc::setsid() };
        // Not by /proc, which is not there in every jail that a test weakens.
        let program = std::env::args_os().next().unwrap_or_default();
        let null = std::process::Stdio::null;
        let _ = std::process::Command::new(program)
            .args(["hold", "sleep", token])
            .stdin(null())
            .stdout(null())
            .stderr(null())
            .spawn();
        std::process::exit(0);
    }
    // Until it is there.
    std::thread::sleep(Duration::from_millis(300));
}

fn sparse() -> io::Result<()> {
    // SAFETY: `SIG_IGN` is a valid action for a signal that would otherwise end this process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    fs::File::create("sparse")?.set_len(1 << 40)
}

/// The system calls of 32-bit programs, by their own door.
#[cfg(target_arch = "x86_64")]
fn old_calls() -> Verdict {
    // SAFETY: this program has one thread; the child makes one call and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut result: i64 = 20; // getpid, in their numbers
        // SAFETY: the interrupt preserves every register but the one that is declared.
        unsafe {
            std::arch::asm!("int 0x80", inout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        std::process::exit(if result > 0 { 0 } else { 1 });
    }
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    unsafe { libc::waitpid(child, ptr::from_mut(&mut status), 0) };
    verdict(
        status & 0x7f == libc::SIGSYS,
        format!("ended with status {status:#x}"),
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn old_calls() -> Verdict {
    let _ = ptr::null::<u8>();
    verdict(true, "this architecture has no such door")
}
