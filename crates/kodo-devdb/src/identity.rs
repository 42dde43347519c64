//! Who Postgres runs as. It refuses root, and `initdb` refuses a user without a name.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::command;
use crate::error::DevDbError;

/// Starting a small program takes milliseconds; this is for a machine on its knees.
const QUICK: Duration = Duration::from_secs(20);

/// The user that the programs of Postgres see themselves as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The caller: an ordinary user with a name.
    Caller,
    /// Somebody with a name inside a user namespace, the caller outside: files stay the caller's, so the cluster
    /// may live below a folder that only the caller can enter, such as root's home.
    Mapped(Ids),
    /// Really somebody else, where user namespaces are forbidden: data and binaries must be where that user can go.
    Other(Ids),
}

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    uid: u32,
    gid: u32,
}

impl Identity {
    /// Finds one that Postgres accepts on this machine.
    pub(crate) async fn detect() -> Result<Self, DevDbError> {
        let root = rustix::process::geteuid().is_root();
        if !root && has_name().await {
            return Ok(Self::Caller);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let Some(ids) = stand_in(&passwd) else {
            return if root {
                Err(DevDbError::Root)
            } else {
                Ok(Self::Caller)
            };
        };
        for identity in [Self::Mapped(ids), Self::Other(ids)] {
            if command::succeeds(identity.command(Path::new("true")), QUICK).await {
                return Ok(identity);
            }
        }
        if root {
            Err(DevDbError::Root)
        } else {
            Ok(Self::Caller)
        }
    }

    /// `program` as this user. English messages, and no folder underfoot that this user may not enter.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Caller => Command::new(program),
            Self::Mapped(Ids { uid, gid }) => {
                let mut command = Command::new("unshare");
                command
                    .arg("--user")
                    .arg(format!("--map-user={uid}"))
                    .arg(format!("--map-group={gid}"))
                    .arg(program);
                command
            }
            Self::Other(Ids { uid, gid }) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={uid}"))
                    .arg(format!("--regid={gid}"))
                    .arg("--clear-groups")
                    .arg(program);
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
    pub(crate) fn give(self, path: &Path) -> Result<(), DevDbError> {
        match self {
            Self::Caller | Self::Mapped(_) => Ok(()),
            Self::Other(Ids { uid, gid }) => {
                chown(path, Some(uid), Some(gid)).map_err(DevDbError::at(path))
            }
        }
    }
}

/// Does the system know a name for the effective user? A container may run as a bare number.
async fn has_name() -> bool {
    let mut id = Command::new("id");
    id.arg("-un");
    match command::run(id, QUICK).await {
        Ok(finished) => finished.success(),
        // No `id` to ask: let initdb decide.
        Err(_) => true,
    }
}

/// A user with a name who is not root: nobody, if there is one.
fn stand_in(passwd: &str) -> Option<Ids> {
    let users = || {
        passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let ids = Ids {
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
            };
            (ids.uid != 0).then_some((fields[0], ids))
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
        assert_eq!(
            stand_in(passwd),
            Some(Ids {
                uid: 65534,
                gid: 65533
            })
        );
        assert_eq!(
            stand_in(&passwd.replace("nobody", "x")),
            Some(Ids { uid: 1, gid: 1 })
        );
        assert_eq!(stand_in("root:x:0:0::/root:/bin/sh\nbroken\n"), None);
    }
}
