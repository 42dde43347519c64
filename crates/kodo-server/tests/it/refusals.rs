//! Every route refuses what it does not take: derived from the routes, so that a new one is tested as soon as it is
//! there. A new kind of input fails to compile here until somebody says what is wrong with it.

use axum::Router;
use kodo_server::{
    Access, Answer, ApiToken, Input, Route, admin_router, admin_routes, product_router,
    product_routes,
};
use serde_json::{Map, Value, json};

use crate::fake_database::FakeDatabase;
use crate::support::{ask, booted_on, config};

/// Bodies that the schema does not admit, each with a violation that has to be told.
fn wrong_bodies(schema: &Value) -> Vec<(String, String)> {
    let mut wrong: Vec<(String, String)> = ["null", "[]", "\"x\"", "1", "true"]
        .map(|body| (body.to_owned(), "data must be object".to_owned()))
        .into();
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    assert!(
        !properties.is_empty(),
        "a schema without properties checks nothing: {schema}"
    );
    wrong.push((
        json!({"nobody knows this": 1}).to_string(),
        "data must NOT have additional properties".to_owned(),
    ));
    for (name, property) in properties {
        // An object where none is admitted, else a number.
        let types = &property["type"];
        let object = types == "object"
            || types
                .as_array()
                .is_some_and(|types| types.contains(&json!("object")));
        let value = if object { json!(7) } else { json!({}) };
        wrong.push((
            json!({ name: value }).to_string(),
            format!("data/{name} must be "),
        ));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        wrong.push((
            "{}".to_owned(),
            format!("data must have required property '{name}'"),
        ));
    }
    wrong
}

/// The route's path, with ids that can exist, except for this parameter.
fn path_with(route: &Route, parameter: &str, value: &str) -> String {
    let intent = kodo_contract::IntentId::generate().into_string();
    let run = kodo_contract::RunId::generate().into_string();
    let hash = kodo_contract::ContentHash::of(b"").into_string();
    route
        .path
        .replace(&format!("{{{parameter}}}"), value)
        .replace("/intents/{id}", &format!("/intents/{intent}"))
        .replace("/runs/{id}", &format!("/runs/{run}"))
        .replace("{sha256}", &hash)
}

/// A request that has everything that the route wants but a body.
fn request(route: &Route) -> String {
    let query = if route
        .inputs
        .iter()
        .any(|input| matches!(input, Input::WorkflowQuery))
    {
        "?wf=x"
    } else {
        ""
    };
    format!("{} {}{query}", route.method, path_with(route, "", ""))
}

async fn refuses_wrong_bodies(router: &Router, route: &Route, schema: &Value) {
    let request = request(route);
    for text in ["{", "{}{}", "NaN", "\u{feff}{}"] {
        let answer = ask(router, &request, &[], text).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, r#"{"error":"invalid json"}"#),
            "{request} {text}"
        );
    }
    let name = schema["title"].as_str().unwrap();
    for (text, violation) in wrong_bodies(schema) {
        let answer = ask(router, &request, &[], &text).await;
        assert_eq!(answer.status, 400, "{request} {text}: {}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let error = said["error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("invalid {name}: ")) && error.contains(&violation),
            "{request} {text}: {error}"
        );
        assert!(
            said["details"]
                .as_array()
                .is_some_and(|details| !details.is_empty()),
            "{request} {text}: {said}"
        );
    }
}

async fn refuses_wrong_ids(
    router: &Router,
    route: &Route,
    (parameter, any_text): (&str, bool),
    otherwise: &Answer,
) {
    let long = path_with(route, parameter, &"x".repeat(257));
    let answer = ask(router, &format!("{} {long}", route.method), &[], "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (400, r#"{"error":"id must be at most 256 bytes"}"#),
        "{route:?}"
    );
    let hash = kodo_contract::ContentHash::of(b"").into_string();
    let of_other_form = [
        "x",
        "run_XYZ",
        "run_0",
        "it_0",
        &hash[1..],
        &format!("{hash}0"),
        &hash.to_uppercase(),
        &format!("%20{}", &hash[1..]),
    ];
    let of_other_form = of_other_form.iter().filter(|_| !any_text).copied();
    for id in ["%00", "%ff"].into_iter().chain(of_other_form) {
        let path = path_with(route, parameter, id);
        let answer = ask(router, &format!("{} {path}", route.method), &[], "").await;
        assert_eq!(
            (answer.status, answer.body),
            (
                otherwise.status,
                json!({ "error": otherwise.meaning }).to_string()
            ),
            "{route:?} {id}"
        );
    }
}

async fn refuses_wrong_workflow_ids(router: &Router, route: &Route) {
    for query in [
        "", "?wf=", "?wf=%20", "?WF=x", "?wf=%00", "?wf=%ff", "?wf=%zz",
    ] {
        let request = format!("{} {}{query}", route.method, route.path);
        let answer = ask(router, &request, &[], "").await;
        assert_eq!(answer.status, 400, "{request}");
        assert!(
            answer.body.starts_with(r#"{"error":"wf "#),
            "{request}: {}",
            answer.body
        );
    }
}

async fn refuses_wrong_idempotency_keys(router: &Router, route: &Route) {
    let long = "k".repeat(256);
    for key in ["", "\"\"", "a b", "a\tb", &long] {
        let answer = ask(router, &request(route), &[("idempotency-key", key)], "{}").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (
                400,
                r#"{"error":"Idempotency-Key must be one header of 1 to 255 visible ASCII characters"}"#
            ),
            "{route:?} {key}"
        );
    }
}

