//! The operator's course, executed.
//!
//! `docs/course.md` is the only place where its commands are written. [`Course::parse`] takes the marked shell blocks out
//! of the page, [`run`] runs them in order in one shell on a [`Stage`] and compares what they print with what the page
//! says, and the [`Report`] names the line of the page where something does not hold. [`Marks`] says how blocks are
//! marked.

mod compare;
mod marks;
mod page;
mod process;
mod report;
mod run;
mod stage;

pub use marks::{DEFAULT_TIMEOUT, Kind, Marks, duration};
pub use page::{Block, Course, Section};
pub use report::{BlockReport, Failure, Outcome, Report, Skip, brief};
pub use run::{Event, run};
pub use stage::{COURSE, Stage, find_checkout};
