//! Statuses that are no success.

use std::time::{Duration, Instant};

use crate::model::Reply;
use kodo_planner::{LiveConfig, LivePlanner};
use serde_json::json;

use super::support::{KEY, ask, config, failed, model};

fn status(status: u16, headers: &[(&'static str, &str)]) -> Reply {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Reply::Status(status, headers, json!({"error": {"message": "too busy"}}))
}

#[tokio::test]
async fn too_many_requests_are_waited_out_as_long_as_the_provider_asks() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    model.next(status(429, &[("retry-after", "1")]));
    let started = Instant::now();
    ask(&planner).await.unwrap();
    // Our own pause would have been 5 ms.
    assert!(started.elapsed() >= Duration::from_secs(1));
    // As a date, beside the date of the answer.
    let dates = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("retry-after", "Sun, 06 Nov 1994 08:49:38 GMT"),
    ];
    model.next(status(429, &dates));
    let started = Instant::now();
    ask(&planner).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(model.seen().len(), 4);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_ends_it_at_once() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    for pause in ["3600", "18446744073709551615"] {
        model.next(status(429, &[("retry-after", pause)]));
        let started = Instant::now();
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_rate_limited");
        assert!(
            text.contains("too busy") && text.contains("OC_DEADLINE_MS"),
            "{text}"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_failing_provider_is_asked_again_with_the_same_key_until_the_deadline() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    let passing = [502, 503, 504, 408, 409, 425, 429];
    for code in passing {
        model.next(status(code, &[]));
    }
    ask(&planner).await.unwrap();
    let seen = model.seen();
    assert_eq!(seen.len(), passing.len() + 1);
    let keys = seen.iter().map(|it| it.headers["idempotency-key"].clone());
    assert!(
        keys.into_iter()
            .all(|key| key == "run_1/plan/1/json_schema")
    );
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_millis(500),
        ..config(&model.url())
    });
    for _ in 0..100 {
        model.next(status(503, &[]));
    }
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_unavailable");
    assert!(
        text.starts_with("the provider failed (HTTP 503, ") && text.contains("too busy"),
        "{text}"
    );
}

#[tokio::test]
async fn an_error_in_an_answer_is_as_good_as_its_status() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    for error in [
        json!({"error": {"message": "Rate limit exceeded", "code": 429}}),
        json!({"error": {"message": "out of memory"}}),
        json!({"error": "model is loading"}),
        json!({"object": "error", "message": "overloaded", "code": 503}),
    ] {
        let before = model.seen().len();
        model.next(Reply::Status(200, Vec::new(), error));
        ask(&planner).await.unwrap();
        // An error whose cause is not known may be about the form.
        assert!(model.seen().len() > before + 1);
    }
    let mut good =
        json!({"choices": [{"message": {"content": super::support::plan_json().to_string()}}]});
    good["error"] = "".into();
    let before = model.seen().len();
    model.next(Reply::Status(200, Vec::new(), good));
    ask(&planner).await.unwrap();
    assert_eq!(model.seen().len(), before + 1);
}

#[tokio::test]
async fn the_reason_of_the_last_try_is_told_where_the_deadline_comes_in_the_middle_of_one() {
    let model = model().await;
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_millis(1500),
        ..config(&model.url())
    });
    model.next(status(503, &[]));
    model.next(Reply::Hang);
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_unavailable");
    assert!(
        text.contains("HTTP 503") && text.contains("OC_DEADLINE_MS"),
        "{text}"
    );
}

#[tokio::test]
async fn no_credit_is_not_waited_out() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    let error = json!({"error": {"message": "no credit", "code": "insufficient_quota"}});
    model.next(Reply::Status(429, Vec::new(), error));
    let (code, _) = failed(ask(&planner).await);
    assert_eq!(code, "planner_rate_limited");
    assert_eq!(model.seen().len(), 1);
}

#[tokio::test]
async fn every_other_status_ends_it_at_once_and_says_which_setting_it_is_about() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    for (status, code, about) in [
        (401, "planner_unauthorized", "OC_API_KEY"),
        (403, "planner_unauthorized", "OC_API_KEY"),
        (404, "planner_rejected", "OC_MODEL"),
        (413, "planner_rejected", "OC_MODEL"),
    ] {
        model.next(Reply::error(status, &format!("no such thing as {KEY}")));
        let before = model.seen().len();
        let (got, text) = failed(ask(&planner).await);
        assert_eq!(got, code);
        assert!(
            text.contains(about) && text.contains(&status.to_string()),
            "{text}"
        );
        assert_eq!(model.seen().len(), before + 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_stays_here() {
    let (model, other) = (model().await, model().await);
    let target = format!("{}/chat/completions", other.url());
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_secs(5),
        ..config(&model.url())
    });
    model.next(Reply::Status(307, vec![("location", target)], json!({})));
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_rejected");
    assert!(
        text.contains("redirects") && text.contains("OC_BASE_URL"),
        "{text}"
    );
    assert!(other.seen().is_empty());
}
