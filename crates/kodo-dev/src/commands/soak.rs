//! Soaks: the same thing many times over, each round really run, and at the end what a reader needs to believe it or to
//! repeat the round that failed.

mod crashdemo;
mod seed;
mod summary;
mod unit;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use kodo_dev::course::find_checkout;
use summary::{Round, Summary};

/// What an interrupted round gets to clean up after itself: the crash demo stops the service that it started.
const GRACE: Duration = Duration::from_secs(15);

/// Which soak.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The crash demo: kill -9 between two durable steps
    Crashdemo(Length),
    /// Unit and property tests, each round with another seed
    Unit(Length),
}

/// How long, and from where.
#[derive(Debug, Args)]
struct Length {
    /// How many rounds; by default what the soak is known by
    rounds: Option<usize>,
    /// The first round's seed; each further round adds one. By default a new one
    #[arg(long)]
    seed: Option<u64>,
}

/// A round that is about to run.
struct Attempt<'a> {
    seed: u64,
    /// The checkout.
    root: &'a Path,
    /// Everything that its processes print.
    log: PathBuf,
    stop: &'a mut Stop,
}

/// How a round ended, if nobody stopped it.
enum Ended {
    /// With a few words on what was seen.
    Passed(String),
    /// With the reason.
    Failed(String),
    /// By Ctrl-C or SIGTERM: it says nothing about what was tested.
    Stopped,
}

/// A kind of round.
trait Soak {
    /// Its name in the output, and of its folder of logs.
    const NAME: &'static str;
    /// What `mise` runs it as.
    const TASK: &'static str;

    /// Runs one round to its end.
    async fn round(&self, attempt: &mut Attempt<'_>) -> anyhow::Result<Ended>;
}

/// Runs a soak to its end, or to the first signal.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let root = find_checkout(&std::env::current_dir()?)?;
        let mut stop = Stop::new()?;
        match &arguments.what {
            What::Crashdemo(length) => {
                rounds(
                    &crashdemo::Crashdemo,
                    &root,
                    length.rounds.unwrap_or(20),
                    length.seed,
                    &mut stop,
                )
                .await
            }
            What::Unit(length) => {
                let Some(soak) = unit::Unit::build(&root, &mut stop).await? else {
                    return Ok(ExitCode::from(130));
                };
                rounds(
                    &soak,
                    &root,
                    length.rounds.unwrap_or(50),
                    length.seed,
                    &mut stop,
                )
                .await
            }
        }
    })
}

async fn rounds<S: Soak>(
    soak: &S,
    root: &Path,
    asked: usize,
    seed: Option<u64>,
    stop: &mut Stop,
) -> anyhow::Result<ExitCode> {
    ensure!(
        asked > 0,
        "a soak of no rounds shows nothing: ask for one at least"
    );
    let name = S::NAME;
    let logs = root.join(".data/soak").join(name);
    // Logs of an earlier soak would be taken for this one's.
    if logs.exists() {
        std::fs::remove_dir_all(&logs).with_context(|| logs.display().to_string())?;
    }
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let first_seed = seed.unwrap_or_else(seed::fresh);
    println!("soak {name}: {asked} rounds, seeds from {first_seed}");

    let mut summary = Summary::new(name, S::TASK, asked);
    for number in 1..=asked {
        let log = logs.join(format!("round-{number:03}.log"));
        let round_seed = first_seed.wrapping_add(number as u64 - 1);
        let start = Instant::now();
        let mut attempt = Attempt {
            seed: round_seed,
            root,
            log: log.clone(),
            stop,
        };
        // A round that could not even be started has failed: the soak goes on and says so.
        let ended = soak
            .round(&mut attempt)
            .await
            .unwrap_or_else(|error| Ended::Failed(format!("{error:#}")));
        let took = start.elapsed();
        let (words, failure) = match ended {
            Ended::Stopped => {
                summary.interrupt();
                break;
            }
            Ended::Passed(words) => (words, None),
            Ended::Failed(why) => (format!("FAILED: {why}"), Some(why)),
        };
        println!(
            "soak {name}: round {number} of {asked}, seed {round_seed}, {:.1} s: {words}",
            took.as_secs_f64()
        );
        if failure.is_none() {
            let _ = std::fs::remove_file(&log);
        }
        summary.add(Round {
            number,
            seed: round_seed,
            took,
            failure,
            log,
        });
    }
    print!("{summary}");
    Ok(summary.exit_code())
}

/// Ctrl-C, SIGTERM or a closed terminal.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Waits for a child, or for a signal; then the child is told and waited for. `None` where it was stopped.
    ///
    /// The child has a process group of its own, so that Ctrl-C in a terminal reaches it once, through here, and what
    /// it started ends with it.
    async fn or_end_of(&mut self, command: &mut Command) -> anyhow::Result<Option<ExitStatus>> {
        let name = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        tokio::select! {
            status = child.wait() => return Ok(Some(status?)),
            () = self.asked() => {}
        }
        end(&mut child).await;
        Ok(None)
    }
}

/// SIGTERM, and SIGKILL for what does not heed it.
async fn end(child: &mut Child) {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let Some(group) = group else {
        return;
    };
    // It may have ended by itself this moment.
    let _ = kill_process_group(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Standard output and standard error of a command into one file, from its end on.
fn into_log(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| log.display().to_string())?;
    command.stdout(file.try_clone()?).stderr(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds that are shell commands.
    struct Scripted(&'static str);

    impl Soak for Scripted {
        const NAME: &'static str = "scripted";
        const TASK: &'static str = "a:task";

        async fn round(&self, attempt: &mut Attempt<'_>) -> anyhow::Result<Ended> {
            let mut command = Command::new("sh");
            command
                .args(["-c", self.0])
                .env("SEED", attempt.seed.to_string());
            into_log(&mut command, &attempt.log)?;
            Ok(match attempt.stop.or_end_of(&mut command).await? {
                None => Ended::Stopped,
                Some(status) if status.success() => Ended::Passed("well".into()),
                Some(status) => Ended::Failed(status.to_string()),
            })
        }
    }

    async fn soaked(script: &'static str, folder: &Path) -> (ExitCode, String) {
        let mut stop = Stop::new().unwrap();
        let code = rounds(&Scripted(script), folder, 5, Some(100), &mut stop)
            .await
            .unwrap();
        let logs = folder.join(".data/soak/scripted");
        let mut kept: Vec<_> = std::fs::read_dir(logs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.sort();
        (code, kept.join(" "))
    }

    #[tokio::test]
    async fn every_round_runs_with_its_own_seed_and_only_failed_ones_leave_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let script: &'static str = format!(
            "echo \"$SEED\" >>{}; echo said; [ \"$SEED\" != 102 ]",
            trace.display()
        )
        .leak();
        let (code, kept) = soaked(script, folder.path()).await;
        assert_eq!(code, ExitCode::FAILURE);
        assert_eq!(kept, "round-003.log");
        let log = folder.path().join(".data/soak/scripted/round-003.log");
        assert_eq!(std::fs::read_to_string(log).unwrap(), "said\n");
        assert_eq!(
            std::fs::read_to_string(trace).unwrap(),
            "100\n101\n102\n103\n104\n"
        );
    }

    #[tokio::test]
    async fn a_soak_without_a_failure_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let (code, kept) = soaked("true", folder.path()).await;
        assert_eq!((code, kept.as_str()), (ExitCode::SUCCESS, ""));
    }
}
