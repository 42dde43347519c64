//! The user that Postgres runs as: it refuses root, and `initdb` refuses a user without a name.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use tokio::process::Command;

use super::command;

/// Starting a small program takes milliseconds, on an overloaded machine seconds.
const QUICK: Duration = Duration::from_secs(20);

/// The user that the programs of Postgres see themselves as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// The caller: an ordinary user with a name.
    Caller,
    /// Somebody with a name inside a user namespace, the caller outside: files stay the caller's, so the cluster
    /// may live below a folder that only the caller can enter, such as root's home.
    Mapped(Ids),
    /// Really somebody else, where user namespaces are forbidden: data and binaries must be where that user can go.
    Other(Ids),
}

/// The numbers of a user and of its group.
type Ids = (u32, u32);

impl Identity {
    /// Finds one that Postgres accepts on this machine.
    ///
    /// # Errors
    /// If this process is root's and cannot change the user.
    pub(super) async fn detect() -> anyhow::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root && has_name().await {
            return Ok(Self::Caller);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if let Some(ids) = stand_in(&passwd) {
            for identity in [Self::Mapped(ids), Self::Other(ids)] {
                let works = command::run(identity.command(Path::new("true")), QUICK).await;
                if works.is_ok() {
                    return Ok(identity);
                }
            }
        }
        ensure!(
            !root,
            "Postgres refuses to run as root, and neither unshare nor setpriv can change the user here: run this as an \
             ordinary user, or set DB_HOST and DB_PORT to a server that runs"
        );
        Ok(Self::Caller)
    }

    /// `program` as this user. Messages in English; the working folder is /, because this user may not be able to enter ours.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Caller => Command::new(program),
            Self::Mapped((uid, gid)) => {
                let mut command = Command::new("unshare");
                command.args([
                    "--user",
                    &format!("--map-user={uid}"),
                    &format!("--map-group={gid}"),
                ]);
                command.arg(program);
                command
            }
            Self::Other((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.args([
                    &format!("--reuid={uid}"),
                    &format!("--regid={gid}"),
                    "--clear-groups",
                ]);
                command.arg(program);
                command
            }
        };
        command
            .env("LC_ALL", "C")
            .env_remove("PGDATA")
            .env_remove("PGOPTIONS")
            .current_dir("/");
        command
    }

    /// Gives `path`, which the caller made, to the user that Postgres runs as.
    pub(super) fn give(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Caller | Self::Mapped(_) => Ok(()),
            Self::Other((uid, gid)) => chown(path, Some(uid), Some(gid)),
        }
    }
}

/// Whether the system knows a name for the effective user. A container may run as a number without a name.
async fn has_name() -> bool {
    let mut id = Command::new("id");
    id.arg("-un");
    command::run(id, QUICK).await.is_ok()
}

/// A user with a name who is not root: nobody, if there is one.
fn stand_in(passwd: &str) -> Option<Ids> {
    let users = || {
        passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let ids = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
            (ids.0 != 0).then_some((fields[0], ids))
        })
    };
    users()
        .find(|(name, _)| *name == "nobody")
        .or_else(|| users().next())
        .map(|(_, ids)| ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_stands_in_for_root_else_the_first_ordinary_user() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nnobody:x:65534:65533::/:/bin/sh\n";
        assert_eq!(stand_in(passwd), Some((65534, 65533)));
        assert_eq!(stand_in(&passwd.replace("nobody", "x")), Some((1, 1)));
        assert_eq!(stand_in("root:x:0:0::/root:/bin/sh\nbroken\n"), None);
    }
}
