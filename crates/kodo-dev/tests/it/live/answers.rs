//! Answers that are no plan: repaired where that can be, or the end.

use crate::model::Reply;
use kodo_planner::{LivePlanner, PlanSource};
use serde_json::{Value, json};

use super::support::{KEY, ask, both_ways, config, failed, model, plan_json};

#[tokio::test]
async fn a_wrong_shape_is_shown_to_the_model_and_repaired() {
    let model = model().await;
    for planner in both_ways(&model) {
        let before = model.seen().len();
        model.next(Reply::Json(
            json!({"toolCalls": [{"name": "exec"}], "extra": 1}),
        ));
        let planned = ask(&planner).await.unwrap();
        assert!(matches!(
            planned.source,
            PlanSource::Live { repairs: 1, .. }
        ));
        let seen = model.seen();
        assert_eq!(seen.len(), before + 2);
        let messages = seen.last().unwrap().body["messages"]
            .as_array()
            .unwrap()
            .clone();
        let [.., answer, repair] = messages.as_slice() else {
            panic!("{messages:?}");
        };
        assert_eq!(answer["role"], "assistant");
        let repair = repair["content"].as_str().unwrap();
        for violation in [
            "data must have required property 'prompt'",
            "data must NOT have additional properties",
            "data/toolCalls/0 must have required property 'args'",
        ] {
            assert!(repair.contains(violation), "{violation} in {repair}");
        }
    }
}

#[tokio::test]
async fn a_wrong_shape_thrice_ends_it_with_what_was_wrong() {
    let model = model().await;
    for planner in both_ways(&model) {
        let before = model.seen().len();
        for _ in 0..3 {
            model.next(Reply::Json(json!({"steps": []})));
        }
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "plan_invalid");
        assert!(
            text.contains("shown 2 times") && text.contains("required property 'toolCalls'"),
            "{text}"
        );
        assert_eq!(model.seen().len(), before + 3);
    }
}

#[tokio::test]
async fn too_many_steps_and_too_long_a_plan_are_shown_to_the_model_too() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    let call = json!({"name": "exec", "args": {}});
    let mut long = plan_json();
    long["toolCalls"] = vec![call; 5].into();
    model.next(Reply::Json(long));
    let mut large = plan_json();
    large["prompt"] = "x".repeat(10_000).into();
    model.next(Reply::Json(large));
    ask(&planner).await.unwrap();
    let seen = model.seen();
    let last = |index: usize| -> Value {
        let messages = seen[index].body["messages"].as_array().unwrap();
        messages.last().unwrap()["content"].clone()
    };
    assert!(
        last(1)
            .as_str()
            .unwrap()
            .contains("more than 4 items, it has 5")
    );
    assert!(
        last(2)
            .as_str()
            .unwrap()
            .contains("longer than 10000 bytes")
    );
}

#[tokio::test]
async fn a_refusal_is_a_failure_with_the_models_words_and_is_not_argued_with() {
    let model = model().await;
    for planner in both_ways(&model) {
        let before = model.seen().len();
        model.next(Reply::Refusal(format!("I will not. {KEY}")));
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_declined");
        assert_eq!(text, "the model declined: I will not. [redacted]");
        assert_eq!(model.seen().len(), before + 1);
    }
}

