//! Everything that can happen to an answer on its way.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kodo_contract::encode;
use kodo_dev::scripted_model::Reply;
use kodo_planner::{LiveConfig, LivePlanner};
use tokio::net::TcpListener;

use super::support::{ask, both_ways, config, failed, model, plan_json};

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let model = model().await;
    for planner in both_ways(&model) {
        model.next(Reply::Slow(plan_json(), Duration::from_millis(10)));
        let started = Instant::now();
        let planned = ask(&planner).await.unwrap();
        assert_eq!(encode(&planned.plan).unwrap(), plan_json());
        assert!(started.elapsed() >= Duration::from_millis(50));
    }
}

#[tokio::test]
async fn an_answer_slower_than_the_deadline_is_given_up_even_while_it_comes() {
    let model = model().await;
    for stream in [false, true] {
        let planner = LivePlanner::new(LiveConfig {
            stream,
            deadline: Duration::from_millis(300),
            ..config(&model.url())
        });
        model.next(Reply::Slow(plan_json(), Duration::from_millis(100)));
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_deadline");
        assert!(
            text.contains("300 ms") && text.contains("OC_DEADLINE_MS"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    let model = model().await;
    for planner in both_ways(&model) {
        let before = model.seen().len();
        model.next(Reply::Half(plan_json()));
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_answer_incomplete", "{text}");
        assert_eq!(model.seen().len(), before + 1);
    }
}

#[tokio::test]
async fn a_stream_that_ends_in_good_order_before_its_answer_does_is_no_answer_either() {
    let model = model().await;
    let half = "data: {\"choices\":[{\"delta\":{\"content\":\"{\"}}]}\n\n";
    model.next(Reply::Raw("text/event-stream", Bytes::from(half)));
    let (code, _) = failed(ask(&LivePlanner::new(config(&model.url()))).await);
    assert_eq!(code, "planner_answer_incomplete");
    // Without the end mark, but with the reason of its end, it is whole.
    let text = serde_json::to_string(&plan_json().to_string()).unwrap();
    let whole = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":{text}}},\"finish_reason\":\"stop\"}}]}}\r\n\r\n"
    );
    model.next(Reply::Raw("text/event-stream", Bytes::from(whole)));
    ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
}

#[tokio::test]
async fn an_endless_answer_is_read_to_the_bound_and_no_further() {
    let model = model().await;
    for planner in both_ways(&model) {
        model.next(Reply::Endless);
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_answer_too_large");
        assert!(text.contains("4194304 bytes"), "{text}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_says_which_setting_it_is_about() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let planner = LivePlanner::new(config(&format!("http://127.0.0.1:{port}")));
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_unreachable");
    assert!(
        text.contains("refused") && text.contains("OC_BASE_URL"),
        "{text}"
    );
    // The port differs from day to day; what is recorded must not.
    assert!(!text.contains(&port.to_string()), "{text}");
}

#[tokio::test]
async fn a_name_that_is_not_found_is_unreachable_too() {
    let planner = LivePlanner::new(config("https://nowhere.invalid/v1"));
    let (code, _) = failed(ask(&planner).await);
    assert_eq!(code, "planner_unreachable");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_spoken_to_in_the_clear() {
    let model = model().await;
    let planner = LivePlanner::new(config(&format!("https://127.0.0.1:{}/v1", model.port())));
    let (code, _) = failed(ask(&planner).await);
    assert_eq!(code, "planner_unreachable");
    assert!(model.seen().is_empty());
}

#[tokio::test]
async fn a_hang_ends_at_the_deadline_and_the_provider_is_let_go() {
    let model = model().await;
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_secs(1),
        ..config(&model.url())
    });
    model.next(Reply::Hang);
    let (code, _) = failed(ask(&planner).await);
    assert_eq!(code, "planner_deadline");
    until("the end of the connection", || model.abandoned() == 1).await;
}

#[tokio::test]
async fn dropping_the_question_lets_the_provider_go() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    model.next(Reply::Hang);
    tokio::select! {
        _ = ask(&planner) => panic!("a hang gives no answer"),
        () = until("the request", || model.seen().len() == 1) => {}
    }
    until("the end of the connection", || model.abandoned() == 1).await;
}

/// Waits for something to be so, bounded.
async fn until(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !look() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_no_chat_completion_is_said_to_be_none() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    for (content_type, body, expected) in [
        ("text/html", &b"<html>"[..], "content type text/html"),
        ("application/json", b"<html>", "no JSON"),
        (
            "application/json",
            b"{\"choices\":[{\"message\":{\"content\":\"\xff\"}}]}",
            "UTF-8",
        ),
        (
            "application/json; charset=utf-8",
            b"{\"models\":[]}",
            "no choices",
        ),
        ("application/json", b"", "no JSON"),
        (
            "application/json",
            b"{\"error\":{\"message\":\"out of memory\"}}",
            "out of memory",
        ),
        ("text/event-stream", b"data: \xff\n\n", "UTF-8"),
        (
            "text/event-stream",
            b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n",
            "overloaded",
        ),
    ] {
        model.next(Reply::Raw(content_type, Bytes::copy_from_slice(body)));
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, "planner_answer_invalid", "{text}");
        assert!(text.contains(expected), "{expected} in {text}");
    }
    model.next(Reply::NoChoices);
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_answer_invalid");
    assert!(text.contains("no choices"), "{text}");
}
