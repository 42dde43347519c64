//! Ids: newtypes that are checked once, where a text enters.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

/// The longest id a client may send, in bytes: far above any id of ours, and small enough to index.
pub const MAX_ID_BYTES: usize = 256;

/// What makes every id unique: the time to the millisecond, and randomness.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where ids get their time and randomness from"
)]
fn fresh() -> Uuid {
    Uuid::now_v7()
}

/// An id for a request that came without one. Like every other id, a later one sorts later.
#[must_use]
pub fn request_id() -> String {
    fresh().hyphenated().to_string()
}

/// An id for one execution of a run.
#[must_use]
pub fn execution_id() -> String {
    fresh().hyphenated().to_string()
}

/// Declares an id made of a prefix and a UUIDv7 as 32 lower-case hex digits.
///
/// UUIDv7 because ids must be unique across processes and restarts and sort by the time of their
/// making.
macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Makes a new id. Within one process, a later call gives an id that sorts later.
            #[must_use]
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "{}"), fresh().simple()))
            }

            /// Reads an id; `None` unless it is exactly the prefix and 32 lower-case hex digits.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let hex = text.strip_prefix($prefix)?;
                let lower_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                (hex.len() == 32 && hex.bytes().all(lower_hex)).then(|| Self(text.to_owned()))
            }
        }

        text_id!($name, concat!("an id like ", $prefix, "<32 lower-case hex digits>"));
    };
}

/// The parts that every id has in common; `$name` has a `parse` and wraps a `String`.
macro_rules! text_id {
    ($name:ident, $expected:expr) => {
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as owned text.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text)
                    .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &$expected))
            }
        }
    };
}

prefixed_id! {
    /// The id of an intent: `it_` and 32 hex digits.
    IntentId, "it_"
}

prefixed_id! {
    /// The id of a run: `run_` and 32 hex digits.
    RunId, "run_"
}

impl RunId {
    /// The id of the workflow that carries this run out.
    ///
    /// The same text, so that an operator copies one id between the API, the tables and the engine.
    #[must_use]
    pub fn workflow_id(&self) -> WorkflowId {
        WorkflowId(self.0.clone())
    }
}

/// The id of a workflow in the engine: any text that Postgres can store, of 1 to [`MAX_ID_BYTES`]
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct WorkflowId(String);

impl WorkflowId {
    /// Reads an id; `None` if it is empty, longer than [`MAX_ID_BYTES`], or holds a NUL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let storable = (1..=MAX_ID_BYTES).contains(&text.len()) && !text.contains('\0');
        storable.then(|| Self(text.to_owned()))
    }
}

text_id!(WorkflowId, "a workflow id of 1 to 256 bytes without U+0000");

/// What content is called everywhere: its sha256, as 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(crate::sha256_hex(bytes))
    }

    /// The hash that a hasher has made.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(crate::canonical::hex(&digest))
    }

    /// Reads a hash; `None` unless it is exactly 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 64 && text.bytes().all(lower_hex)).then(|| Self(text.to_owned()))
    }
}

text_id!(ContentHash, "a sha256 of 64 lower-case hex digits");

/// The id of a step within its run.
///
/// The ids that we make sort as the steps were planned: `plan` before `tool-001` before `tool-002`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StepId(String);

impl StepId {
    /// The step that asks the planner.
    #[must_use]
    pub fn plan() -> Self {
        Self("plan".to_owned())
    }

    /// The step that carries out the plan's tool call of this zero-based index: `tool-001` for the
    /// first.
    ///
    /// Three digits sort right up to 999, and a plan holds at most 256 calls.
    #[must_use]
    pub fn tool(index: usize) -> Self {
        Self(format!("tool-{:03}", index.saturating_add(1)))
    }

    /// Reads an id; `None` unless it is 1 to [`MAX_ID_BYTES`] visible ASCII characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        ((1..=MAX_ID_BYTES).contains(&text.len()) && visible).then(|| Self(text.to_owned()))
    }
}

text_id!(StepId, "a step id of 1 to 256 visible ASCII characters");

/// For ids that come back from our own database, which only ever held ids.
impl From<String> for StepId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_parse_and_sort_by_the_time_of_their_making() {
        let ids: Vec<RunId> = (0..1000).map(|_| RunId::generate()).collect();
        assert!(ids.is_sorted());
        for id in &ids {
            assert_eq!(RunId::parse(id.as_str()).as_ref(), Some(id));
            assert_eq!(id.as_str().as_bytes()[16], b'7', "version digit of {id}");
        }
        assert!(IntentId::parse(IntentId::generate().as_str()).is_some());
    }

    #[test]
    fn only_the_prefix_and_32_lower_case_hex_digits_are_an_id() {
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(IntentId::parse(&format!("it_{hex}")).is_some());
        for wrong in [
            String::new(),
            hex.to_owned(),
            format!("run_{hex}"),
            format!("it_{}", hex.to_uppercase()),
            format!("it_{hex}0"),
            format!("it_{}", &hex[1..]),
            format!("it_{}g", &hex[1..]),
            format!(" it_{hex}"),
            format!("it_{}é", &hex[2..]),
        ] {
            assert_eq!(IntentId::parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_run_and_its_workflow_share_one_text() {
        let run = RunId::generate();
        assert_eq!(run.workflow_id().as_str(), run.as_str());
    }

    #[test]
    fn a_workflow_id_has_1_to_256_bytes_and_no_nul() {
        assert!(WorkflowId::parse("x").is_some());
        assert!(WorkflowId::parse(&"x".repeat(256)).is_some());
        assert_eq!(WorkflowId::parse(""), None);
        assert_eq!(WorkflowId::parse(&"x".repeat(257)), None);
        assert_eq!(
            WorkflowId::parse(&"é".repeat(129)),
            None,
            "bytes count, not characters"
        );
        assert_eq!(WorkflowId::parse("a\0b"), None);
    }

    #[test]
    fn step_ids_sort_in_the_order_of_the_plan() {
        let steps: Vec<StepId> = std::iter::once(StepId::plan())
            .chain((0..256).map(StepId::tool))
            .collect();
        assert!(steps.is_sorted());
        assert_eq!(steps[1].as_str(), "tool-001");
        assert_eq!(steps[256].as_str(), "tool-256");
    }

    #[test]
    fn ids_are_plain_strings_in_json_and_are_checked_when_read() {
        let id = IntentId::generate();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<IntentId>(&json).unwrap(), id);
        let error = serde_json::from_str::<IntentId>("\"it_1\"").unwrap_err();
        assert!(error.to_string().contains("it_<32"), "{error}");
    }
}
