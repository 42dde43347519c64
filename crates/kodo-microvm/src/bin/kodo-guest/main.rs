//! The first process of a microvm: makes a system around itself, takes one order over the port, carries it out
//! in the jail, sends its result, and switches the machine off.
//!
//! It is no part of the service: `sbx:microvm:build` puts it into the machine's file tree.

mod system;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kodo_contract::{ContentHash, Node, NodeKind, Tree};
use kodo_jail::{CgroupPolicy, Jail, JailConfig};
use kodo_microvm::wire::{Kind, Order, Outcome, Ready, Refusal, StreamHeader};
use kodo_sandbox::provider::{
    CHUNK, EntryHeader, EntryKind, from_json, json_frame, receive, send_data,
};
use kodo_sandbox::{
    InputFile, JobResult, JobSpec, OutputFile, Sandbox, SandboxError, Spool, Workspace,
};
use sha2::{Digest, Sha256};

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
        Ok(result) => report(&mut port, &spec, &result),
        Err(error) => port.write_all(&json_frame(Kind::Refusal, &Refusal::from(error))?),
    }
}

fn take_order(port: &mut File) -> io::Result<JobSpec> {
    let (kind, content) = receive::<Kind>(port)?;
    if kind != Kind::Order {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let order: Order = from_json(&content)?;
    let spool =
        Spool::new(rustix::fs::memfd_create("spool", rustix::fs::MemfdFlags::CLOEXEC)?.into());
    let (mut tree, mut files) = (Tree::default(), Vec::new());
    for _ in 0..order.entries {
        let (kind, content) = receive::<Kind>(port)?;
        if kind != Kind::Entry {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let header: EntryHeader = from_json(&content)?;
        if header.is_root() {
            tree.set_root(header.mode);
            continue;
        }
        let EntryHeader {
            path,
            kind,
            mode,
            modified,
        } = header;
        let kind = match kind {
            EntryKind::Folder => NodeKind::Folder,
            EntryKind::Symlink(to) => NodeKind::Symlink(to),
            EntryKind::HardLink(to) => NodeKind::HardLink(to),
            EntryKind::AsGiven => return Err(io::ErrorKind::InvalidData.into()),
            EntryKind::File(size) if order.carried.is_none() => {
                let mut content = Vec::new();
                take_content(port, size, |piece| {
                    content.extend_from_slice(piece);
                    Ok(())
                })?;
                files.push(InputFile {
                    executable: mode & 0o100 != 0,
                    ..InputFile::new(&path.text(), content)
                });
                continue;
            }
            EntryKind::File(size) => {
                let begin = spool.reserve(size);
                let (mut at, mut hash) = (begin, Sha256::new());
                take_content(port, size, |piece| {
                    hash.update(piece);
                    spool.file().write_all_at(piece, at)?;
                    at += piece.len() as u64;
                    Ok(())
                })?;
                let sha256 = ContentHash::from_digest(hash.finalize().into());
                spool.add(sha256.clone(), begin..at);
                NodeKind::File { sha256, size }
            }
        };
        tree.insert(path, Node::new(kind, mode, modified));
    }
    let workspace = order.carried.map(|bounds| Workspace {
        tree,
        content: Arc::new(spool),
        bounds,
    });
    Ok(JobSpec {
        argv: order.argv,
        workspace,
        files,
        env: order.env,
        cwd: order.cwd,
        limits: order.limits,
        network: false,
    })
}

/// Receives content of this size in pieces.
fn take_content(
    port: &mut File,
    size: u64,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        match receive(port)? {
            (Kind::Data, piece) if !piece.is_empty() && piece.len() as u64 <= left => {
                each(&piece)?;
                left -= piece.len() as u64;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
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

fn report(port: &mut File, spec: &JobSpec, result: &JobResult) -> io::Result<()> {
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
    for OutputFile {
        name,
        content,
        executable,
        ..
    } in &result.files
    {
        let header = EntryHeader {
            path: name.as_str().into(),
            kind: EntryKind::File(content.len() as u64),
            mode: if *executable { 0o755 } else { 0o644 },
            modified: 0,
        };
        port.write_all(&json_frame(Kind::Entry, &header)?)?;
        send_data(port, Kind::Data, content)?;
    }
    if let (Some(tree), Some(found)) = (&result.workspace, &spec.workspace) {
        send_tree(port, tree, found)?;
    }
    port.write_all(&json_frame(Kind::Outcome, &Outcome::of(result))?)
}

/// Sends the workspace as the job left it.
fn send_tree(port: &mut File, tree: &Tree, found: &Workspace) -> io::Result<()> {
    if let Some(mode) = tree.root() {
        port.write_all(&json_frame(Kind::Entry, &EntryHeader::root(mode))?)?;
    }
    for (path, node) in tree.iter() {
        let new = match &node.kind {
            NodeKind::File { sha256, size } => {
                let given = found.tree.get(path).and_then(Node::content);
                (given != Some((sha256, *size))).then_some((sha256, *size))
            }
            _ => None,
        };
        let kind = match (&node.kind, new) {
            (NodeKind::Folder, _) => EntryKind::Folder,
            (NodeKind::Symlink(to), _) => EntryKind::Symlink(to.clone()),
            (NodeKind::HardLink(to), _) => EntryKind::HardLink(to.clone()),
            (NodeKind::File { .. }, None) => EntryKind::AsGiven,
            (NodeKind::File { .. }, Some((_, size))) => EntryKind::File(size),
        };
        let header = EntryHeader {
            path: path.clone(),
            kind,
            mode: node.mode,
            modified: node.modified,
        };
        port.write_all(&json_frame(Kind::Entry, &header)?)?;
        if let Some((sha256, _)) = new {
            let content = found.content.open(sha256);
            let mut content = content.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            let mut piece = vec![0; CHUNK];
            loop {
                match content.read(&mut piece)? {
                    0 => break,
                    count => send_data(port, Kind::Data, &piece[..count])?,
                }
            }
        }
    }
    Ok(())
}
