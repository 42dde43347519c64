//! The three forms of an answer, and how the planner comes to the one that a server takes.

use kodo_contract::encode;
use kodo_dev::scripted_model::{Form, Reply};
use kodo_planner::{LivePlanner, PlanSource};
use serde_json::{Value, json};

use super::support::{KEY, ask, both_ways, config, failed, model, plan_json};

fn form_of(source: &PlanSource) -> &str {
    match source {
        PlanSource::Live { form, .. } => form,
        other => panic!("not live: {other:?}"),
    }
}

#[tokio::test]
async fn a_plan_comes_in_each_form_whole_and_streamed() {
    for (taken, name) in [
        (Form::JsonSchema, "json_schema"),
        (Form::ToolCall, "tool_call"),
        (Form::Text, "text"),
    ] {
        let model = model().await;
        model.take_only(&[taken]);
        for planner in both_ways(&model) {
            let planned = ask(&planner).await.unwrap();
            assert_eq!(encode(&planned.plan).unwrap(), plan_json());
            assert_eq!(form_of(&planned.source), name);
            // What was learned is not asked for again.
            let before = model.seen().len();
            ask(&planner).await.unwrap();
            assert_eq!(model.seen().len(), before + 1);
        }
    }
}

#[tokio::test]
async fn the_request_carries_what_was_configured_and_the_key_in_its_header_alone() {
    let model = model().await;
    ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    let seen = model.seen();
    let [seen] = seen.as_slice() else {
        panic!("one request, not {}", seen.len());
    };
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(seen.headers["idempotency-key"], "run_1/plan/1/json_schema");
    assert_eq!(seen.body["model"], "scripted");
    assert_eq!(seen.body["max_tokens"], 1000);
    assert_eq!(seen.body["seed"], 424_242);
    assert_eq!(seen.body["temperature"], 0);
    assert!(!seen.body.to_string().contains(KEY));
    let user: Value =
        serde_json::from_str(seen.body["messages"][1]["content"].as_str().unwrap()).unwrap();
    assert_eq!(user["intent"]["goal"], "g");
}

#[tokio::test]
async fn a_server_without_a_key_is_sent_none() {
    let model = model().await;
    let mut config = config(&model.url());
    config.secret = None;
    ask(&LivePlanner::new(config)).await.unwrap();
    assert!(!model.seen()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_server_that_ignores_the_form_is_asked_in_the_next_one() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    model.next(Reply::Text("I would look at it first.".into()));
    model.next(Reply::Text("As I said.".into()));
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "text");
    assert_eq!(model.seen().len(), 3);
}

#[tokio::test]
async fn a_plan_in_the_text_counts_where_a_tool_call_was_asked_for() {
    let model = model().await;
    model.take_only(&[Form::ToolCall]);
    let text = format!("<think>hm {{}}</think>\n```json\n{}\n```", plan_json());
    model.next(Reply::Text(text));
    let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    assert_eq!(encode(&planned.plan).unwrap(), plan_json());
}

#[tokio::test]
async fn a_parameter_that_a_server_does_not_take_is_left_out_and_the_form_stays() {
    let model = model().await;
    let rejection = |parameter: &str, message: &str| {
        let error = json!({"error": {"message": message, "param": parameter, "code": "unsupported_parameter"}});
        Reply::Status(400, Vec::new(), error)
    };
    model.next(rejection(
        "max_tokens",
        "Use 'max_completion_tokens' instead.",
    ));
    model.next(rejection("temperature", "Unsupported value."));
    let planner = LivePlanner::new(config(&model.url()));
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "json_schema");
    let last = model.seen().pop().unwrap().body;
    assert_eq!(last["max_completion_tokens"], 1000);
    assert!(last.get("max_tokens").is_none() && last.get("temperature").is_none());
}

#[tokio::test]
async fn a_server_that_takes_no_form_ends_it_with_its_own_words() {
    let model = model().await;
    model.take_only(&[]);
    let (code, text) = failed(ask(&LivePlanner::new(config(&model.url()))).await);
    assert_eq!(code, "planner_rejected");
    assert!(
        text.contains("HTTP 400") && text.contains("this form of answer is not supported"),
        "{text}"
    );
    assert_eq!(model.seen().len(), 3);
}
