//! The memory that large content takes on its way: eight jobs at once, each with 256 MiB in and 256 MiB out.
//!
//! Memory does not depend on who else is busy, so a missed ceiling fails the bench, unlike every other aim.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use kodo_dev::harness::Service;
use kodo_planner::fixture_key;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::figures::{Figures, rounded, say};
use crate::process::memory;
use crate::stage::{Stage, last_words, stop, text};
use crate::wire::{Connection, Request};

const JOBS: usize = 8;
const MIB: u64 = 1 << 20;
/// What each job finds, and what it leaves.
const EACH: u64 = 256 * MIB;
/// What of it is an artifact, too: a call's artifacts have at most 64 MiB together.
const ARTIFACT: u64 = 48 * MIB;
/// The most that the service may have resident.
const CEILING: u64 = 200 * MIB;

/// How long all runs may take together.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(500);

/// Uploads eight archives, runs eight jobs on them, and downloads what they left, each at once.
pub(crate) async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let fixtures = tempfile::tempdir().context("a folder for plans")?;
    let options = stage
        .service()
        .env("OC_FIXTURES_DIR", fixtures.path().display())
        .env("SBX_MODE", "live")
        .env("SBX_PROVIDER", "process");
    let service = Service::start(&options).await?;
    let mut worst = 0;
    let measured = async {
        say(&format!("{JOBS} uploads of {} MiB", EACH / MIB));
        let uploads = (0..JOBS).map(|job| upload(service.port, job));
        let bytes = JOBS as u64 * EACH;
        let uploading = try_join_all(uploads);
        let hashes = watched(&service, figures, "uploads", bytes, &mut worst, uploading).await?;

        say(&format!("{JOBS} jobs, {} MiB in and out", EACH / MIB));
        let mut connection = Connection::open(service.port).await?;
        let mut requests = Vec::new();
        for hash in hashes {
            let intent = plan(fixtures.path(), &hash)?;
            let intent = Request::post("/intents", &intent.to_string());
            let id = text(connection.ask(&intent).await?, "intentId")?;
            requests.push(Request::post(&format!("/intents/{id}/run"), ""));
        }
        let running = try_join_all(requests.iter().map(|it| run(service.port, it)));
        let runs = watched(&service, figures, "jobs", 2 * bytes, &mut worst, running).await?;

        say(&format!("{JOBS} downloads of {} MiB", EACH / MIB));
        let reading = try_join_all(runs.iter().map(|it| download(service.port, it)));
        watched(&service, figures, "downloads", bytes, &mut worst, reading).await?;
        anyhow::Ok(())
    };
    if let Err(error) = measured.await {
        bail!("{error:#}; {}", last_words(&service));
    }
    stop(service).await?;
    let seen = format!("{} MiB", worst / MIB);
    let met = worst < CEILING;
    figures.aim("under 200 MiB with eight jobs of 256 MiB", seen, met);
    ensure!(met, "{} MiB were resident", worst / MIB);
    Ok(())
}

/// Does something, and prints the most memory that the service had resident meanwhile.
async fn watched<T>(
    service: &Service,
    figures: &Figures,
    what: &str,
    bytes: u64,
    worst: &mut u64,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let pid = service.pid().context("the service is gone")?;
    // Begins the peak anew.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let done = work.await?;
    let peak = memory(pid, "VmHWM:")?;
    *worst = peak.max(*worst);
    figures.print(&json!({
        "figure": "content",
        "what": what,
        "at once": JOBS,
        "contentMebibytes": bytes / MIB,
        "peakResidentMebibytes": peak / MIB,
        "shareOfContent": rounded(peak as f64 / bytes as f64),
        "shareOfCeiling": rounded(peak as f64 / CEILING as f64),
    }))?;
    Ok(done)
}

