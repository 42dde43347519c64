//! Room on the disk, where the cluster and temporary files go.

use std::path::Path;

use rustix::fs::statvfs;

use super::examination::Examination;
use super::finding::Finding;
use super::next::quoted;
use crate::settings::{nearest, unwritable};

/// Below this somebody should look; Postgres wants room for its log of changes.
const LITTLE: u64 = 1 << 30;

/// Below this the next write may be the one that fails.
const NOTHING: u64 = 200 << 20;

/// Looks at the data folder and the temporary folder.
pub(crate) fn check(exam: &Examination) -> impl FnOnce() -> Vec<Finding> + Send + use<> {
    let data = exam.devdb.data_dir.clone();
    move || {
        vec![
            folder("data folder", &data),
            folder("temp folder", &std::env::temp_dir()),
        ]
    }
}

fn folder(check: &'static str, path: &Path) -> Finding {
    let there = nearest(path);
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
    if let Some((there, error)) = unwritable(path) {
        let there = there.display();
        return match check {
            "data folder" => Finding::problem(
                check,
                format!(
                    "{what}, but {there} cannot be written to ({error}): db:up can keep no cluster there, and a \
                     service that keeps its artifacts there does not start"
                ),
                "export KODO_DATA_DIR=\"$(mktemp -d)\"".to_owned(),
            ),
            _ => Finding::warn(
                check,
                format!("{what}, but {there} cannot be written to ({error})"),
                Some(format!("ls -ld {}", quoted(&there.to_string()))),
            ),
        };
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
