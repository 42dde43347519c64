//! Finds what killed processes left in the data folder, for `kodo doctor`. Changes nothing: `up` removes what is in its way.

use std::fs;
use std::path::{Path, PathBuf};

use super::cluster::Cluster;
use super::places::Places;
use super::postmaster::Postmaster;

/// Something that no living process answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A `postmaster.pid` whose process is gone, or another program's by now.
    StalePid(PathBuf),
    /// A folder in a cluster's place where `initdb` did not come to its end.
    HalfMade(PathBuf),
    /// A folder that was put aside because it was no complete cluster. It may hold data.
    SetAside(PathBuf),
}

/// Looks for them below a data folder.
pub(crate) fn leftovers(data_dir: &Path) -> Vec<Leftover> {
    let Some(places) = Places::find(data_dir) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for cluster in Cluster::all(&places) {
        if !cluster.exists() {
            found.push(Leftover::HalfMade(cluster.folder));
        } else if cluster.postmaster() == Postmaster::Stale {
            found.push(Leftover::StalePid(cluster.folder.join("postmaster.pid")));
        }
    }
    for entry in places
        .cluster_folders()
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // `15.init-PID`: one whose process lives is being made right now.
        if let Some((_, pid)) = name.split_once(".init-") {
            if !Path::new("/proc").join(pid).exists() {
                found.push(Leftover::HalfMade(entry.path()));
            }
        } else if name.contains(".incomplete-") {
            found.push(Leftover::SetAside(entry.path()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_left_is_found_and_what_lives_is_not() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let pg = base.join("pg");
        let whole = pg.join("15");
        fs::create_dir_all(whole.join("global")).unwrap();
        fs::write(whole.join("PG_VERSION"), "15").unwrap();
        fs::write(whole.join("global/pg_control"), "").unwrap();
        assert_eq!(leftovers(&base), []);

        fs::write(
            whole.join("postmaster.pid"),
            format!("{}\nx\n0\n5\n", std::process::id()),
        )
        .unwrap();
        for name in ["18", "18.init-4194305", "15.incomplete-17"] {
            fs::create_dir(pg.join(name)).unwrap();
        }
        fs::create_dir(pg.join(format!("16.init-{}", std::process::id()))).unwrap();
        let mut found = leftovers(&base);
        found.sort_by_key(|leftover| format!("{leftover:?}"));
        assert_eq!(
            found,
            [
                Leftover::HalfMade(pg.join("18")),
                Leftover::HalfMade(pg.join("18.init-4194305")),
                Leftover::SetAside(pg.join("15.incomplete-17")),
                Leftover::StalePid(whole.join("postmaster.pid")),
            ]
        );
    }
}