async fn refuses_large_bodies(router: &Router, route: &Route) {
    let body = " ".repeat(kodo_server::MAX_BODY_BYTES + 1);
    let answer = ask(router, &request(route), &[], &body).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (413, r#"{"error":"payload too large"}"#),
        "{route:?}"
    );
    assert_eq!(answer.headers["connection"], "close");
}

async fn refuses_large_uploads(router: &Router, route: &Route) {
    let most = config().max_upload_bytes;
    let body = " ".repeat(usize::try_from(most).unwrap() + 1);
    let answer = ask(router, &request(route), &[], &body).await;
    let error = format!("payload too large: an upload has at most {most} bytes (MAX_UPLOAD_BYTES)");
    assert_eq!(
        (answer.status, answer.body),
        (413, json!({ "error": error }).to_string()),
        "{route:?}"
    );
    assert_eq!(answer.headers["connection"], "close");
}

async fn is_not_changed_by_a_body(router: &Router, route: &Route) {
    let request = request(route);
    let plain = ask(router, &request, &[], "").await;
    for body in ["{", "[]", r#"{"goal":1}"#] {
        let answer = ask(router, &request, &[], body).await;
        assert_eq!(
            (answer.status, &answer.body),
            (plain.status, &plain.body),
            "{request} {body}"
        );
    }
}

#[tokio::test]
async fn every_route_refuses_what_it_does_not_take_and_writes_nothing() {
    let database = FakeDatabase::start().await;
    let app = booted_on(config(), database.port).app;
    for (router, routes) in [
        (product_router(&app), product_routes()),
        (admin_router(&app), admin_routes()),
    ] {
        assert!(!routes.is_empty());
        for route in &routes {
            for input in &route.inputs {
                match input {
                    Input::PathId {
                        parameter,
                        any_text,
                        otherwise,
                    } => {
                        refuses_wrong_ids(&router, route, (parameter, *any_text), otherwise).await;
                    }
                    Input::WorkflowQuery => refuses_wrong_workflow_ids(&router, route).await,
                    Input::IdempotencyKey => refuses_wrong_idempotency_keys(&router, route).await,
                    Input::Body(schema) => {
                        refuses_wrong_bodies(&router, route, schema).await;
                        refuses_large_bodies(&router, route).await;
                    }
                    Input::AnyBody => refuses_large_bodies(&router, route).await,
                    Input::Upload => refuses_large_uploads(&router, route).await,
                }
            }
            if route.inputs.is_empty() {
                is_not_changed_by_a_body(&router, route).await;
            }
            let braces = route.path.matches('{').count();
            let ids = route.inputs.iter();
            let ids = ids.filter(|input| matches!(input, Input::PathId { .. }));
            assert_eq!(ids.count(), braces, "{route:?} reads each id in its path");
        }
    }
    assert_eq!(database.writes(), [""; 0]);
}

#[tokio::test]
async fn the_database_of_these_tests_would_show_a_write() {
    let database = FakeDatabase::start().await;
    let app = booted_on(config(), database.port).app;
    let intent = r#"{"goal":"g","inputs":{},"constraints":{}}"#;
    ask(&product_router(&app), "POST /intents", &[], intent).await;
    let writes = database.writes();
    assert!(
        writes.iter().any(|text| text.contains("app.intents")),
        "{writes:?}"
    );
}

#[tokio::test]
async fn every_path_answers_another_method_with_405_and_the_methods_that_it_has() {
    let database = FakeDatabase::start().await;
    let app = booted_on(config(), database.port).app;
    for (router, routes) in [
        (product_router(&app), product_routes()),
        (admin_router(&app), admin_routes()),
    ] {
        for route in &routes {
            let mut expected = Vec::new();
            for other in routes.iter().filter(|other| other.path == route.path) {
                expected.push(other.method);
                if other.method == "GET" {
                    expected.push("HEAD");
                }
            }
            expected.sort_unstable();
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
                let request = format!("{method} {}", path_with(route, "", ""));
                let answer = ask(&router, &request, &[], "").await;
                assert_eq!(
                    answer.status == 405,
                    !expected.contains(&method),
                    "{request}"
                );
                if answer.status == 405 {
                    let mut allowed: Vec<&str> = answer.headers["allow"]
                        .to_str()
                        .unwrap()
                        .split(',')
                        .collect();
                    allowed.sort_unstable();
                    assert_eq!(allowed, expected, "{request}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_route_that_is_not_public_wants_the_token_before_anything_else() {
    let mut config = config();
    config.api_token = ApiToken::new("s3cret");
    let database = FakeDatabase::start().await;
    let app = booted_on(config, database.port).app;
    for (router, routes) in [
        (product_router(&app), product_routes()),
        (admin_router(&app), admin_routes()),
    ] {
        for route in &routes {
            for (token, admits) in [
                (None, route.access == Access::Public),
                (Some("Bearer wrong"), route.access == Access::Public),
                (Some("Bearer s3cret"), true),
            ] {
                let headers: Vec<_> = token
                    .map(|token| ("authorization", token))
                    .into_iter()
                    .collect();
                let request = format!("{} {}", route.method, path_with(route, "", ""));
                let answer = ask(&router, &request, &headers, "").await;
                assert_eq!(answer.status != 401, admits, "{request} {token:?}");
            }
        }
    }
}
