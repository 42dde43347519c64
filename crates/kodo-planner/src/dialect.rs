//! The request body that one server accepts: servers that all call themselves OpenAI-compatible differ in that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::refusal::Refusal;

/// The name of the one tool that a model may call.
pub(crate) const FUNCTION: &str = "submit_plan";

/// How long what was learned of a server counts. Servers are upgraded, and gateways lead to other ones.
const FOR_A_WHILE: Duration = Duration::from_secs(600);

/// How the shape of the answer is requested, the most reliable form first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `response_format` with the plan's JSON Schema.
    JsonSchema,
    /// A tool, and the model must call one.
    ToolCall,
    /// A tool, and the model must call that one by name. Some servers know only this, others drop it.
    NamedTool,
    /// Instructions in the prompt alone.
    Text,
}

impl Form {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::JsonSchema => "json_schema",
            Self::ToolCall | Self::NamedTool => "tool_call",
            Self::Text => "text",
        }
    }

    /// The form to try if this one does not work.
    pub(crate) fn next(self) -> Option<Self> {
        match self {
            Self::JsonSchema => Some(Self::ToolCall),
            Self::ToolCall => Some(Self::NamedTool),
            Self::NamedTool => Some(Self::Text),
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
    /// Whether a tool is sent with `strict`.
    strict: bool,
    /// Whether there is a message of role `system`. Otherwise the user's message begins with its text.
    system: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            form: Form::JsonSchema,
            completion_tokens: false,
            temperature: true,
            seed: true,
            strict: true,
            system: true,
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
    /// The schema of the plan.
    pub(crate) schema: &'a Value,
}

impl Dialect {
    /// Its name in idempotency keys: another dialect makes another request.
    pub(crate) fn name(self) -> String {
        let mut name = match self.form {
            Form::NamedTool => "named_tool".to_owned(),
            form => form.as_str().to_owned(),
        };
        for (differs, what) in [
            (self.completion_tokens, "-max_tokens"),
            (!self.temperature, "-temperature"),
            (!self.seed, "-seed"),
            (!self.strict, "-strict"),
            (!self.system, "-system"),
        ] {
            if differs {
                name.push_str(what);
            }
        }
        name
    }

    /// The body of a request in this dialect.
    pub(crate) fn body(self, parameters: Parameters<'_>, messages: &[Value]) -> Value {
        let mut messages = messages.to_vec();
        if !self.system {
            without_system(&mut messages);
        }
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
                // Not strict: OpenAI's strict schemas cannot describe an object of free form. Servers that hold a model to
                // a schema do so all the same, and the answer is validated here anyway.
                body["response_format"] = json!({
                    "type": "json_schema",
                    "json_schema": {"name": "plan", "strict": false, "schema": parameters.schema},
                });
            }
            Form::ToolCall | Form::NamedTool => {
                let mut function = json!({
                    "name": FUNCTION,
                    "description": "Hands the plan in.",
                    "parameters": parameters.schema,
                });
                if self.strict {
                    function["strict"] = true.into();
                }
                body["tools"] = json!([{"type": "function", "function": function}]);
                body["tool_choice"] = match self.form {
                    Form::NamedTool => json!({"type": "function", "function": {"name": FUNCTION}}),
                    _ => "required".into(),
                };
            }
            Form::Text => {}
        }
        body
    }

    /// Rewrites the parameters of a body that somebody else wrote. How it requests the answer's shape stays.
    #[cfg(feature = "opencode")]
    pub(crate) fn adapt(self, body: &mut Value, seed: u64) {
        if !self.system
            && let Some(messages) = body["messages"].as_array_mut()
        {
            without_system(messages);
        }
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

    /// The dialect to try after the server refused a request; `None` if there is none left, or if what it says is not
    /// about that.
    ///
    /// A rejection that says nothing may be about the form. A failure (500) is, if it says so.
    pub(crate) fn after(self, refusal: &Refusal) -> Option<Self> {
        let rejected = refusal.rejects_request();
        // A gateway that finds no provider for a form says that it found nothing.
        if !rejected && ![404, 500].contains(&refusal.status.as_u16()) {
            return None;
        }
        let said = format!("{} {} {}", refusal.parameter, refusal.code, refusal.message)
            .to_ascii_lowercase();
        let names = |wanted: &str| {
            let mut words = said.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
            words.any(|word| word == wanted)
        };
        let unsupported = ["unsupported", "not supported", "not permitted", "extra"]
            .iter()
            .any(|it| said.contains(it));
        if !self.completion_tokens
            && names("max_tokens")
            && (names("max_completion_tokens") || unsupported)
        {
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
        let with_tool = matches!(self.form, Form::ToolCall | Form::NamedTool);
        if self.strict
            && with_tool
            && (names("strict") || names("additionalproperties") || said.contains("invalid schema"))
        {
            return Some(Self {
                strict: false,
                ..self
            });
        }
        if self.system && is_about_the_system_message(&said) {
            return Some(Self {
                system: false,
                ..self
            });
        }
        let words = match refusal.status.as_u16() {
            404 => &[
                "response_format",
                "json_schema",
                "tool_choice",
                "tools",
                "tool",
                "parameters",
            ],
            _ => FORM_WORDS,
        };
        let about_form = words.iter().any(|word| names(word));
        match rejected || about_form {
            true => self.with_next_form(),
            false => None,
        }
    }

    /// The same dialect with the next form.
    pub(crate) fn with_next_form(self) -> Option<Self> {
        self.form.next().map(|form| self.with_form(form))
    }

    /// The same dialect with another form.
    pub(crate) fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }
}

