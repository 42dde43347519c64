//! Programs that a test starts and observes or kills: services with a job, and a program that stays in a jail.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use kodo_jail::gvisor::{Gvisor, GvisorConfig, Platform};
use kodo_jail::{CgroupPolicy, Helper, Jail, JailConfig};
use kodo_sandbox::{JobSpec, Sandbox};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs the program of this name; returns an error if there is none, or if it could not do what it is for.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Outcome {
    match (name, arguments) {
        ("sleep", _) => {
            // Bounded, in case the test that looks for it has been killed itself.
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        ("jail", [helper, token]) => service(helper, token),
        ("gvisor", [runsc, platform]) => gvisor(runsc, platform),
        ("listen", []) => listen(),
        ("spare", []) => spare(),
        ("reside", [own, service, outside]) => reside(own, service, outside),
        _ => Err("no such program".into()),
    }
}

fn jail(helper: &[&str], config: JailConfig) -> std::io::Result<Jail> {
    let arguments = helper.iter().map(Into::into).collect();
    Ok(Jail::new(JailConfig {
        helper: Helper::program(std::env::current_exe()?, arguments),
        ..config
    }))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// A program that stays in a jail: tells the service whether it reaches a port outside of its network, then greets
/// whoever connects.
fn reside(own: &str, service: &str, outside: &str) -> Outcome {
    let address = |port: &str| format!("127.0.0.1:{port}");
    let listener = TcpListener::bind(address(own))?;
    let reached = TcpStream::connect(address(outside)).is_ok();
    // Kept open: the service takes its end for the end of this process.
    let mut service = TcpStream::connect(address(service))?;
    writeln!(service, "{}", if reached { "reached" } else { "held" })?;
    for mut caller in listener.incoming().flatten() {
        let _ = caller.write_all(b"hello");
    }
    Ok(())
}

/// A service with a job in the jail, for a test that kills it.
fn service(helper: &str, token: &str) -> Outcome {
    let helper: Vec<_> = helper.split(' ').collect();
    let config = JailConfig {
        cgroup: CgroupPolicy::Never,
        ..JailConfig::default()
    };
    // The token is an argument, so that the job's processes can be told from all others.
    let script = format!(
        "(setsid sh -c 'sleep 25; :' {token} & ); sh -c 'trap \"\" TERM; sleep 25; :' {token}; :"
    );
    let mut job = JobSpec::new(["/bin/sh", "-c", &script, token]);
    job.limits.wall = Duration::from_secs(25);
    runtime()?.block_on(jail(&helper, config)?.run(&job))?;
    Ok(())
}

/// A service with a job in gVisor, for a test that kills it.
fn gvisor(runsc: &str, platform: &str) -> Outcome {
    runtime()?.block_on(async {
        let sandbox = Gvisor::start(GvisorConfig {
            runsc: PathBuf::from(runsc),
            platform: Platform::of(platform).ok_or("no such platform")?,
            ..GvisorConfig::default()
        })
        .await?;
        println!("holding");
        sandbox.run(&JobSpec::new(["sleep", "600"])).await?;
        Ok(())
    })
}

/// A service that has had a job: prints the process id of the helper that waits for the next one, and stays.
fn spare() -> Outcome {
    let config = JailConfig {
        ready: 1,
        ..JailConfig::default()
    };
    let jail = jail(&["jail-init"], config)?;
    let runtime = runtime()?;
    runtime.block_on(jail.try_out())?;
    let helper = loop {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
        let children = threads
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        match children.collect::<String>().split_whitespace().next() {
            Some(pid) => break pid.to_owned(),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    println!("{helper}");
    std::thread::sleep(Duration::from_secs(30));
    Ok(())
}

/// Runs a job that prints 300 MB; prints how many bytes were counted, and this process's peak memory in kB.
fn listen() -> Outcome {
    let mut job = JobSpec::new(["head", "-c", "300000000", "/dev/zero"]);
    job.limits.output_bytes = 1 << 30;
    let result = runtime()?.block_on(jail(&["jail-init"], JailConfig::default())?.run(&job));
    let printed = result.map_or(0, |it| it.stdout.total());
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    println!("{printed} {}", peak.unwrap_or(""));
    Ok(())
}
