//! OC: what turns an intent into a plan.
//!
//! [`Planner`] is the port. Its one provider so far is [`ReplayPlanner`], which answers from
//! committed fixtures and never opens a socket.

mod error;
mod fixture;
mod port;
mod replay;

pub use error::PlanError;
pub use fixture::{SCHEMA_VERSION, fixture_key};
pub use port::{PlanRequest, PlanSource, Planned, Planner};
pub use replay::ReplayPlanner;
