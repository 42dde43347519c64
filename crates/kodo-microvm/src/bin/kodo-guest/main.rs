//! The first process of a microvm: makes a system around itself, takes one order over the port, carries it out
//! in the jail, sends its result, and switches the machine off.
//!
//! It is no part of the service: `sbx:microvm:build` puts it into the machine's file tree.

mod system;

use std::fs::File;
use std::io::{self, Write};

use kodo_jail::{CgroupPolicy, Jail, JailConfig};
use kodo_microvm::wire::{Kind, Order, Outcome, Ready, Refusal, StreamHeader};
use kodo_sandbox::provider::{FileHeader, from_json, json_frame, receive, send_data};
use kodo_sandbox::{InputFile, JobResult, JobSpec, Sandbox, SandboxError};

fn main() {
    kodo_jail::be_the_helper_if_asked();
    if std::process::id() != 1 {
        eprintln!("kodo-guest: this is the first process of a microvm; it is of no use elsewhere");
        std::process::exit(2);
    }
    if let Err(error) = serve() {
        println!("kodo-guest: {error}");
    }
    system::power_off();
}

fn serve() -> io::Result<()> {
    let mut port = system::start()?;
    let ready = Ready {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
    };
    port.write_all(&json_frame(Kind::Ready, &ready)?)?;
    let spec = take_order(&mut port)?;
    match carry_out(&spec) {
        Ok(result) => report(&mut port, &result),
        Err(error) => port.write_all(&json_frame(Kind::Refusal, &Refusal::from(error))?),
    }
}

fn take_order(port: &mut File) -> io::Result<JobSpec> {
    let (kind, content) = receive::<Kind>(port)?;
    if kind != Kind::Order {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let order: Order = from_json(&content)?;
    let mut files = Vec::with_capacity(order.files.len());
    for FileHeader {
        name,
        size,
        executable,
    } in order.files
    {
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            match receive(port)? {
                (Kind::Data, piece) => content.extend(piece),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        files.push(InputFile {
            name,
            content,
            executable,
        });
    }
    Ok(JobSpec {
        argv: order.argv,
        files,
        env: order.env,
        cwd: order.cwd,
        limits: order.limits,
        network: false,
    })
}

fn carry_out(spec: &JobSpec) -> Result<JobResult, SandboxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| SandboxError::Unavailable {
            reason: error.to_string(),
        })?;
    let jail = Jail::new(JailConfig {
        // The machine is ours: where it cannot bound a job, something is wrong with it.
        cgroup: CgroupPolicy::Below(system::GROUPS.into()),
        ..JailConfig::default()
    });
    runtime.block_on(jail.run(spec))
}

fn report(port: &mut File, result: &JobResult) -> io::Result<()> {
    for stream in [&result.stdout, &result.stderr] {
        let (head, tail) = stream.parts();
        let header = StreamHeader {
            total: stream.total(),
            head: head.len() as u64,
            tail: tail.len() as u64,
        };
        port.write_all(&json_frame(Kind::Stream, &header)?)?;
        send_data(port, Kind::Data, head)?;
        send_data(port, Kind::Data, tail)?;
    }
    for file in &result.files {
        let header = FileHeader {
            name: file.name.clone(),
            size: file.content.len() as u64,
            executable: file.executable,
        };
        port.write_all(&json_frame(Kind::File, &header)?)?;
        send_data(port, Kind::Data, &file.content)?;
    }
    port.write_all(&json_frame(Kind::Outcome, &Outcome::of(result))?)
}
