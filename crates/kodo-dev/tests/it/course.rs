//! The page of the course, and what runs it.

mod page;
mod run;
