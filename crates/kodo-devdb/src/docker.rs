//! The service `db` of the compose file, where a Docker engine runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::command;
use crate::config::DevDbConfig;
use crate::error::DevDbError;

/// An engine that takes longer to say hello is of no use.
const HELLO: Duration = Duration::from_secs(10);
/// For pulling the image over a slow line.
const PULL: Duration = Duration::from_secs(15 * 60);
const REMOVE: Duration = Duration::from_secs(90);

/// The `docker` program.
pub(crate) struct Docker {
    program: PathBuf,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            program: PathBuf::from("docker"),
        }
    }
}

impl Docker {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }

    fn compose(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(&["compose", "--file"]);
        command.arg(file).args(arguments);
        command
    }

    /// Are both an engine and compose there?
    async fn check(&self) -> Result<(), DevDbError> {
        for arguments in [["info"].as_slice(), &["compose", "version"]] {
            let reason = match command::run(self.command(arguments), HELLO).await {
                Ok(finished) if finished.success() => continue,
                Ok(finished) => command::last_lines(&finished.complaint(), 1),
                Err(error) => error.to_string(),
            };
            return Err(DevDbError::DockerUnavailable { reason });
        }
        Ok(())
    }

    /// Starts the service `db` and waits until it is healthy. `marker` remembers for [`Docker::down`] that we did.
    pub(crate) async fn up(&self, config: &DevDbConfig, marker: &Path) -> Result<(), DevDbError> {
        let Some(file) = &config.compose_file else {
            return Err(DevDbError::DockerUnavailable {
                reason: "there is no compose file".to_owned(),
            });
        };
        self.check().await?;
        let file = file
            .canonicalize()
            .map_err(|error| DevDbError::DockerUnavailable {
                reason: format!("{}: {error}", file.display()),
            })?;
        // Before the container, so that it can be stopped whatever happens to us.
        fs::write(marker, file.as_os_str().as_encoded_bytes()).map_err(DevDbError::at(marker))?;
        tracing::info!("starting service db with docker compose");
        let mut up = self.compose(&file, &["up", "--detach", "--wait", "db"]);
        up.env("DB_PORT", config.port.to_string())
            .env("DB_USER", &config.user)
            .env("DB_PASSWORD", &config.password);
        let output = match command::run(up, PULL).await {
            Ok(finished) if finished.success() => return Ok(()),
            Ok(finished) => finished.complaint(),
            Err(error) => error.to_string(),
        };
        // Half a container would keep the port from whatever is tried next.
        let _ = self.down(marker).await;
        Err(DevDbError::Docker { output })
    }

    /// Removes the container that [`Docker::up`] started, if it did; its volume keeps the data.
    pub(crate) async fn down(&self, marker: &Path) -> Result<bool, DevDbError> {
        let Ok(file) = fs::read_to_string(marker) else {
            return Ok(false);
        };
        let remove = self.compose(Path::new(&file), &["rm", "--stop", "--force", "db"]);
        let finished = command::run(remove, REMOVE).await?;
        if !finished.success() {
            return Err(DevDbError::Docker {
                output: finished.complaint(),
            });
        }
        fs::remove_file(marker).map_err(DevDbError::at(marker))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Provider;
    use std::os::unix::fs::PermissionsExt;

    /// A `docker` that writes down what it is asked and fails at `fail`.
    fn fake(folder: &Path, fail: &str) -> (Docker, DevDbConfig) {
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
        (Docker { program }, config)
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
        assert!(!docker.down(&marker).await.unwrap());
        docker.up(&config, &marker).await.unwrap();
        assert!(docker.down(&marker).await.unwrap());
        assert!(!docker.down(&marker).await.unwrap());
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
        let error = docker.up(&config, &marker).await.unwrap_err();
        assert!(
            matches!(&error, DevDbError::Docker { output } if output == "no such thing"),
            "{error}"
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
            let error = docker.up(&config, &marker).await.unwrap_err();
            assert!(
                matches!(error, DevDbError::DockerUnavailable { .. }),
                "{error}"
            );
            assert!(!marker.exists() && !calls(folder.path()).contains("--wait"));
        }
    }
}
