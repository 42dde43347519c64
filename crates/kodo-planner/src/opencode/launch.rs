//! What an OpenCode of our own is started with: arguments, environment, files. How it is confined is the launcher's part.

use std::fmt;
use std::io;
use std::path::Path;

use async_trait::async_trait;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Secret;

/// The model proxy's port in a network that OpenCode has for itself, where nothing else can have taken it.
pub const MODEL_PROXY_PORT: u16 = 4097;

/// The agent that makes plans. It may submit its answer, and nothing else.
pub(crate) const AGENT: &str = "kodo-planner";

/// The tool by which a model submits a structured answer to OpenCode. Denying every tool denies it as well.
pub(crate) const ANSWER_TOOL: &str = "StructuredOutput";

/// The name of the model's provider in OpenCode's configuration.
pub(crate) const PROVIDER: &str = "model-proxy";

/// The user name of OpenCode's API.
pub(crate) const USER: &str = "kodo";

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Starts `opencode serve`.
#[async_trait]
pub trait OpenCodeLauncher: Send + Sync + fmt::Debug {
    /// Starts one, in a home folder of its own that is removed with it.
    ///
    /// # Errors
    /// Why it could not be started as confined as it should be, and what to do about it.
    async fn launch(&self, start: Start) -> Result<Box<dyn OpenCodeProcess>, String>;
}

/// A running `opencode serve`. Dropping this ends it, and everything that it started.
#[async_trait]
pub trait OpenCodeProcess: Send + Sync + fmt::Debug {
    /// Opens a connection to its API.
    async fn connect(&self) -> io::Result<Box<dyn Stream>>;

    /// Accepts the next connection that it makes to the model proxy.
    async fn accept(&self) -> io::Result<Box<dyn Stream>>;

    /// Waits until it ends, and returns the reason as far as it is known.
    async fn ended(&self) -> String;
}

/// What `opencode serve` is started with.
#[derive(Clone)]
pub struct Start {
    pub(crate) model: String,
    pub(crate) max_tokens: u32,
    pub(crate) password: Secret,
    pub(crate) token: Secret,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Start {
    /// The arguments after the program's name. With port 0 it chooses a port, and prints it.
    #[must_use]
    pub fn arguments(&self, api_port: u16) -> Vec<String> {
        let port = api_port.to_string();
        [
            "serve",
            "--pure",
            "--hostname",
            "127.0.0.1",
            "--port",
            &port,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The whole environment, with nothing of the service's own. It switches off whatever looks beyond the home folder:
    /// other configurations, updates, downloads, sharing.
    #[must_use]
    pub fn environment(&self, home: &Path) -> Vec<(String, String)> {
        let home = home.display();
        let mut environment = vec![
            ("HOME".to_owned(), home.to_string()),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("XDG_CONFIG_HOME".to_owned(), format!("{home}/.config")),
            ("XDG_DATA_HOME".to_owned(), format!("{home}/.local/share")),
            ("XDG_CACHE_HOME".to_owned(), format!("{home}/.cache")),
            ("XDG_STATE_HOME".to_owned(), format!("{home}/.state")),
            (
                "OPENCODE_CONFIG".to_owned(),
                format!("{home}/opencode.json"),
            ),
            ("OPENCODE_SERVER_USERNAME".to_owned(), USER.to_owned()),
            (
                "OPENCODE_SERVER_PASSWORD".to_owned(),
                self.password.expose().to_owned(),
            ),
        ];
        for name in [
            "MODELS_FETCH",
            "AUTOUPDATE",
            "LSP_DOWNLOAD",
            "DEFAULT_PLUGINS",
            "SHARE",
            "PROJECT_CONFIG",
            "CLAUDE_CODE",
            "EXTERNAL_SKILLS",
            "EMBEDDED_WEB_UI",
        ] {
            environment.push((format!("OPENCODE_DISABLE_{name}"), "1".to_owned()));
        }
        environment
    }

    /// The files of the home folder: paths below it, and contents.
    #[must_use]
    pub fn files(&self, proxy_port: u16) -> Vec<(String, String)> {
        // OpenCode runs npm to install its plugin library into every fresh home, and has no switch against it. It
        // skips that if the library looks installed.
        let plugin = json!({"@opencode-ai/plugin": "*"});
        let lock = json!({
            "name": "opencode", "lockfileVersion": 3, "requires": true,
            "packages": {"": {"dependencies": plugin}},
        });
        [
            ("opencode.json", self.configuration(proxy_port)),
            (
                ".config/opencode/package.json",
                json!({"dependencies": plugin}).to_string(),
            ),
            (".config/opencode/package-lock.json", lock.to_string()),
            // A folder is created for the file in it.
            (".config/opencode/node_modules/.keep", String::new()),
        ]
        .map(|(name, content)| (name.to_owned(), content))
        .to_vec()
    }

    fn configuration(&self, proxy_port: u16) -> String {
        let permission = json!({"*": "deny", ANSWER_TOOL: "allow"});
        let model = format!("{PROVIDER}/{}", self.model);
        json!({
            "$schema": "https://opencode.ai/config.json",
            "model": model,
            "small_model": model,
            "enabled_providers": [PROVIDER],
            "autoupdate": false,
            "share": "disabled",
            "provider": {PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": PROVIDER,
                "options": {
                    "baseURL": format!("http://127.0.0.1:{proxy_port}/v1"),
                    "apiKey": self.token.expose(),
                },
                "models": {self.model.as_str(): {
                    "name": self.model,
                    "tool_call": true,
                    // Otherwise OpenCode leaves the agent's temperature out.
                    "temperature": true,
                    // More than any plan needs: OpenCode asks the model to summarise what does not fit.
                    "limit": {"context": 1_000_000, "output": self.max_tokens},
                }},
            }},
            "permission": permission,
            "agent": {AGENT: {
                "mode": "primary",
                "prompt": "You plan work.",
                "temperature": 0,
                "permission": permission,
            }},
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            model: "vendor/m".to_owned(),
            max_tokens: 7,
            password: Secret::new("pw-canary-0123456789"),
            token: Secret::new("token-canary-0123456789"),
        }
    }

    #[test]
    fn the_home_says_where_the_model_proxy_is_and_what_may_be_used() {
        let files = start().files(MODEL_PROXY_PORT);
        let configuration: serde_json::Value = serde_json::from_str(&files[0].1).unwrap();
        let provider = &configuration["provider"][PROVIDER];
        assert_eq!(provider["options"]["baseURL"], "http://127.0.0.1:4097/v1");
        assert_eq!(provider["models"]["vendor/m"]["limit"]["output"], 7);
        let permission = &configuration["agent"][AGENT]["permission"];
        assert_eq!(
            *permission,
            json!({"*": "deny", "StructuredOutput": "allow"})
        );
        assert!(files.iter().all(|(name, _)| !name.starts_with('/')));
    }

    #[test]
    fn the_secrets_of_a_start_are_in_no_debug_output() {
        let shown = format!("{:?}", start());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
