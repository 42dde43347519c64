//! Which sandbox this process has.

use std::sync::Arc;

use anyhow::bail;
use kodo_jail::{Jail, hint_for};
use kodo_sandbox::{MockSandbox, Sandbox};

use crate::settings::{SandboxMode, Settings};

/// The sandbox that carries out tool calls. A live one has held a job before this returns.
///
/// # Errors
/// One line: what this machine lacks, and what to do about it. Never a weaker sandbox instead.
pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Arc<dyn Sandbox>> {
    if settings.sbx_mode == SandboxMode::Mock {
        return Ok(Arc::new(MockSandbox::with_delay(settings.sbx_mock_delay)));
    }
    Ok(Arc::new(jail(settings).await?))
}

/// The jail, which has held a job.
///
/// # Errors
/// As [`of`].
pub(crate) async fn jail(settings: &Settings) -> anyhow::Result<Jail> {
    let jail = Jail::new(settings.jail.clone());
    match jail.try_out().await {
        Ok(tried) if tried.exit_code() == 0 => {
            let memory = tried.enforced.get("memory").map(String::as_str);
            tracing::info!(
                provider = jail.name(),
                memory,
                "the sandbox has held a job that does nothing"
            );
            Ok(jail)
        }
        Ok(tried) => bail!(
            "SBX_MODE=live does not work on this machine: a job that does nothing ended with {}: {}",
            tried.exit_code(),
            tried.stderr.text().trim()
        ),
        Err(error) => {
            let hint = hint_for(&error).map_or_else(String::new, |hint| format!("; {hint}"));
            bail!("SBX_MODE=live does not work on this machine: {error}{hint}")
        }
    }
}
