//! What keeps a course from being run at all. A block that does not hold is no error but a [`super::Failure`].

use std::path::PathBuf;

/// Why a course cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CourseError {
    /// The page has marks that mean nothing, or shell blocks without one: all of them, a line each.
    #[error("the course cannot be run as it is written:{0}")]
    Malformed(String),
    /// No heading begins like that.
    #[error("no section of the course begins with {name:?}; there are:{known}")]
    NoSection {
        /// What was asked for.
        name: String,
        /// The headings that there are, a line each.
        known: String,
    },
    /// There is no course above this folder.
    #[error("{} is not inside a checkout of the repository (no docs/course.md beside a bin/mise here or above): \
             the course runs the repository's own tasks, so clone it and run this there", .0.display())]
    NoCheckout(PathBuf),
    /// Something that the run itself needs: a shell, a temporary folder, free ports.
    #[error("running the course: {0}")]
    Io(#[from] std::io::Error),
}
