//! What a planner answers.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{Boundary, Schema, schema::boundary_schema};

/// How an intent is to be reached: the output of the planning step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// What the planner was asked.
    pub prompt: String,
    /// What is to be carried out, at most 256; each after the one before it, unless it says otherwise.
    pub tool_calls: Vec<ToolCall>,
    /// What the planner said, as it said it.
    pub responses: Vec<Value>,
    /// The changes that the planner proposes.
    pub diffs: Vec<Value>,
}

impl Boundary for Plan {
    const NAME: &'static str = "Plan";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/plan.json")
    }
}

/// One thing for a sandbox to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolCall {
    /// What later calls of the plan call it in their `deps`; 1 to 128 characters, unique in the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tool; 1 to 128 characters.
    pub name: String,
    /// What the tool is given.
    pub args: Map<String, Value>,
    /// The ids of the earlier calls that have to succeed before this one begins, and whose files it finds. None
    /// named, it depends on nothing and may begin at once; where the member is absent, it depends on the call
    /// before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deps: Option<Vec<String>>,
}

/// What makes no sense in the order of a plan. The text is in the validator's words, so that it can stand among its
/// violations.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanOrderError {
    /// Two calls have one id.
    #[error("data/toolCalls/{call}/id must be unique in the plan")]
    IdTwice {
        /// The index of the second one.
        call: usize,
    },
    /// A call depends on one that does not come before it.
    #[error("data/toolCalls/{call}/deps/{dep} must be the id of an earlier call of the plan")]
    NoEarlierCall {
        /// The index of the call.
        call: usize,
        /// The index in its `deps`.
        dep: usize,
    },
}

impl Plan {
    /// For each call the indexes of the calls that it depends on directly, in ascending order and without repeats.
    /// A call depends on earlier ones alone, so no circle can come of it.
    ///
    /// # Errors
    /// [`PlanOrderError`], the first one there is.
    pub fn dependencies(&self) -> Result<Vec<Vec<usize>>, PlanOrderError> {
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut all = Vec::with_capacity(self.tool_calls.len());
        for (call, tool_call) in self.tool_calls.iter().enumerate() {
            let mut on: Vec<usize> = match &tool_call.deps {
                None => call.checked_sub(1).into_iter().collect(),
                Some(deps) => deps
                    .iter()
                    .enumerate()
                    .map(|(dep, id)| known.get(id.as_str()).copied().ok_or(dep))
                    .collect::<Result<_, _>>()
                    .map_err(|dep| PlanOrderError::NoEarlierCall { call, dep })?,
            };
            on.sort_unstable();
            on.dedup();
            all.push(on);
            if let Some(id) = &tool_call.id
                && known.insert(id, call).is_some()
            {
                return Err(PlanOrderError::IdTwice { call });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, deps: Option<&[&str]>) -> ToolCall {
        ToolCall {
            id: (!id.is_empty()).then(|| id.to_owned()),
            deps: deps.map(|deps| deps.iter().map(|&it| it.to_owned()).collect()),
            ..ToolCall::default()
        }
    }

    fn dependencies(tool_calls: Vec<ToolCall>) -> Result<Vec<Vec<usize>>, PlanOrderError> {
        let plan = Plan {
            prompt: String::new(),
            tool_calls,
            responses: Vec::new(),
            diffs: Vec::new(),
        };
        plan.dependencies()
    }

    #[test]
    fn calls_that_say_nothing_go_one_after_the_other() {
        let calls = vec![call("", None), call("a", None), call("", None)];
        assert_eq!(
            dependencies(calls).unwrap(),
            [vec![], vec![0_usize], vec![1]]
        );
        assert!(dependencies(Vec::new()).unwrap().is_empty());
    }

    #[test]
    fn a_call_waits_for_what_it_names_and_for_nothing_else() {
        let calls = vec![
            call("a", Some(&[])),
            call("b", Some(&[])),
            call("", Some(&["b", "a", "b"])),
            call("c", Some(&["a"])),
            call("", None),
        ];
        let expected = [vec![], vec![], vec![0_usize, 1], vec![0], vec![3]];
        assert_eq!(dependencies(calls).unwrap(), expected);
    }

    #[test]
    fn a_call_depends_on_earlier_ones_alone() {
        let no_earlier = |call, dep| Err(PlanOrderError::NoEarlierCall { call, dep });
        assert_eq!(
            dependencies(vec![call("a", Some(&["b"])), call("b", None)]),
            no_earlier(0, 0)
        );
        assert_eq!(
            dependencies(vec![call("a", None), call("b", Some(&["a", "b"]))]),
            no_earlier(1, 1)
        );
        assert_eq!(
            dependencies(vec![call("a", None), call("a", None)]),
            Err(PlanOrderError::IdTwice { call: 1 })
        );
    }
}