/// Words of errors that are about how the answer's shape was requested.
const FORM_WORDS: &[&str] = &[
    "response_format",
    "json_schema",
    "json_object",
    "schema",
    "grammar",
    "guided",
    "guided_json",
    "structured",
    "structured_outputs",
    "tool_choice",
    "tools",
    "tool",
    "function",
    "functions",
];

/// Whether an error, in lower case, is about a message of role `system`, as chat templates word it.
fn is_about_the_system_message(said: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|it| said.contains(it));
    has(&[
        "only user and assistant",
        "roles must alternate",
        "developer instruction",
        "user' or 'assistant",
    ]) || has(&["system"])
        && has(&["role", "message", "instruction", "prompt"])
        && has(&[
            "support",
            "allowed",
            "enabled",
            "invalid",
            "unknown",
            "unexpected",
            "permitted",
            "must",
            "cannot",
        ])
}

/// Puts the text of messages of role `system` before that of the first other one.
fn without_system(messages: &mut Vec<Value>) {
    let of_system = |message: &Value| message["role"] == "system" || message["role"] == "developer";
    let mut system = String::new();
    messages.retain(|message| {
        let keep = !of_system(message);
        if !keep {
            let parts = message["content"].as_array().into_iter().flatten();
            system.extend(message["content"].as_str());
            system.extend(parts.filter_map(|part| part["text"].as_str()));
            system.push_str("\n\n");
        }
        keep
    });
    if system.is_empty() {
        return;
    }
    match messages
        .first_mut()
        .filter(|message| message["role"] == "user")
    {
        Some(user) => match &mut user["content"] {
            Value::Array(parts) => parts.insert(0, json!({"type": "text", "text": system})),
            content => {
                *content = format!("{system}{}", content.as_str().unwrap_or_default()).into()
            }
        },
        None => messages.insert(0, json!({"role": "user", "content": system.trim_end()})),
    }
}

/// What is known of a server's dialect, for a while.
#[derive(Debug, Default)]
pub(crate) struct Learned(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<(Dialect, Instant)>,
    /// What would have been learned from failures that say nothing, if they had come twice.
    suspected: Option<Dialect>,
}

impl Learned {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dialect to begin with.
    pub(crate) fn dialect(&self) -> Dialect {
        let mut state = self.state();
        state
            .known
            .take_if(|(_, since)| since.elapsed() >= FOR_A_WHILE);
        state.known.map(|(dialect, _)| dialect).unwrap_or_default()
    }

    /// Remembers the dialect in which an answer came, as far as the server's own words led to it. What was known already
    /// is not known for longer by that.
    pub(crate) fn learn(&self, dialect: Dialect) {
        let mut state = self.state();
        state.suspected = None;
        if state.known.is_none_or(|(known, _)| known != dialect) {
            state.known = (dialect != Dialect::default()).then(|| (dialect, Instant::now()));
        }
    }

