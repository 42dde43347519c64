//! The request body that one server accepts: servers that all call themselves OpenAI-compatible differ in that.

use kodo_contract::{Boundary, Plan};
use serde_json::{Value, json};

/// The name of the one tool that a model may call.
const FUNCTION: &str = "submit_plan";

/// How the shape of the answer is requested, the most reliable form first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `response_format` with the plan's JSON Schema.
    JsonSchema,
    /// A tool that the model must call.
    ToolCall,
    /// Instructions in the prompt alone.
    Text,
}

impl Form {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::JsonSchema => "json_schema",
            Self::ToolCall => "tool_call",
            Self::Text => "text",
        }
    }

    /// The form to try if this one does not work.
    pub(crate) fn next(self) -> Option<Self> {
        match self {
            Self::JsonSchema => Some(Self::ToolCall),
            Self::ToolCall => Some(Self::Text),
            Self::Text => None,
        }
    }
}

/// What a server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) form: Form,
    /// Whether the token limit is called `max_completion_tokens`, as new OpenAI models want it, instead of `max_tokens`.
    completion_tokens: bool,
    temperature: bool,
    seed: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            form: Form::JsonSchema,
            completion_tokens: false,
            temperature: true,
            seed: true,
        }
    }
}

/// The parameters of a request, beside its messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters<'a> {
    pub(crate) model: &'a str,
    pub(crate) max_tokens: u32,
    pub(crate) seed: u64,
    pub(crate) stream: bool,
}

impl Dialect {
    /// The body of a request in this dialect.
    pub(crate) fn body(self, parameters: Parameters<'_>, messages: &[Value]) -> Value {
        let mut body =
            json!({"model": parameters.model, "messages": messages, "stream": parameters.stream});
        let limit = if self.completion_tokens {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        body[limit] = parameters.max_tokens.into();
        if self.temperature {
            body["temperature"] = 0.into();
        }
        // Servers read the seed as a signed number.
        if self.seed && i64::try_from(parameters.seed).is_ok() {
            body["seed"] = parameters.seed.into();
        }
        match self.form {
            Form::JsonSchema => {
                // Not strict: strict schemas cannot describe an object of free form, such as `args`. The answer is
                // validated here anyway.
                body["response_format"] = json!({
                    "type": "json_schema",
                    "json_schema": {"name": "plan", "strict": false, "schema": wire_schema()},
                });
            }
            Form::ToolCall => {
                body["tools"] = json!([{
                    "type": "function",
                    "function": {
                        "name": FUNCTION,
                        "description": "Hands the plan in.",
                        "parameters": wire_schema(),
                    },
                }]);
                body["tool_choice"] = json!({"type": "function", "function": {"name": FUNCTION}});
            }
            Form::Text => {}
        }
        body
    }

    /// Rewrites the parameters of a body that somebody else wrote. How it requests the answer's shape stays.
    #[cfg(feature = "opencode")]
    pub(crate) fn adapt(self, body: &mut Value, seed: u64) {
        let Some(members) = body.as_object_mut() else {
            return;
        };
        if self.completion_tokens
            && let Some(most) = members.remove("max_tokens")
        {
            members.insert("max_completion_tokens".to_owned(), most);
        }
        if !self.temperature {
            members.remove("temperature");
        }
        if self.seed && i64::try_from(seed).is_ok() {
            members.insert("seed".to_owned(), seed.into());
        }
    }

    /// The dialect to try after the server rejected a request (400 or 422); `None` if there is none left.
    pub(crate) fn after_rejection(self, parameter: &str, message: &str) -> Option<Self> {
        let names = |wanted: &str| {
            parameter == wanted
                || message
                    .split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
                    .any(|word| word == wanted)
        };
        if !self.completion_tokens && names("max_tokens") && names("max_completion_tokens") {
            return Some(Self {
                completion_tokens: true,
                ..self
            });
        }
        if self.temperature && names("temperature") {
            return Some(Self {
                temperature: false,
                ..self
            });
        }
        if self.seed && names("seed") {
            return Some(Self {
                seed: false,
                ..self
            });
        }
        self.with_next_form()
    }

    /// The same dialect with the next form.
    pub(crate) fn with_next_form(self) -> Option<Self> {
        self.form.next().map(|form| Self { form, ..self })
    }
}

/// The plan's schema as servers accept it: without the names of the document, and with the item type of each array,
/// which some servers require.
pub(crate) fn wire_schema() -> Value {
    let mut schema = Plan::schema().document().clone();
    if let Some(members) = schema.as_object_mut() {
        members.remove("$schema");
        members.remove("title");
        members.remove("description");
    }
    schema["properties"]["responses"]["items"] = json!({"type": "object"});
    schema["properties"]["diffs"]["items"] = json!({"type": "object"});
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(dialect: Dialect) -> Value {
        let parameters = Parameters {
            model: "m",
            max_tokens: 7,
            seed: 9,
            stream: false,
        };
        dialect.body(parameters, &[])
    }

    #[test]
    fn each_form_asks_for_the_plan_in_its_own_way() {
        let mut dialect = Dialect::default();
        let schema = body(dialect);
        assert_eq!(
            schema["response_format"]["json_schema"]["schema"]["required"][1],
            "toolCalls"
        );
        assert_eq!(
            (&schema["max_tokens"], &schema["seed"]),
            (&json!(7), &json!(9))
        );
        dialect = dialect.with_next_form().unwrap();
        let tool = body(dialect);
        assert_eq!(
            tool["tool_choice"]["function"]["name"],
            tool["tools"][0]["function"]["name"]
        );
        assert!(tool.get("response_format").is_none());
        dialect = dialect.with_next_form().unwrap();
        assert!(body(dialect).get("tools").is_none());
        assert_eq!(dialect.with_next_form(), None);
    }

    #[test]
    fn a_rejection_that_names_a_parameter_costs_that_parameter_and_not_the_form() {
        let dialect = Dialect::default();
        let openai = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        let adapted = dialect.after_rejection("max_tokens", openai).unwrap();
        assert_eq!(adapted.form, Form::JsonSchema);
        assert_eq!(body(adapted)["max_completion_tokens"], 7);
        assert!(body(adapted).get("max_tokens").is_none());
        let adapted = adapted
            .after_rejection("temperature", "Unsupported value")
            .unwrap();
        assert!(body(adapted).get("temperature").is_none());
        let adapted = adapted
            .after_rejection("", "property 'seed' is unsupported")
            .unwrap();
        assert!(body(adapted).get("seed").is_none());
        let adapted = adapted.after_rejection("", "exceeds").unwrap();
        assert_eq!(adapted.form, Form::ToolCall);
    }

    #[test]
    fn adapting_comes_to_an_end() {
        let mut dialect = Some(Dialect::default());
        let mut rounds = 0;
        while let Some(at) = dialect {
            dialect = at.after_rejection("", "max_tokens max_completion_tokens temperature seed");
            rounds += 1;
        }
        assert_eq!(rounds, 6);
    }
}