#[tokio::test]
async fn an_answer_that_a_filter_or_the_token_limit_ended_says_so() {
    let model = model().await;
    for planner in both_ways(&model) {
        model.next(Reply::Ends("content_filter"));
        let (code, _) = failed(ask(&planner).await);
        assert_eq!(code, "planner_filtered");
        model.next(Reply::Ends("length"));
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_truncated");
        assert!(
            text.contains("1000 tokens") && text.contains("OC_MAX_TOKENS"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_is_refused_at_once_and_named() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    let mut plan = plan_json();
    plan["toolCalls"] = json!([{"name": "exec", "args": {}}, {"name": "mail:send", "args": {}}]);
    model.next(Reply::Json(plan));
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "plan_refused");
    assert!(text.contains(r#"not allowed: "mail:send";"#), "{text}");
    assert_eq!(model.seen().len(), 1);
}

#[tokio::test]
async fn a_plan_with_the_key_in_it_is_refused_however_it_is_spelled() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    let escaped: String = KEY
        .chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect();
    let mut plan = plan_json();
    plan["toolCalls"][0]["args"]["deep"] = json!([{"x": "MARK"}]);
    model.next(Reply::Text(plan.to_string().replace("MARK", &escaped)));
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "plan_refused");
    assert!(text.contains("OC_API_KEY"), "{text}");
}

#[tokio::test]
async fn a_draft_that_was_thrown_away_is_not_taken() {
    let model = model().await;
    let mut draft = plan_json();
    draft["prompt"] = "a draft".into();
    let plan = plan_json();
    let parts = json!([{"type": "reasoning", "text": draft.to_string()}, {"type": "text", "text": plan.to_string()}]);
    let message = json!({"content": parts, "reasoning": draft.to_string(), "reasoning_content": draft.to_string()});
    let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]}).to_string();
    for reply in [
        Reply::Text(format!(
            "<thinking>{draft}, but that is wrong</thinking>{plan}"
        )),
        Reply::Text(format!("{draft}, but that is wrong</think>\n{plan}")),
        Reply::Raw("application/json", body.into()),
    ] {
        model.next(reply);
        let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
        assert_eq!(planned.plan.prompt, "Look at ü.");
        assert!(matches!(
            planned.source,
            PlanSource::Live { repairs: 0, .. }
        ));
    }
}

#[tokio::test]
async fn of_two_plans_none_is_taken_and_the_model_is_asked_which_one_counts() {
    let model = model().await;
    let mut draft = plan_json();
    draft["prompt"] = "a draft".into();
    model.next(Reply::Text(format!(
        "a first try\n```json\n{draft}\n```\nbut that deletes too much, so\n```json\n{}\n```",
        plan_json()
    )));
    let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    assert!(matches!(
        planned.source,
        PlanSource::Live { repairs: 1, .. }
    ));
    let asked = model.seen()[1].body["messages"][3]["content"].to_string();
    assert!(asked.contains("not clear which one counts"), "{asked}");
}

#[tokio::test]
async fn a_lone_plan_that_prose_may_take_back_or_with_a_key_given_twice_is_asked_for_again() {
    let model = model().await;
    let mut draft = plan_json();
    draft["prompt"] = "a draft".into();
    let twice =
        draft
            .to_string()
            .replacen('{', "{\"toolCalls\":[{\"name\":\"exec\",\"args\":{}}],", 1);
    for (text, says) in [
        (format!("Do not use this: {draft}"), "the plan alone"),
        (
            format!("Do not use this:\n```json\n{draft}\n```"),
            "the plan alone",
        ),
        (twice, "more than once"),
    ] {
        let before = model.seen().len();
        model.next(Reply::Text(text));
        let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
        assert_eq!(planned.plan.prompt, "Look at ü.");
        let asked = model.seen()[before + 1].body["messages"][3]["content"].to_string();
        assert!(asked.contains(says), "{asked}");
    }
    // As small models write it.
    let fenced = format!("Here is the plan:\n```json\n{}\n```", plan_json());
    model.next(Reply::Text(fenced));
    let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    assert!(matches!(
        planned.source,
        PlanSource::Live { repairs: 0, .. }
    ));
}

#[tokio::test]
async fn a_plan_whose_strings_have_markings_is_a_plan() {
    let model = model().await;
    let mut plan = plan_json();
    plan["prompt"] = "write </think> and ```json {}``` into a file".into();
    model.next(Reply::Text(plan.to_string()));
    let planned = ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    assert_eq!(planned.plan.prompt, plan["prompt"]);
}

#[tokio::test]
async fn broken_json_is_shown_to_the_model_where_it_breaks() {
    let model = model().await;
    let broken = plan_json()
        .to_string()
        .replace("\"diffs\":[]", "\"diffs\":[],");
    model.next(Reply::Text(broken));
    ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
    let shown = model.seen()[1].body["messages"][3]["content"].to_string();
    assert!(shown.contains("trailing comma at line 1"), "{shown}");
    assert!(!shown.contains("required property"), "{shown}");
}
