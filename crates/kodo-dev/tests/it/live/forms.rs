//! The three forms of an answer, and how the planner comes to the one that a server takes.

use crate::model::{Form, Reply};
use kodo_contract::encode;
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
async fn a_server_that_ignores_the_form_is_asked_in_the_next_one_for_this_plan() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    for _ in 0..3 {
        model.next(Reply::Text("I would look at it first.".into()));
    }
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "text");
    let seen = model.seen();
    let choices: Vec<&Value> = seen.iter().map(|it| &it.body["tool_choice"]).collect();
    let named = json!({"type": "function", "function": {"name": "submit_plan"}});
    assert_eq!(
        choices,
        [&Value::Null, &"required".into(), &named, &Value::Null]
    );
    // The server has said nothing of any form.
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "json_schema");
}

#[tokio::test]
async fn an_answer_without_a_word_says_nothing_of_the_form() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    model.next(Reply::Text(String::new()));
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "json_schema");
    let shown = &model.seen()[1].body["messages"];
    assert_ne!(shown[2]["content"], "");
    // A model that says nothing at all in one form may speak in another.
    model.next(Reply::Text(String::new()));
    model.next(Reply::Text(" ".to_owned()));
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "tool_call");
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "json_schema");
}

#[tokio::test]
async fn a_server_that_fails_at_a_form_is_asked_in_the_next_one() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    // Twice without a word about the cause: it may have been chance.
    for requests in [2, 2, 1] {
        let before = model.seen().len();
        if requests == 2 {
            model.next(Reply::error(500, "internal server error"));
        }
        let planned = ask(&planner).await.unwrap();
        assert_eq!(form_of(&planned.source), "tool_call");
        assert_eq!(model.seen().len(), before + requests);
    }
    // Once, if the server says that it is the form.
    let planner = LivePlanner::new(config(&model.url()));
    model.next(Reply::error(
        500,
        "response_format.type: input should be 'text'",
    ));
    ask(&planner).await.unwrap();
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "tool_call");
}

#[tokio::test]
async fn a_server_that_fails_in_every_form_is_asked_again_in_the_first_one() {
    let model = model().await;
    for _ in 0..4 {
        model.next(Reply::error(500, "out of memory"));
    }
    let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    assert_eq!(form_of(&planned.source), "json_schema");
    assert_eq!(model.seen().len(), 5);
}

#[tokio::test]
async fn a_server_without_a_system_role_gets_one_message_of_the_user() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    model.next(Reply::error(400, "System role not supported"));
    let planned = ask(&planner).await.unwrap();
    assert_eq!(form_of(&planned.source), "json_schema");
    ask(&planner).await.unwrap();
    let seen = model.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen[1..] {
        let messages = request.body["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0]["role"], "user");
        let content = messages[0]["content"].as_str().unwrap();
        assert!(content.starts_with("You plan work.") && content.contains(r#""goal":"g""#));
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_not_tried_in_another_form() {
    let model = model().await;
    let error = json!({"error": {
        "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9000,
        "message": "the request exceeds the available context size, try increasing it",
    }});
    model.next(Reply::Status(400, Vec::new(), error));
    let (code, text) = failed(ask(&LivePlanner::new(config(&model.url()))).await);
    assert_eq!(code, "planner_rejected");
    assert!(
        text.contains("too long") && text.contains("OC_MAX_TOKENS"),
        "{text}"
    );
    assert_eq!(model.seen().len(), 1);
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
    assert_eq!(model.seen().len(), 4);
}
