//! What our side of a call to a model costs: a plan of a model that answers at once, beside the same request sent bare
//! over a connection that is kept. One JSON line a figure.
//!
//! The two take turns, so that whatever else the machine does meets both alike.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kodo_contract::{Intent, decode};
use kodo_dev::scripted_model::{Script, ScriptedModel};
use kodo_planner::{Endpoint, LiveConfig, LivePlanner, PlanRequest, Planner, Policy};
use serde_json::json;

/// Rounds that count, and rounds before them that do not.
const ROUNDS: usize = 500;
const WARM_UP: usize = 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // Run by `cargo test --benches` or a list of tests, there is nothing to do.
    if !std::env::args().any(|it| it == "--bench") {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure())
}

async fn measure() -> Result<(), Failure> {
    let plan = json!({
        "prompt": "p", "toolCalls": [{"name": "exec", "args": {"argv": ["make", "test"]}}],
        "responses": [{"role": "assistant", "text": "t"}], "diffs": [],
    });
    let model = ScriptedModel::start(0, Script::default().otherwise(plan)).await?;
    let planner = LivePlanner::new(LiveConfig {
        endpoint: Endpoint::parse(&model.url(), false)?,
        model: "scripted".to_owned(),
        secret: None,
        deadline: Duration::from_secs(20),
        max_tokens: 1000,
        stream: false,
        first_pause: Duration::from_millis(5),
        policy: Policy {
            allowed_tools: vec!["exec".to_owned()],
            allowed_connectors: Vec::new(),
            max_steps: 4,
            max_bytes: 10_000,
            tools: std::sync::Arc::new(kodo_planner::AnyArguments),
        },
    });
    let intent: Intent = decode(&json!({"goal": "g", "inputs": {}, "constraints": {}}))?;
    let request = PlanRequest {
        intent: &intent,
        seed: 424_242,
        idempotency_key: "run_1/plan",
    };
    planner.plan(&request).await?;
    // What the planner has sent, word for word.
    let body = model.seen().pop().ok_or("the model was not asked")?.body;
    let body = Bytes::from(body.to_string());
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let url = format!("{}/chat/completions", model.url());
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + WARM_UP {
        let began = Instant::now();
        planner.plan(&request).await?;
        let planned = began.elapsed();
        let began = Instant::now();
        let request = Request::post(&url)
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))?;
        let answer = client.request(request).await?;
        answer.into_body().collect().await?;
        if round >= WARM_UP {
            ours.push(planned);
            bare.push(began.elapsed());
        }
    }
    ours.sort();
    bare.sort();
    let at = |times: &[Duration], share: f64| {
        let index = ((times.len() - 1) as f64 * share).round() as usize;
        (times[index].as_secs_f64() * 1e6).round() / 1e3
    };
    println!(
        "{}",
        json!({
            "figure": "planner_call", "rounds": ROUNDS, "unit": "ms",
            "plan_p50": at(&ours, 0.5), "plan_p99": at(&ours, 0.99),
            "bare_p50": at(&bare, 0.5), "bare_p99": at(&bare, 0.99),
            "by_bare": (at(&ours, 0.5) / at(&bare, 0.5) * 100.0).round() / 100.0,
        })
    );
    Ok(())
}
