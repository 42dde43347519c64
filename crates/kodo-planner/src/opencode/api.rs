//! The calls of OpenCode's API that a plan needs.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kodo_contract::parse_json;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use crate::Secret;
use crate::http_client::cause;
use crate::sanitize::sanitized;

use super::launch::{AGENT, ANSWER_TOOL};
use super::link::Link;

/// How long a call may take, except a prompt: none of the others waits for a model.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of an answer that are read. OpenCode repeats the model's answer, which is bounded, and adds to it.
const MAX_BYTES: usize = 16 << 20;

/// A permission that is not a tool: it says where tools may reach. OpenCode adds one for its own folder.
const OUTSIDE: &str = "external_directory";

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ApiError {
    /// There is no connection, or it broke.
    #[error("OpenCode cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer within [`CALL_TIMEOUT`].
    #[error("OpenCode does not answer")]
    Timeout,
    /// It does not accept the password.
    #[error("OpenCode does not accept the password (HTTP 401)")]
    Unauthorized,
    /// It answered with a status other than success.
    #[error("OpenCode answered with HTTP {0}: {1}")]
    Status(u16, String),
    /// It answered something that is not understood.
    #[error("OpenCode's answer is not understood: {0}")]
    Invalid(String),
    /// The answer is longer than [`MAX_BYTES`].
    #[error("OpenCode's answer is longer than {MAX_BYTES} bytes, and was read no further")]
    TooLarge,
}

/// A prompt for the model.
pub(crate) struct Prompt<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) system: &'a str,
    pub(crate) text: &'a str,
    pub(crate) schema: Value,
}

/// OpenCode's API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    link: Link,
    authorization: Option<HeaderValue>,
}

impl Api {
    pub(crate) fn new(link: Link, user: &str, password: Option<&Secret>) -> Self {
        let authorization = password.map(|password| {
            let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
            // Every character of base64 is allowed in a header.
            let mut value = HeaderValue::try_from(format!("Basic {pair}"))
                .unwrap_or_else(|_| HeaderValue::from_static(""));
            value.set_sensitive(true);
            value
        });
        Self {
            link,
            authorization,
        }
    }

    /// Returns its version, if it says that it is healthy.
    pub(crate) async fn version(&self) -> Result<String, ApiError> {
        let health = self.short(Method::GET, "/global/health", None).await?;
        match (health["healthy"].as_bool(), health["version"].as_str()) {
            (Some(true), Some(version)) => Ok(sanitized(version, None)),
            _ => Err(ApiError::Invalid(
                "it does not say that it is healthy".to_owned(),
            )),
        }
    }

    /// Returns what the planning agent may do beyond submitting its answer, or `None` if there is no such agent.
    ///
    /// The last rule that matches counts, so rules before the last one that denies everything have no effect.
    pub(crate) async fn allowed_beyond_answering(&self) -> Result<Option<Vec<String>>, ApiError> {
        let agents = self.short(Method::GET, "/agent", None).await?;
        let agents = agents.as_array().into_iter().flatten();
        let mut named = agents.filter(|agent| agent["name"] == AGENT);
        let Some(agent) = named.next() else {
            return Ok(None);
        };
        let rules = agent["permission"].as_array().cloned().unwrap_or_default();
        let denies_all = |rule: &Value| {
            rule["permission"] == "*" && rule["pattern"] == "*" && rule["action"] == "deny"
        };
        let Some(last) = rules.iter().rposition(denies_all) else {
            return Ok(Some(vec!["*".to_owned()]));
        };
        let allowed = rules[last..].iter().filter(|rule| {
            let is_tool = rule["permission"] != ANSWER_TOOL && rule["permission"] != OUTSIDE;
            rule["action"] != "deny" && is_tool
        });
        Ok(Some(
            allowed
                .map(|rule| sanitized(rule["permission"].as_str().unwrap_or("?"), None))
                .collect(),
        ))
    }

    /// Creates a session and returns its id. Without a title OpenCode would ask the model for one.
    pub(crate) async fn create(&self) -> Result<String, ApiError> {
        let body = json!({"title": "plan", "agent": AGENT});
        let session = self.short(Method::POST, "/session", Some(body)).await?;
        let id = session["id"].as_str().unwrap_or_default();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if id.is_empty() || id.len() > 128 || !id.bytes().all(good) {
            return Err(ApiError::Invalid("a session without an id".to_owned()));
        }
        Ok(id.to_owned())
    }

    /// Sends a prompt and returns the message with the answer. The caller bounds the time.
    pub(crate) async fn prompt(
        &self,
        session: &str,
        prompt: &Prompt<'_>,
    ) -> Result<Value, ApiError> {
        let body = json!({
            "model": {"providerID": prompt.provider, "modelID": prompt.model},
            "agent": AGENT,
            "system": prompt.system,
            "format": {"type": "json_schema", "schema": prompt.schema},
            "parts": [{"type": "text", "text": prompt.text}],
        });
        self.call(
            Method::POST,
            &format!("/session/{session}/message"),
            Some(body),
        )
        .await
    }

    /// Aborts what the session is doing. A client that disconnects does not abort it.
    pub(crate) async fn abort(&self, session: &str) -> Result<(), ApiError> {
        self.short(Method::POST, &format!("/session/{session}/abort"), None)
            .await
            .map(drop)
    }

    /// Deletes the session.
    pub(crate) async fn delete(&self, session: &str) -> Result<(), ApiError> {
        self.short(Method::DELETE, &format!("/session/{session}"), None)
            .await
            .map(drop)
    }

    async fn short(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, ApiError> {
        timeout(CALL_TIMEOUT, self.call(method, path, body))
            .await
            .unwrap_or(Err(ApiError::Timeout))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, ApiError> {
        let request = self.link.request(method, path);
        let mut request = request.map_err(ApiError::Invalid)?;
        let headers = request.headers_mut();
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        let response = self.link.send(request).await.map_err(unreachable)?;
        let status = response.status();
        let bytes = read(response).await?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(ApiError::Unauthorized);
        }
        let value = parse_json(&bytes);
        if !status.is_success() {
            let said = value.unwrap_or_default();
            let message = said["data"]["message"].as_str().or(said["name"].as_str());
            let message = sanitized(message.unwrap_or("no reason"), None);
            return Err(ApiError::Status(status.as_u16(), message));
        }
        value.map_err(|error| ApiError::Invalid(sanitized(&error.to_string(), None)))
    }
}

fn unreachable(reason: String) -> ApiError {
    ApiError::Unreachable(sanitized(&reason, None))
}

async fn read(mut response: Response) -> Result<Vec<u8>, ApiError> {
    let mut whole = Vec::new();
    while let Some(bytes) = response
        .chunk()
        .await
        .map_err(|it| unreachable(cause(&it)))?
    {
        if whole.len() + bytes.len() > MAX_BYTES {
            return Err(ApiError::TooLarge);
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}
