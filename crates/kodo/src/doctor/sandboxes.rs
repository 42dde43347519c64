//! `kodo doctor`: tries each sandbox provider, and says which one a service would use.

use kodo_jail::Capabilities;
use kodo_sandbox::Sandbox;

use super::examination::Examination;
use super::finding::Finding;
use crate::sandbox::{candidates, tried};
use crate::settings::{Isolation, SandboxMode, SandboxSettings};

/// The check that says which one a service would use.
const CHOSEN: &str = "sandbox";
/// The page that explains the providers.
const PAGE: &str = "less docs/sandbox.md";

/// Runs a job that does nothing by each provider: that a device or a file exists proves nothing.
pub(crate) async fn check(exam: &Examination) -> Vec<Finding> {
    let live = &exam.settings.live;
    let mode = exam.settings.sbx_mode;
    let (process, gvisor, microvm) = tokio::join!(process(live), gvisor(live), microvm(live));
    let mut findings = Vec::new();
    let tried = [
        ("sandbox process", Isolation::Process, &process),
        ("sandbox gvisor", Isolation::Gvisor, &gvisor),
        ("sandbox microvm", Isolation::MicroVm, &microvm),
    ];
    let works = |provider| {
        let mut all = tried.iter();
        all.any(|(_, it, found)| *it == provider && found.is_ok())
    };
    findings.push(chosen(live, mode, works));
    for (check, provider, found) in tried {
        findings.push(match found {
            Ok(what) => Finding::ok(check, what),
            Err(why) if mode == SandboxMode::Live && is_required(live, provider) => {
                Finding::problem(check, why, PAGE.to_owned())
            }
            // Reported although nothing depends on it: `auto` would use it if it worked.
            Err(why) => Finding::skipped(check, format!("optional, and not for use here: {why}")),
        });
    }
    findings
}

/// Whether the settings need this provider to work.
fn is_required(live: &SandboxSettings, provider: Isolation) -> bool {
    match live.provider {
        Some(asked) => asked == provider,
        // Of gvisor as the minimum, microvm would do as well.
        None => live.least == provider && provider != Isolation::Gvisor,
    }
}

fn chosen(live: &SandboxSettings, mode: SandboxMode, works: impl Fn(Isolation) -> bool) -> Finding {
    let strongest = candidates(live)
        .into_iter()
        .find(|provider| works(*provider));
    match (mode, strongest) {
        (SandboxMode::Mock, _) => {
            Finding::ok(CHOSEN, "mock: tool calls are answered and not carried out")
        }
        (SandboxMode::Live, Some(provider)) => Finding::ok(
            CHOSEN,
            format!("live, by the provider {}", provider.as_str()),
        ),
        (SandboxMode::Live, None) => Finding::problem(
            CHOSEN,
            format!(
                "live, and no sandbox that SBX_PROVIDER={} with SBX_MIN_ISOLATION={} allows works here: the service does not start, \
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