/// An intent whose workspace is this archive, with a plan of one call.
fn plan(fixtures: &std::path::Path, hash: &str) -> anyhow::Result<Value> {
    let intent = json!({"goal": "copy", "inputs": {"workspace": hash}, "constraints": {}});
    let key = fixture_key(&kodo_contract::decode(&intent)?, 424_242);
    let shell = format!("head -c {ARTIFACT} in > part; cat in part | tail -c {EACH} > out; rm in");
    let limits = json!({
        "wallMs": PATIENCE.as_millis() as u64,
        "memoryBytes": 4 * 1024 * MIB,
        "diskBytes": 4 * EACH,
        "returnedBytes": ARTIFACT,
    });
    let call = json!({"name": "exec", "args": {"shell": shell, "limits": limits}});
    let response = json!({"prompt": "p", "toolCalls": [call], "responses": [], "diffs": []});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    std::fs::write(fixtures.join(format!("{key}.json")), fixture.to_string())?;
    Ok(intent)
}

/// Uploads an archive of one file, `in`, that no other job has, and returns its hash.
async fn upload(port: u16, job: usize) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let end = [0; 1024];
    let length = 512 + EACH + end.len() as u64;
    let head = format!(
        "PUT /artifacts HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&header("in", EACH)).await?;
    let mut piece = vec![0; MIB as usize];
    fastrand::Rng::with_seed(job as u64).fill(&mut piece);
    for at in 0..EACH / MIB {
        piece[..8].copy_from_slice(&at.to_le_bytes());
        stream.write_all(&piece).await?;
    }
    stream.write_all(&end).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    text(body.as_bytes(), "sha256").with_context(|| format!("PUT /artifacts answered {answer}"))
}

/// The header of a file in a tar archive.
fn header(name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut field =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{size:011o}\0"));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Starts a run and waits until it has succeeded. Returns its id.
async fn run(port: u16, request: &Request) -> anyhow::Result<String> {
    let mut connection = Connection::open(port).await?;
    let run = text(connection.ask(request).await?, "runId")?;
    let view = Request::get(&format!("/runs/{run}"));
    let ended = async {
        loop {
            let status = text(connection.ask(&view).await?, "status")?;
            match status.as_str() {
                "succeeded" => return anyhow::Ok(()),
                "queued" | "running" => tokio::time::sleep(LOOK).await,
                _ => {
                    let view = String::from_utf8_lossy(connection.ask(&view).await?).into_owned();
                    bail!("run {run} ended: {view}");
                }
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.with_context(|| format!("run {run} did not end within {PATIENCE:?}"))??;
    Ok(run)
}

/// Downloads the workspace that a run has left, its artifact, and a part of that.
async fn download(port: u16, run: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(port).await?;
    let list = Request::get(&format!("/runs/{run}/artifacts"));
    let list: Value = serde_json::from_slice(connection.ask(&list).await?)?;
    let artifacts = list["artifacts"].as_array().context("no artifacts")?;
    let part = artifacts.iter().find(|it| it["size"] == ARTIFACT);
    let hash = part.and_then(|it| it["sha256"].as_str());
    let path = format!(
        "/artifacts/{}",
        hash.with_context(|| format!("no part in {list}"))?
    );
    for (path, range, least) in [
        (&format!("/runs/{run}/workspace"), "", EACH + ARTIFACT),
        (&path, "", ARTIFACT),
        (&path, "range: bytes=1000000-40000000\r\n", 39_000_001),
    ] {
        let read = read(port, path, range).await?;
        ensure!(read >= least, "{path}: {read} bytes are not all of {least}");
    }
    Ok(())
}

/// Reads an answer to its end, and returns how long it was.
async fn read(port: u16, path: &str, header: &str) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut read) = (vec![0; 64 * 1024], 0);
    loop {
        let count = stream.read(&mut buffer).await?;
        if read == 0 {
            let status = buffer.get(9..12).unwrap_or_default();
            let said = String::from_utf8_lossy(&buffer[..count]);
            ensure!(status.starts_with(b"2"), "GET {path} answered {said}");
        }
        if count == 0 {
            return Ok(read);
        }
        read += count as u64;
    }
}
