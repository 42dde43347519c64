//! The operator's course, executed.
//!
//! `docs/course.md` is the only place where its commands are written. [`Course::parse`] takes the marked shell blocks out
//! of the page, [`run`] runs them in order in one shell on a [`Stage`] and compares what they print with what the page
//! says, and the [`Report`] names the line of the page where something does not hold. [`Marks`] says how blocks are
//! marked.

mod compare;
mod page;
mod process;
mod report;
mod run;
mod stage;

pub use page::{Block, Course, DEFAULT_TIMEOUT, Kind, Marks, Section, duration};
pub use report::{BlockReport, Failure, Outcome, Report, Skip, brief};
pub use run::{Event, Options, run};
pub use stage::{COURSE, Stage, find_checkout};
