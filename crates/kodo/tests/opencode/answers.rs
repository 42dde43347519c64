//! What the model answers, and what becomes of it.

use crate::model::Reply;
use kodo_contract::encode;
use kodo_planner::PlanSource;
use serde_json::json;

use crate::stage::{KEY, ask, failed, plan_json, stage};

#[test]
fn a_plan_comes_back_as_the_model_made_it_and_the_key_reaches_the_model_alone() {
    let stage = stage();
    let before = stage.model.seen().len();
    let planned = stage.run(ask(&stage.planner)).unwrap();
    assert_eq!(encode(&planned.plan).unwrap(), plan_json());
    assert_eq!(
        planned.source,
        PlanSource::Live {
            provider: "opencode".to_owned(),
            model: "vendor/scripted".to_owned(),
            form: "tool_call".to_owned(),
            repairs: 0,
        }
    );
    // The start asked the model proxy and no model; the plan asked once.
    let seen = stage.model.seen();
    assert_eq!(seen.len(), before + 1);
    let request = seen.last().unwrap();
    let agent = request.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("kodo/"), "{agent}");
    assert_eq!(request.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(request.headers["idempotency-key"], "run_1/plan/opencode/1");
    assert_eq!(request.body["model"], "vendor/scripted");
    assert_eq!(request.body["seed"], 424_242);
    assert_eq!(request.body["temperature"], 0);
    assert_eq!(request.body["max_tokens"], 1000);
    let tools = request.body["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 1, "nothing but the answer: {tools:?}");
}

#[test]
fn a_wrong_shape_is_shown_to_the_model_in_the_same_session_and_repaired() {
    let stage = stage();
    let before = stage.model.seen().len();
    stage.model.next(Reply::Json(
        json!({"toolCalls": [{"name": "exec"}], "extra": 1}),
    ));
    let planned = stage.run(ask(&stage.planner)).unwrap();
    assert!(matches!(
        planned.source,
        PlanSource::Live { repairs: 1, .. }
    ));
    let seen = stage.model.seen();
    assert_eq!(seen.len(), before + 2);
    let messages = seen.last().unwrap().body["messages"].to_string();
    for part in [
        "must have required property 'prompt'",
        "must NOT have additional properties",
        "StructuredOutput",
    ] {
        assert!(messages.contains(part), "{part} in {messages}");
    }
}

#[test]
fn a_wrong_shape_thrice_ends_it_with_what_was_wrong() {
    let stage = stage();
    let before = stage.model.seen().len();
    for _ in 0..3 {
        stage.model.next(Reply::Json(json!({"steps": []})));
    }
    let (code, text) = failed(stage.run(ask(&stage.planner)));
    assert_eq!(code, "plan_invalid");
    assert!(
        text.contains("shown 2 times") && text.contains("required property 'toolCalls'"),
        "{text}"
    );
    assert_eq!(stage.model.seen().len(), before + 3);
}

#[test]
fn a_plan_in_the_text_of_a_model_that_refuses_the_tool_is_a_plan() {
    let stage = stage();
    let text = format!("Sure:\n```json\n{}\n```", plan_json());
    stage.model.next(Reply::Text(text));
    let planned = stage.run(ask(&stage.planner)).unwrap();
    assert_eq!(encode(&planned.plan).unwrap(), plan_json());
}

#[test]
fn a_model_that_refuses_the_tool_and_says_no_plan_either_is_asked_to_repair_that() {
    let stage = stage();
    stage
        .model
        .next(Reply::Text("I would rather not use tools.".to_owned()));
    let planned = stage.run(ask(&stage.planner)).unwrap();
    assert!(matches!(
        planned.source,
        PlanSource::Live { repairs: 1, .. }
    ));
    let seen = stage.model.seen();
    let messages = seen.last().unwrap().body["messages"].to_string();
    assert!(messages.contains("none was found"), "{messages}");
}

#[test]
fn a_refusal_of_the_model_is_a_failure_with_its_words() {
    let stage = stage();
    stage
        .model
        .next(Reply::Refusal(format!("I will not. {KEY}")));
    let (code, text) = failed(stage.run(ask(&stage.planner)));
    assert_eq!(code, "planner_declined");
    assert_eq!(text, "the model declined: I will not. [redacted]");
}

#[test]
fn an_answer_that_a_filter_or_the_token_limit_ended_says_so() {
    let stage = stage();
    for (reason, expected) in [
        ("content_filter", "planner_filtered"),
        ("length", "planner_truncated"),
    ] {
        stage.model.next(Reply::Ends(reason));
        let (code, _) = failed(stage.run(ask(&stage.planner)));
        assert_eq!(code, expected);
    }
}

#[test]
fn a_tool_that_is_not_allowed_is_refused_at_once_and_named() {
    let stage = stage();
    let mut plan = plan_json();
    plan["toolCalls"] = json!([{"name": "mail:send", "args": {}}]);
    stage.model.next(Reply::Json(plan));
    let (code, text) = failed(stage.run(ask(&stage.planner)));
    assert_eq!(code, "plan_refused");
    assert!(text.contains(r#"not allowed: "mail:send";"#), "{text}");
}

#[test]
fn plans_that_are_made_at_once_do_not_meet() {
    let stage = stage();
    let answers = stage.run(async {
        let (a, b, c, d) = tokio::join!(
            ask(&stage.planner),
            ask(&stage.planner),
            ask(&stage.planner),
            ask(&stage.planner)
        );
        [a, b, c, d]
    });
    for answer in answers {
        assert_eq!(encode(&answer.unwrap().plan).unwrap(), plan_json());
    }
}
