//! What can hold a job here: each rung of the ladder, tried out, and the one that a service would use.

use kodo_jail::Capabilities;
use kodo_sandbox::Sandbox;

use super::Patient;
use super::finding::Finding;
use crate::sandbox::{rungs, tried};
use crate::settings::{Isolation, SandboxMode, SandboxSettings};

/// The check that says which one a service would use.
const CHOSEN: &str = "sandbox";
/// Where all of it is explained.
const PAGE: &str = "less docs/sandbox.md";

/// Tries each rung with a job that does nothing: that a device or a file is there proves nothing.
pub(crate) async fn check(patient: &Patient) -> Vec<Finding> {
    let live = &patient.settings.live;
    let mode = patient.settings.sbx_mode;
    let (process, gvisor, microvm) = tokio::join!(process(live), gvisor(live), microvm(live));
    let mut findings = Vec::new();
    let there = |rung| {
        let ladder = [
            (Isolation::MicroVm, &microvm),
            (Isolation::Gvisor, &gvisor),
            (Isolation::Process, &process),
        ];
        ladder
            .iter()
            .any(|(it, found)| *it == rung && found.is_ok())
    };
    findings.push(chosen(live, mode, there));
    for (check, found, asked) in [
        (
            "sandbox process",
            &process,
            is_asked_for(live, Isolation::Process),
        ),
        (
            "sandbox gvisor",
            &gvisor,
            is_asked_for(live, Isolation::Gvisor),
        ),
        (
            "sandbox microvm",
            &microvm,
            is_asked_for(live, Isolation::MicroVm),
        ),
    ] {
        findings.push(match found {
            Ok(what) => Finding::ok(check, what),
            Err(why) if mode == SandboxMode::Live && asked => {
                Finding::problem(check, why, PAGE.to_owned())
            }
            // Nobody relies on it: said all the same, since `auto` would take it.
            Err(why) => Finding::skipped(check, format!("optional, and not for use here: {why}")),
        });
    }
    findings
}

/// Whether nothing else would do.
fn is_asked_for(live: &SandboxSettings, rung: Isolation) -> bool {
    match live.provider {
        Some(provider) => provider == rung,
        // A stronger one would do as well.
        None => live.least == rung && rung != Isolation::Gvisor,
    }
}

fn chosen(live: &SandboxSettings, mode: SandboxMode, there: impl Fn(Isolation) -> bool) -> Finding {
    let strongest = rungs(live).into_iter().find(|rung| there(*rung));
    match (mode, strongest) {
        (SandboxMode::Mock, _) => {
            Finding::ok(CHOSEN, "mock: tool calls are answered and not carried out")
        }
        (SandboxMode::Live, Some(rung)) => {
            Finding::ok(CHOSEN, format!("live, by the provider {}", rung.as_str()))
        }
        (SandboxMode::Live, None) => Finding::problem(
            CHOSEN,
            format!(
                "live, and nothing here is SBX_PROVIDER={} with SBX_MIN_ISOLATION={}: the service does not start, \
                 and no job is run",
                live.provider.map_or("auto", Isolation::as_str),
                live.least.as_str()
            ),
            PAGE.to_owned(),
        ),
    }
}

async fn process(live: &SandboxSettings) -> Result<String, String> {
    let found = Capabilities::probe(live.jail.clone()).await;
    let words: Vec<_> = found
        .findings
        .iter()
        .map(|one| match &one.hint {
            Some(hint) => format!("{}: {} ({hint})", one.mechanism, one.detail),
            None => format!("{}: {}", one.mechanism, one.detail),
        })
        .collect();
    if found.can_jail() {
        Ok(words.join("; "))
    } else {
        Err(words.join("; "))
    }
}

async fn gvisor(live: &SandboxSettings) -> Result<String, String> {
    let (_, tried) = tried(live, Isolation::Gvisor).await?;
    let words: Vec<_> = ["kernel", "memory"]
        .iter()
        .filter_map(|name| Some(format!("{name}: {}", tried.enforced.get(name)?)))
        .collect();
    Ok(format!("a job ran in a sandbox ({})", words.join("; ")))
}

async fn microvm(live: &SandboxSettings) -> Result<String, String> {
    let mut alone = live.clone();
    alone.microvm.ready = 0;
    let (sandbox, tried) = tried(&alone, Isolation::MicroVm).await?;
    let words: Vec<_> = ["machine", "kernel"]
        .iter()
        .filter_map(|name| tried.enforced.get(name).cloned())
        .collect();
    Ok(format!(
        "a job ran in a {}: {}",
        Sandbox::name(&*sandbox),
        words.join("; ")
    ))
}
