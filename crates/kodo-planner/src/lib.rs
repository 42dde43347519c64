//! OC: makes a plan of an intent.
//!
//! [`Planner`] is the port. [`ReplayPlanner`] answers from committed fixtures and never opens a socket; [`LivePlanner`]
//! asks a model by the OpenAI-compatible API, `OpenCodePlanner` (cargo feature `opencode`) through OpenCode;
//! [`RecordPlanner`] asks one of them and saves the answer as a fixture.

mod completion;
mod conversation;
mod dialect;
mod endpoint;
mod error;
mod extract;
mod failure;
mod fixture;
mod folder;
mod halves;
mod http_client;
mod live;
mod marks;
#[cfg(feature = "opencode")]
mod opencode;
mod opencode_target;
mod policy;
mod port;
mod prompt;
mod record;
mod refusal;
mod replay;
mod retry;
mod sanitize;
mod schema;
mod secret;
mod stream;
mod told;
mod tools;
mod unanswered;
mod wire;

pub use endpoint::{Endpoint, EndpointError};
pub use error::PlanError;
pub use failure::Failure;
pub use fixture::{DEFAULT_KEY, Fixture, Recorded, SCHEMA_VERSION, fixture_key};
pub use folder::{FixtureFolder, Saved};
pub use live::{LiveConfig, LivePlanner};
#[cfg(feature = "opencode")]
pub use opencode::{
    MODEL_PROXY_PORT, OpenCodeConfig, OpenCodeLauncher, OpenCodeMissing, OpenCodePlace,
    OpenCodePlanner, OpenCodeProcess, Start, Stream, UnjailedOpenCode, find_opencode,
};
pub use opencode_target::{OpenCodeUrl, TESTED_VERSION, VersionRule};
pub use policy::Policy;
pub use port::{LiveModel, PlanRequest, PlanSource, Planned, Planner};
pub use prompt::PROMPT_VERSION;
pub use record::{RecordPlanner, fresh};
pub use replay::ReplayPlanner;
pub use secret::Secret;
pub use tools::{AnyArguments, Tools};
