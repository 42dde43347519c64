//! The service `db` of the compose file, if a Docker engine runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use super::DevDbConfig;
use super::command;

/// How long an engine may take to answer.
const HELLO: Duration = Duration::from_secs(10);
/// For pulling the image over a slow line.
const PULL: Duration = Duration::from_secs(15 * 60);
const REMOVE: Duration = Duration::from_secs(90);

const UNUSABLE: &str = "Docker cannot be used; start it, or choose another DB_PROVIDER";

fn compose(docker: &str, file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(docker);
    command
        .args(["compose", "--file"])
        .arg(file)
        .args(arguments);
    command
}

/// Starts the service `db` and waits until it is healthy. The file `marker` remembers for [`down`] that we did.
///
/// # Errors
/// If there is no compose file, no engine or no compose, or if the service does not start.
pub(super) async fn up(docker: &str, config: &DevDbConfig, marker: &Path) -> anyhow::Result<()> {
    let file = config.compose_file.as_ref();
    let file = file.context("there is no compose file").context(UNUSABLE)?;
    let file = file.canonicalize().context(UNUSABLE)?;
    for arguments in [["info"].as_slice(), &["compose", "version"]] {
        let mut check = Command::new(docker);
        check.args(arguments);
        command::run(check, HELLO).await.context(UNUSABLE)?;
    }
    // Before the container, so that it can be stopped whatever happens to this process.
    fs::write(marker, file.as_os_str().as_encoded_bytes())
        .with_context(|| marker.display().to_string())?;
    tracing::info!("starting service db with docker compose");
    let mut up = compose(docker, &file, &["up", "--detach", "--wait", "db"]);
    up.env("DB_PORT", config.port.to_string())
        .env("DB_USER", &config.user)
        .env("DB_PASSWORD", &config.password);
    let started = command::run(up, PULL).await;
    if started.is_err() {
        // Half a container would keep the port from whatever is tried next.
        let _ = down(docker, marker).await;
    }
    started.context("docker compose failed")?;
    Ok(())
}

/// Removes the container that [`up`] started, if it did; its volume keeps the data. Returns whether there was one.
///
/// # Errors
/// If it cannot be removed.
pub(super) async fn down(docker: &str, marker: &Path) -> anyhow::Result<bool> {
    let Ok(file) = fs::read_to_string(marker) else {
        return Ok(false);
    };
    let remove = compose(docker, Path::new(&file), &["rm", "--stop", "--force", "db"]);
    command::run(remove, REMOVE)
        .await
        .context("docker compose failed")?;
    fs::remove_file(marker).with_context(|| marker.display().to_string())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::Provider;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A `docker` that writes down what it is asked and fails at `fail`.
    fn fake(folder: &Path, fail: &str) -> (String, DevDbConfig) {
        let program = folder.join("docker");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*--wait*) echo \"port $DB_PORT\" >>'{0}/calls' ;;\nesac\n\
             echo \"$*\" >>'{0}/calls'\ncase \"$*\" in\n{fail}) echo 'no such thing' >&2; exit 1 ;;\nesac\n",
            folder.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let compose_file = folder.join("compose.yaml");
        fs::write(&compose_file, "").unwrap();
        let config = DevDbConfig {
            host: "127.0.0.1".to_owned(),
            port: 4711,
            user: "postgres".to_owned(),
            password: "postgres".to_owned(),
            data_dir: folder.to_owned(),
            compose_file: Some(compose_file),
            provider: Provider::Docker,
        };
        (program.display().to_string(), config)
    }

    fn calls(folder: &Path) -> String {
        let text = fs::read_to_string(folder.join("calls")).unwrap();
        text.replace(&*folder.canonicalize().unwrap().to_string_lossy(), "HERE")
    }

    #[tokio::test]
    async fn up_starts_the_service_on_our_port_and_down_removes_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let (docker, config) = fake(folder.path(), "nothing");
        let marker = folder.path().join("marker");
        assert!(!down(&docker, &marker).await.unwrap());
        up(&docker, &config, &marker).await.unwrap();
        assert!(down(&docker, &marker).await.unwrap());
        assert!(!down(&docker, &marker).await.unwrap());
        assert_eq!(
            calls(folder.path()),
            "info\ncompose version\nport 4711\ncompose --file HERE/compose.yaml up --detach --wait db\n\
             compose --file HERE/compose.yaml rm --stop --force db\n"
        );
    }

    #[tokio::test]
    async fn a_container_that_fails_is_removed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (docker, config) = fake(folder.path(), "*--wait*");
        let marker = folder.path().join("marker");
        let error = up(&docker, &config, &marker).await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "docker compose failed: docker: no such thing"
        );
        assert!(!marker.exists());
        assert!(calls(folder.path()).ends_with("rm --stop --force db\n"));
    }

    #[tokio::test]
    async fn without_an_engine_or_compose_nothing_is_started() {
        for missing in ["info", "*version*"] {
            let folder = tempfile::tempdir().unwrap();
            let (docker, config) = fake(folder.path(), missing);
            let marker = folder.path().join("marker");
            let error = up(&docker, &config, &marker).await.unwrap_err();
            assert_eq!(error.to_string(), UNUSABLE);
            assert!(!marker.exists() && !calls(folder.path()).contains("--wait"));
        }
    }
}
