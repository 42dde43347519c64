//! Everything that can happen to an answer on its way. OpenCode itself asks a failing model without end; here each ends.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::model::Reply;
use kodo_contract::encode;
use kodo_planner::OpenCodePlanner;
use tokio::net::TcpListener;

use crate::stage::{ask, config, failed, model, plan_json, stage, until};

#[test]
fn a_slow_stream_is_waited_for() {
    let stage = stage();
    stage
        .model
        .next(Reply::Slow(plan_json(), Duration::from_millis(20)));
    let started = Instant::now();
    let planned = stage.run(ask(&stage.planner)).unwrap();
    assert_eq!(encode(&planned.plan).unwrap(), plan_json());
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn half_a_stream_is_no_answer_and_the_plan_is_begun_again_with_the_same_key() {
    let stage = stage();
    let before = stage.model.seen().len();
    stage.model.next(Reply::Half(plan_json()));
    let planned = stage.run(ask(&stage.planner)).unwrap();
    assert_eq!(encode(&planned.plan).unwrap(), plan_json());
    let seen = &stage.model.seen()[before..];
    let keys: Vec<_> = seen
        .iter()
        .map(|it| &it.headers["idempotency-key"])
        .collect();
    assert_eq!(keys, ["run_1/plan/opencode/1"; 2]);
}

#[test]
fn an_endless_answer_is_read_to_the_bound_and_no_further() {
    let stage = stage();
    stage.model.next(Reply::Endless);
    let (code, text) = failed(stage.run(ask(&stage.planner)));
    assert_eq!(code, "planner_answer_too_large", "{text}");
    // And the next plan is none the worse for it.
    stage.run(ask(&stage.planner)).unwrap();
}

#[test]
fn a_busy_model_is_asked_again_by_us() {
    let stage = stage();
    let before = stage.model.seen().len();
    let headers = vec![("retry-after", "0".to_owned())];
    let busy = serde_json::json!({"error": {"message": "slow down"}});
    stage
        .model
        .next(Reply::Status(429, headers.clone(), busy.clone()));
    stage.run(ask(&stage.planner)).unwrap();
    assert_eq!(stage.model.seen().len(), before + 2);
}

#[test]
fn a_model_that_fails_is_asked_again_by_us_until_it_answers() {
    let stage = stage();
    let before = stage.model.seen().len();
    for _ in 0..6 {
        stage.model.next(Reply::error(500, "out of memory"));
    }
    stage.run(ask(&stage.planner)).unwrap();
    assert_eq!(stage.model.seen().len(), before + 7);
}

#[test]
fn a_key_that_the_provider_does_not_take_ends_it_at_once() {
    let stage = stage();
    let before = stage.model.seen().len();
    stage.model.next(Reply::error(401, "Incorrect key"));
    let (code, _) = failed(stage.run(ask(&stage.planner)));
    assert_eq!(code, "planner_unauthorized");
    assert_eq!(stage.model.seen().len(), before + 1);
}

#[test]
fn dropping_the_question_closes_the_connection_to_the_model() {
    let stage = stage();
    let (before, abandoned) = (stage.model.seen().len(), stage.model.abandoned());
    stage.model.next(Reply::Hang);
    stage.run(async {
        tokio::select! {
            _ = ask(&stage.planner) => panic!("a hang gives no answer"),
            () = until("the request", || stage.model.seen().len() == before + 1) => {}
        }
        until("the end of the connection", || {
            stage.model.abandoned() == abandoned + 1
        })
        .await;
        // OpenCode was told as well, and has room for the next one.
        ask(&stage.planner).await.unwrap();
    });
}

/// These need another configuration, and so an OpenCode of their own: one for all of them.
#[test]
fn a_hang_ends_at_the_deadline_and_a_model_that_is_gone_is_unreachable() {
    let stage = stage();
    stage.run(async {
        let model = model().await;
        let planner = OpenCodePlanner::new(config(&model.url(), Duration::from_secs(5)));
        planner.start().await.unwrap();
        model.next(Reply::Hang);
        let started = Instant::now();
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_deadline", "{text}");
        assert!(text.contains("5000 ms"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(15));
        until("the end of the connection", || model.abandoned() == 1).await;
        ask(&planner).await.unwrap();
        drop(model);
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_unreachable");
        assert!(text.contains("OC_BASE_URL"), "{text}");
    });
    // Nobody listened from the beginning: OpenCode starts all the same, since no model is asked for that.
    stage.run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let planner = OpenCodePlanner::new(config(&url, Duration::from_secs(10)));
        planner.start().await.unwrap();
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_unreachable");
        assert!(text.contains("refused"), "{text}");
    });
}
