//! Room on the disk, where the cluster and temporary files go.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::Patient;
use super::finding::Finding;
use super::next::quoted;

/// Below this somebody should look; Postgres wants room for its log of changes.
const LITTLE: u64 = 1 << 30;

/// Below this the next write may be the one that fails.
const NOTHING: u64 = 200 << 20;

/// Looks at the data folder and the temporary folder.
pub(crate) fn check(patient: &Patient) -> impl FnOnce() -> Vec<Finding> + Send + use<> {
    let data = patient.devdb.data_dir.clone();
    move || {
        vec![
            folder("data folder", &data),
            folder("temp folder", &std::env::temp_dir()),
        ]
    }
}

fn folder(check: &'static str, path: &Path) -> Finding {
    // What does not exist yet will be made in what does.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there: PathBuf = absolute
        .ancestors()
        .find(|it| it.exists())
        .unwrap_or(Path::new("/"))
        .to_owned();
    let shown = path.display();
    let next = format!("df -h {}", quoted(&there.to_string_lossy()));
    let stat = match statvfs(&there) {
        Ok(stat) => stat,
        Err(error) => {
            return Finding::warn(
                check,
                format!("{shown} cannot be looked at: {error}"),
                Some(next),
            );
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let what = format!("{shown}: {:.1} GiB free", free as f64 / f64::from(1 << 30));
    if access(&there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::warn(
            check,
            format!(
                "{what}, but {} cannot be written to: db:up can keep no cluster there",
                there.display()
            ),
            Some(match check {
                "data folder" => "export KODO_DATA_DIR=\"$(mktemp -d)\"".to_owned(),
                _ => format!("ls -ld {}", quoted(&there.to_string_lossy())),
            }),
        );
    }
    if free < NOTHING {
        return Finding::problem(check, format!("{what}: the disk is full"), next);
    }
    // File systems without a fixed number of inodes say 0 of 0.
    if stat.f_files > 0 && stat.f_favail < 1000 {
        let left = stat.f_favail;
        return Finding::problem(
            check,
            format!("{what}, but only {left} inodes"),
            next.replace("-h", "-i"),
        );
    }
    if free < LITTLE {
        return Finding::warn(check, format!("{what}: that is little"), Some(next));
    }
    Finding::ok(check, what)
}
