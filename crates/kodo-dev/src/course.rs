//! The operator's course, executed.
//!
//! `docs/course.md` is the only place where its commands are written. It takes the marked shell blocks out of
//! the page, runs them in order in one shell, and compares what they print with what the page says they print. A
//! block that no longer holds is reported with its line in the page. How blocks are marked is told in [`Marks`].
//!
//! ```text
//! Course::parse ─► Course::select ─► run(…) on a Stage ─► Report
//! ```

mod compare;
mod error;
mod family;
mod group;
mod marks;
mod page;
mod parse;
mod report;
mod run;
mod shell;
mod stage;
mod terminal;

pub use error::{Complaint, CourseError};
pub use marks::{DEFAULT_TIMEOUT, Marks};
pub use page::{Block, Course, Expected, Kind, Section};
pub use report::{BlockReport, Failure, Outcome, Report, Skip, brief};
pub use run::{Event, Options, run};
pub use stage::{COURSE, Stage, find_checkout};
