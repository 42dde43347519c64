//! `POST /crashdemo` and `GET /marks`.

use tokio::task::JoinSet;

use crate::api::{got, refusal, shown};
use crate::support::{DEMO_INTENT, World, until};

async fn marks(world: &World, query: &str) -> String {
    got(world, &format!("/marks?{query}")).await.text()
}

/// Everything that a crash demo leaves: its effects with their transactions, its workflows, their steps.
async fn traces(world: &World) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', 'mark', run_id, step, xmin) FROM app.marks
         UNION ALL SELECT concat_ws(' ', 'workflow', workflow_uuid, status, recovery_attempts) FROM dbos.workflow_status
         UNION ALL SELECT concat_ws(' ', 'step', workflow_uuid, function_id, xmin) FROM dbos.operation_outputs
         ORDER BY 1",
    )
    .fetch_all(&world.app)
    .await
    .expect("traces")
}

#[tokio::test]
async fn one_id_has_its_effects_once_however_often_it_is_asked_for() {
    let mut world = World::with("crash_demo", |options| options.env("WF_SLEEP_MS", 0)).await;
    let accepted = r#"202 {"accepted":true,"workflowId":"once"}"#;
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        let client = world.client.clone();
        requests.spawn(async move { client.post("/crashdemo?wf=once", "").await.unwrap() });
    }
    for answer in requests.join_all().await {
        assert_eq!(shown(&answer), accepted);
    }
    until("the end of the demo", || async {
        traces(&world)
            .await
            .iter()
            .any(|trace| trace.starts_with("workflow once SUCCESS"))
    })
    .await;
    assert_eq!(marks(&world, "wf=once").await, r#"{"s1":1,"s2":1}"#);

    let before = traces(&world).await;
    for body in ["", "a body is not wanted", "{}"] {
        let again = world.client.post("/crashdemo?wf=once", body).await.unwrap();
        assert_eq!(shown(&again), accepted);
    }
    let options = world.options.clone();
    world.restart(&options).await;
    let again = world.client.post("/crashdemo?wf=once", "").await.unwrap();
    assert_eq!(shown(&again), accepted);
    assert_eq!(traces(&world).await, before);
}

#[tokio::test]
async fn marks_are_a_pure_read_also_in_the_middle_of_a_demo() {
    let world = World::with("crash_demo_marks", |options| {
        options.env("WF_SLEEP_MS", 600_000)
    })
    .await;
    assert_eq!(marks(&world, "wf=nobody").await, r#"{"s1":0,"s2":0}"#);
    assert_eq!(traces(&world).await, Vec::<String>::new());
    world.client.post("/crashdemo?wf=half", "").await.unwrap();
    until("the demo's sleep", || async {
        traces(&world)
            .await
            .iter()
            .any(|trace| trace.starts_with("step half 1"))
    })
    .await;
    let before = traces(&world).await;
    for _ in 0..3 {
        assert_eq!(marks(&world, "wf=half").await, r#"{"s1":1,"s2":0}"#);
        assert_eq!(marks(&world, "wf=nobody").await, r#"{"s1":0,"s2":0}"#);
    }
    assert_eq!(traces(&world).await, before);
}

#[tokio::test]
async fn the_id_is_read_as_a_form_field_and_must_be_there() {
    let world = World::with("crash_demo_wf", |options| options.env("WF_SLEEP_MS", 0)).await;
    for (method, path) in [("POST", "/crashdemo"), ("GET", "/marks")] {
        for query in [
            "",
            "?",
            "?wf",
            "?wf=",
            "?wf=+%20%09",
            "?WF=x",
            "?xwf=x",
            "?wf=&wf=x",
        ] {
            let path = format!("{path}{query}");
            let refused = refusal(&world, method, &path, &[], "").await;
            assert_eq!(
                refused, r#"400 {"error":"wf query param required"}"#,
                "{path}"
            );
        }
        for query in ["wf=a%00b", "wf=%ff", "wf=%C3", "wf=%", "wf=%zz"] {
            let path = format!("{path}?{query}");
            let refused = refusal(&world, method, &path, &[], "").await;
            assert_eq!(
                refused, r#"400 {"error":"wf must be percent-encoded UTF-8 without U+0000"}"#,
                "{path}"
            );
        }
    }
    for (query, id) in [
        ("wf=a+b%2Bc%26%3D%22", r#"a b+c&=\""#),
        ("x=1&wf=%F0%9F%98%80e%CC%81&y", "😀e\u{301}"),
        ("wf=first&wf=second", "first"),
    ] {
        let answer = world.client.post(&format!("/crashdemo?{query}"), "").await;
        let expected = format!(r#"202 {{"accepted":true,"workflowId":"{id}"}}"#);
        assert_eq!(shown(&answer.unwrap()), expected);
        until(&format!("the marks of {id}"), || async {
            marks(&world, query).await == r#"{"s1":1,"s2":1}"#
        })
        .await;
    }

    // An id that is a run's already is nobody's to run a demo under.
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let refused = refusal(&world, "POST", &format!("/crashdemo?wf={run}"), &[], "").await;
    assert_eq!(
        refused,
        r#"409 {"error":"workflow id belongs to another workflow"}"#
    );
}
