//! The usual proxy variables: what goes through a proxy, and what never does.
//!
//! A process's environment is read once, so each case is this test program again with another environment.

// A test says that something cannot fail by failing. The environment is what this is about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use kodo_contract::{Intent, decode};
use kodo_planner::{Endpoint, LiveConfig, LivePlanner, PlanRequest, Planner, Policy};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

/// What the process that asks is told to ask.
const BASE: &str = "PROXY_TEST_BASE_URL";

/// An HTTP server that answers every request with a plan. Returns its port, and once asked, the first line and
/// whether there were credentials for a proxy.
async fn server() -> (u16, tokio::task::JoinHandle<(String, bool)>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(stream.read_until(b'\n', &mut head).await.unwrap() > 0);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = header("content-length: ").map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let plan = json!({"prompt": "p", "toolCalls": [], "responses": [], "diffs": []});
        let choice = json!({"message": {"content": plan.to_string()}, "finish_reason": "stop"});
        let body = json!({"choices": [choice]}).to_string();
        let (status, body) = match head.starts_with("connect") {
            true => ("502 Bad Gateway", ""),
            false => ("200 OK", body.as_str()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let credentials = header("proxy-authorization: ") == Some("basic bwu6chc=");
        (head.lines().next().unwrap().to_owned(), credentials)
    });
    (port, asked)
}

/// Asks for a plan at `base`, in a process with these variables. Returns what that process printed.
async fn ask(base: &str, variables: &[(&str, String)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "the_process_that_asks",
            "--ignored",
            "--nocapture",
        ])
        .env_clear()
        .env(BASE, base)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test]
#[ignore = "the other tests run it, with an environment of their own"]
async fn the_process_that_asks() {
    let base = std::env::var(BASE).unwrap();
    let planner = LivePlanner::new(LiveConfig {
        endpoint: Endpoint::parse(&base, true).unwrap(),
        model: "m".to_owned(),
        secret: None,
        deadline: Duration::from_secs(20),
        max_tokens: 1000,
        stream: false,
        first_pause: Duration::from_millis(5),
        policy: Policy {
            allowed_tools: Vec::new(),
            allowed_connectors: Vec::new(),
            max_steps: 4,
            max_bytes: 10_000,
            tools: std::sync::Arc::new(kodo_planner::AnyArguments),
        },
    });
    let intent: Intent = decode(&json!({"goal": "g", "inputs": {}, "constraints": {}})).unwrap();
    let request = PlanRequest {
        intent: &intent,
        seed: 7,
        idempotency_key: "run_1/plan",
    };
    match planner.plan(&request).await {
        Ok(_) => println!("outcome: a plan"),
        Err(error) => println!("outcome: {}", error.code()),
    }
}

#[tokio::test]
async fn another_machine_is_asked_by_the_proxy_that_the_environment_names() {
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let (port, asked) = server().await;
        let proxy = format!("http://me:pw@127.0.0.1:{port}");
        let outcome = ask("http://model.invalid", &[(name, proxy)]).await;
        assert!(outcome.contains("outcome: a plan"), "{outcome}");
        let expected = "post http://model.invalid/v1/chat/completions http/1.1";
        assert_eq!(asked.await.unwrap(), (expected.to_owned(), true), "{name}");
    }
}

#[tokio::test]
async fn https_goes_through_a_tunnel_of_the_proxy() {
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let (port, asked) = server().await;
        let proxy = format!("http://127.0.0.1:{port}");
        let outcome = ask("https://model.invalid", &[(name, proxy)]).await;
        assert!(outcome.contains("planner_unreachable"), "{outcome}");
        let expected = "connect model.invalid:443 http/1.1";
        assert_eq!(asked.await.unwrap(), (expected.to_owned(), false), "{name}");
    }
}

#[tokio::test]
async fn loopback_and_what_no_proxy_names_are_asked_without_a_proxy() {
    let unused = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    unused.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", unused.local_addr().unwrap());
    for host in ["127.0.0.1", "localhost"] {
        let (port, asked) = server().await;
        let base = format!("http://{host}:{port}");
        let outcome = ask(&base, &[("ALL_PROXY", proxy.clone())]).await;
        assert!(outcome.contains("outcome: a plan"), "{outcome}");
        let expected = "post /v1/chat/completions http/1.1";
        assert_eq!(asked.await.unwrap().0, expected, "{host}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        let variables = [("ALL_PROXY", proxy.clone()), (name, "invalid".to_owned())];
        let outcome = ask("http://model.invalid", &variables).await;
        assert!(outcome.contains("planner_unreachable"), "{outcome}");
    }
    let asked = unused.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked, Err(ErrorKind::WouldBlock), "the proxy was asked");
}
