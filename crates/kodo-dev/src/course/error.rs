//! What keeps a course from being run at all. A block that does not hold is no error but a [`Failure`](crate::course::Failure).

use std::fmt;
use std::path::PathBuf;

/// Something in the page that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Line of the page, counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// Why a course cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CourseError {
    /// The page has marks that mean nothing, or shell blocks without one. All of them at once.
    #[error("the course cannot be run as it is written:{}", list(.0))]
    Malformed(Vec<Complaint>),
    /// No heading begins like that.
    #[error("no section of the course begins with {name:?}; there are:{}", list(.known))]
    NoSection {
        /// What was asked for.
        name: String,
        /// The headings that there are.
        known: Vec<String>,
    },
    /// There is no course above this folder.
    #[error("{} is not inside a checkout of the repository (no docs/course.md beside a bin/mise here or above): \
             the course runs the repository's own tasks, so clone it and run this there", .0.display())]
    NoCheckout(PathBuf),
    /// Something that the run itself needs.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it did not work.
        source: std::io::Error,
    },
}

impl CourseError {
    /// For `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}
