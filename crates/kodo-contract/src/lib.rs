//! What crosses a boundary of Sisu Kodo: the types, their JSON Schemas, and the one validator, which is used at
//! ingress, at load from the database, before a step is recorded, and at egress. Beside them what all crates agree on:
//! ids, error codes ([`ErrorCode`]) and the run's state machine ([`RunStatus`]).
//!
//! No I/O happens here. A value enters with [`parse_json`] and [`decode`], and leaves with [`encode`]; what is not
//! valid is refused with [`Invalid`], whose violations read exactly as Ajv 8 would report them, up to
//! [`MAX_VIOLATIONS`].

mod artifact;
mod boundary;
mod canonical;
mod clock;
mod code;
mod decimal;
mod ids;
mod intent;
mod invalid;
mod json;
mod loopback;
mod merge;
mod node;
mod plan;
mod schema;
mod shorten;
mod size;
mod snapshot;
mod status;
mod storable;
mod timestamp;
mod tool;
mod tree;
mod tree_fault;
mod tree_path;
mod view;
mod wording;

pub use artifact::{ArtifactEntry, ArtifactList, StoredContent};
pub use boundary::{Boundary, decode, encode};
pub use canonical::{canonical_json, sha256_hex};
pub use clock::{Stopwatch, now};
pub use code::{ErrorCode, RetryClass};
pub use ids::{
    ContentHash, IntentId, MAX_ID_BYTES, RunId, StepId, WorkflowId, execution_id, request_id,
};
pub use intent::{Intent, RunRequest};
pub use invalid::{Invalid, MAX_VIOLATIONS, Violation};
pub use json::{
    JsonError, MAX_DEPTH, MAX_STORED_DEPTH, parse_json, parse_stored_json, read_json, repeated_key,
};
pub use loopback::is_loopback;
pub use merge::{Branch, Conflict, merge};
pub use node::{Node, NodeKind};
pub use plan::{Plan, PlanOrderError, ToolCall};
pub use schema::Schema;
pub use size::json_size;
pub use snapshot::{At, Kept, Object, Snapshot, SnapshotRef, Writer};
pub use status::{Phase, RunStatus, Transition, UnknownName};
pub use storable::{MAX_NUMBER_BYTES, check_storable};
pub use timestamp::Timestamp;
pub use tool::{ToolFile, ToolResult};
pub use tree::Tree;
pub use tree_fault::{MAX_TREE_NAMES, TreeBounds, TreeFault};
pub use tree_path::{MAX_TREE_DEPTH, MAX_TREE_PATH, TreePath};
pub use view::{ArtifactRef, MAX_VIEW_BYTES, RunError, RunView, StepView, StoredOutput};
