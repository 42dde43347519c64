//! Everything that can happen to an answer on its way.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::model::{Reply, Script, ScriptedModel, Seen};
use bytes::Bytes;
use kodo_contract::encode;
use kodo_planner::{LiveConfig, LivePlanner};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
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
async fn half_an_answer_is_no_answer_and_is_asked_for_again_with_the_same_key() {
    let model = model().await;
    for planner in both_ways(&model) {
        let before = model.seen().len();
        model.next(Reply::Half(plan_json()));
        let planned = ask(&planner).await.unwrap();
        assert_eq!(encode(&planned.plan).unwrap(), plan_json());
        let seen = model.seen();
        let [first, again] = &seen[before..] else {
            panic!("{} requests", seen.len() - before);
        };
        let key = |it: &Seen| it.headers["idempotency-key"].clone();
        assert_eq!(key(first), key(again));
        assert_eq!(first.body, again.body);
    }
}

#[tokio::test]
async fn a_stream_that_ends_in_good_order_before_its_answer_does_is_no_answer_either() {
    let model = model().await;
    let text = serde_json::to_string(&plan_json().to_string()).unwrap();
    let open = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{text}}}}}]}}\n\n");
    for half in [
        "data: {\"choices\":[{\"delta\":{\"content\":\"{\"}}]}\n\n".to_owned(),
        // It says that it is over, and not why.
        format!("{open}data: [DONE]\n\n"),
        open,
        String::new(),
    ] {
        let planner = LivePlanner::new(LiveConfig {
            deadline: Duration::from_millis(100),
            ..config(&model.url())
        });
        for _ in 0..20 {
            model.next(Reply::Raw("text/event-stream", Bytes::from(half.clone())));
        }
        let (code, _) = failed(ask(&planner).await);
        assert_eq!(code, "planner_answer_incomplete");
        // What is left of the script must not reach the next planner.
        while ask(&planner).await.is_err() {}
    }
    // Without the end mark, but with the reason of its end, it is whole; also without an empty line after it.
    for end in ["\r\n\r\n", "\n", ""] {
        let whole = format!(
            ": PROCESSING\n\ndata: {{\"choices\":null,\"usage\":{{}}}}\n\ndata:{{\"choices\":[{{\"delta\":{{\"content\":{text}}},\"finish_reason\":\"stop\"}}]}}{end}"
        );
        let before = model.seen().len();
        model.next(Reply::Raw("text/event-stream", Bytes::from(whole)));
        ask(&LivePlanner::new(config(&model.url()))).await.unwrap();
        assert_eq!(model.seen().len(), before + 1);
    }
}

/// A server that closes a kept connection as the next request arrives on it, and answers on new ones.
async fn closing() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let closed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&closed);
    tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let count = std::sync::Arc::clone(&count);
            tokio::spawn(async move {
                let (mut head, mut length) = (String::new(), 0);
                while stream.read_line(&mut head).await.unwrap() > 2 {
                    let header = head.to_ascii_lowercase();
                    if let Some(value) = header.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    head.clear();
                }
                stream.read_exact(&mut vec![0; length]).await.unwrap();
                let choice = serde_json::json!({"message": {"content": plan_json().to_string()}, "finish_reason": "stop"});
                let body = serde_json::json!({"choices": [choice]}).to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                // One byte of the next request, and the connection is gone.
                if stream.read(&mut [0]).await.unwrap_or(0) > 0 {
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
    (port, closed)
}

#[tokio::test]
async fn a_server_that_closes_a_kept_connection_as_a_request_arrives_costs_no_plan() {
    let (port, closed) = closing().await;
    let planner = LivePlanner::new(config(&format!("http://127.0.0.1:{port}")));
    for _ in 0..5 {
        ask(&planner).await.unwrap();
    }
    assert_ne!(closed.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_that_comes_within_the_deadline_costs_no_plan() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let planner = LivePlanner::new(config(&format!("http://127.0.0.1:{port}")));
    let script = Script::default().otherwise(plan_json());
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ScriptedModel::start(port, script).await.unwrap()
    };
    let (planned, model) = tokio::join!(ask(&planner), later);
    planned.unwrap();
    assert_eq!(model.seen().len(), 1);
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
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_millis(200),
        ..config(&format!("http://127.0.0.1:{port}"))
    });
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
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_secs(2),
        ..config("https://nowhere.invalid/v1")
    });
    let (code, _) = failed(ask(&planner).await);
    assert_eq!(code, "planner_unreachable");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_spoken_to_in_the_clear() {
    let model = model().await;
    let planner = LivePlanner::new(LiveConfig {
        deadline: Duration::from_secs(1),
        ..config(&format!("https://127.0.0.1:{}/v1", model.port()))
    });
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

/// A server that starts, or a gateway before it, may say anything for a moment.
#[tokio::test]
async fn what_is_no_chat_completion_is_asked_for_again_and_said_to_be_none_at_the_deadline() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    let hasty = || {
        LivePlanner::new(LiveConfig {
            deadline: Duration::from_millis(100),
            first_pause: Duration::from_secs(1),
            ..config(&model.url())
        })
    };
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
        ("text/event-stream", b"data: \xff\n\n", "UTF-8"),
        ("text/event-stream", b"data: now\n\n", "no JSON"),
        ("application/json", b"null", "no choices"),
        ("application/json", b"{\"choices\":[]}", "no choices"),
        ("application/json", b"\x1f\x8b\x08\0", "no JSON"),
        ("image/png", b"\x89PNG", "content type image/png"),
    ] {
        let reply = || Reply::Raw(content_type, Bytes::copy_from_slice(body));
        model.next(reply());
        let (code, text) = failed(ask(&hasty()).await);
        assert_eq!(code, "planner_answer_invalid", "{text}");
        assert!(text.contains(expected), "{expected} in {text}");
        let before = model.seen().len();
        model.next(reply());
        model.next(reply());
        ask(&planner).await.unwrap();
        assert_eq!(model.seen().len(), before + 3, "{expected}");
    }
    model.next(Reply::NoChoices);
    ask(&planner).await.unwrap();
    // Nothing at all, with and without a status that says so.
    for status in [200, 202, 204] {
        model.next(Reply::Status(status, Vec::new(), serde_json::Value::Null));
        ask(&planner).await.unwrap();
    }
}