    /// Remembers the dialect in which an answer came after the server had failed in better ones without a word about the
    /// cause. It is learned when that happens again.
    pub(crate) fn suspect(&self, dialect: Dialect) {
        if self.state().suspected == Some(dialect) {
            return self.learn(dialect);
        }
        self.state().suspected = Some(dialect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    fn body(dialect: Dialect) -> Value {
        let parameters = Parameters {
            model: "m",
            max_tokens: 7,
            seed: 9,
            stream: false,
            schema: &json!({"required": ["prompt"]}),
        };
        let messages = [
            json!({"role": "system", "content": "S"}),
            json!({"role": "user", "content": "U"}),
        ];
        dialect.body(parameters, &messages)
    }

    fn refused(status: u16, parameter: &str, message: &str) -> Refusal {
        let body = json!({"error": {"message": message, "param": parameter}}).to_string();
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::read(status, &HeaderMap::new(), body.as_bytes(), None)
    }

    fn rejected(dialect: Dialect, parameter: &str, message: &str) -> Option<Dialect> {
        dialect.after(&refused(400, parameter, message))
    }

    #[test]
    fn each_form_asks_for_the_plan_in_its_own_way() {
        let mut dialect = Dialect::default();
        let schema = body(dialect);
        assert_eq!(
            schema["response_format"]["json_schema"]["schema"]["required"][0],
            "prompt"
        );
        assert_eq!(
            (&schema["max_tokens"], &schema["seed"]),
            (&json!(7), &json!(9))
        );
        dialect = dialect.with_next_form().unwrap();
        let tool = body(dialect);
        assert_eq!(tool["tool_choice"], "required");
        assert_eq!(tool["tools"][0]["function"]["strict"], true);
        assert!(tool.get("response_format").is_none());
        dialect = dialect.with_next_form().unwrap();
        let named = body(dialect);
        assert_eq!(
            named["tool_choice"]["function"]["name"],
            named["tools"][0]["function"]["name"]
        );
        dialect = dialect.with_next_form().unwrap();
        assert!(body(dialect).get("tools").is_none());
        assert_eq!(dialect.with_next_form(), None);
    }

    #[test]
    fn a_rejection_that_names_a_parameter_costs_that_parameter_and_not_the_form() {
        let dialect = Dialect::default();
        let openai = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        let adapted = rejected(dialect, "max_tokens", openai).unwrap();
        assert_eq!(adapted.form, Form::JsonSchema);
        assert_eq!(body(adapted)["max_completion_tokens"], 7);
        assert!(body(adapted).get("max_tokens").is_none());
        let adapted = rejected(adapted, "temperature", "Unsupported value").unwrap();
        assert!(body(adapted).get("temperature").is_none());
        let adapted = rejected(adapted, "", "property 'seed' is unsupported").unwrap();
        assert!(body(adapted).get("seed").is_none());
        let adapted = rejected(adapted, "", "exceeds").unwrap();
        assert_eq!(adapted.form, Form::ToolCall);
        let adapted = rejected(
            adapted,
            "tools[0].function.parameters",
            "Invalid schema for function: 'additionalProperties' is required",
        )
        .unwrap();
        assert_eq!(adapted.form, Form::ToolCall);
        assert!(
            body(adapted)["tools"][0]["function"]
                .get("strict")
                .is_none()
        );
    }

    #[test]
    fn a_server_without_a_system_role_gets_its_text_in_the_users_message() {
        for (status, message) in [
            (400, "System role not supported"),
            (500, "Jinja Exception: System role not supported at row 1"),
            (400, "Only user and assistant roles are supported!"),
            (
                400,
                "Conversation roles must alternate user/assistant/user/assistant/...",
            ),
            (
                400,
                "Developer instruction is not enabled for models/gemma-3-27b-it",
            ),
            (
                400,
                "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            ),
        ] {
            let adapted = Dialect::default()
                .after(&refused(status, "", message))
                .unwrap();
            assert_eq!(adapted.form, Form::JsonSchema, "{message}");
            let messages = &body(adapted)["messages"];
            assert_eq!(*messages, json!([{"role": "user", "content": "S\n\nU"}]));
        }
        let mut parts = vec![
            json!({"role": "system", "content": [{"type": "text", "text": "S"}]}),
            json!({"role": "user", "content": [{"type": "text", "text": "U"}]}),
        ];
        without_system(&mut parts);
        assert_eq!(parts[0]["content"][0]["text"], "S\n\n");
    }

    #[test]
    fn the_form_is_given_up_for_what_is_said_of_it_alone() {
        let form = |status, message: &str| {
            let next = Dialect::default().after(&refused(status, "", message));
            next.map(|it| it.form)
        };
        assert_eq!(form(400, "Bad Request"), Some(Form::ToolCall));
        assert_eq!(
            form(422, "response_format: extra fields"),
            Some(Form::ToolCall)
        );
        assert_eq!(
            form(500, "response_format.type: literal_error"),
            Some(Form::ToolCall)
        );
        assert_eq!(form(500, "out of memory"), None);
        assert_eq!(form(503, "response_format"), None);
        let gateway = "No endpoints found that support tool use";
        assert_eq!(form(404, gateway), Some(Form::ToolCall));
        assert_eq!(form(404, "The model m does not exist"), None);
        assert_eq!(
            form(400, "the request exceeds the available context size"),
            None
        );
    }

    #[test]
    fn adapting_comes_to_an_end() {
        let mut dialect = Some(Dialect::default());
        let mut rounds = 0;
        while let Some(at) = dialect {
            let all = "max_tokens max_completion_tokens temperature seed strict, system role not supported";
            dialect = rejected(at, "", all);
            rounds += 1;
        }
        assert_eq!(rounds, 9);
    }

    #[test]
    fn what_may_have_been_chance_is_learned_when_it_comes_again() {
        let learned = Learned::default();
        let other = Dialect::default().with_next_form().unwrap();
        learned.suspect(other);
        assert_eq!(learned.dialect(), Dialect::default());
        learned.learn(Dialect::default());
        learned.suspect(other);
        assert_eq!(learned.dialect(), Dialect::default());
        learned.suspect(other);
        assert_eq!(learned.dialect(), other);
        // And forgotten after a while.
        let long_ago = Instant::now().checked_sub(FOR_A_WHILE);
        if let (Some(long_ago), Some((_, since))) = (long_ago, &mut learned.state().known) {
            *since = long_ago;
        }
        assert_eq!(learned.dialect(), Dialect::default());
    }
}
