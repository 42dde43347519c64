//! Every route validates what it takes, and the list of routes is the router's own: a route that is added without its
//! case here fails.

use axum::Router;
use kodo_contract::{Boundary, Intent, RunRequest};
use kodo_server::{Route, admin_router, admin_routes, product_router, product_routes};
use serde_json::{Map, Value, json};

use crate::fake_database::FakeDatabase;
use crate::support::{ask, booted_on, config};

/// What a route takes from its client, and so has to check.
enum Takes {
    /// Nothing: whatever is sent beside the request changes nothing.
    Nothing,
    /// A body of a boundary type.
    Body(Body),
    /// An id in its path. Shown with a `GET`; a body comes on top of it.
    Id,
    /// A hash in its path.
    Hash,
    /// `?wf=`, and no body.
    Workflow,
}

/// A boundary type as a request body.
struct Body {
    name: &'static str,
    schema: Value,
}

impl Body {
    fn of<T: Boundary>() -> Takes {
        Takes::Body(Self {
            name: T::NAME,
            schema: schema(T::NAME),
        })
    }
}

/// The one place to say what a route takes.
fn takes(route: Route) -> Option<Takes> {
    Some(match (route.method, route.path) {
        ("GET", "/healthz" | "/readyz" | "/dbos-healthz") => Takes::Nothing,
        ("POST", "/intents") => Body::of::<Intent>(),
        ("POST", "/intents/{id}/run") => Body::of::<RunRequest>(),
        ("GET", "/runs/{id}" | "/runs/{id}/artifacts") => Takes::Id,
        ("GET", "/artifacts/{sha256}") => Takes::Hash,
        ("POST", "/crashdemo") | ("GET", "/marks") => Takes::Workflow,
        _ => return None,
    })
}

/// The schema file of a boundary type, by its title.
fn schema(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kodo-contract/schemas");
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
        .find(|schema| schema["title"] == name)
        .unwrap_or_else(|| panic!("{name} has no schema in {folder}"))
}

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

/// The route's path with an id that can exist.
fn target(route: Route) -> String {
    let id = if route.path.starts_with("/intents") {
        kodo_contract::IntentId::generate().into_string()
    } else {
        kodo_contract::RunId::generate().into_string()
    };
    let hash = kodo_contract::ContentHash::of(b"").into_string();
    route.path.replace("{id}", &id).replace("{sha256}", &hash)
}

async fn refuses_wrong_bodies(router: &Router, route: Route, body: &Body) {
    let request = format!("{} {}", route.method, target(route));
    for text in ["{", "{}{}", "NaN", "\u{feff}{}"] {
        let answer = ask(router, &request, &[], text).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, r#"{"error":"invalid json"}"#),
            "{request} {text}"
        );
    }
    for (text, violation) in wrong_bodies(&body.schema) {
        let answer = ask(router, &request, &[], &text).await;
        assert_eq!(answer.status, 400, "{request} {text}: {}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let error = said["error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("invalid {}: ", body.name)) && error.contains(&violation),
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

async fn refuses_wrong_ids(router: &Router, route: Route) {
    let long = route.path.replace("{id}", &"x".repeat(257));
    let answer = ask(router, &format!("{} {long}", route.method), &[], "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (400, r#"{"error":"id must be at most 256 bytes"}"#),
        "{route:?}"
    );
    for id in ["x", "%00", "%ff", "run_XYZ", "run_0", "it_0"] {
        let path = route.path.replace("{id}", id);
        let answer = ask(router, &format!("{} {path}", route.method), &[], "").await;
        assert_eq!(answer.status, 404, "{route:?} {id}");
    }
}

async fn refuses_what_is_no_hash(router: &Router, route: Route) {
    let good = kodo_contract::ContentHash::of(b"").into_string();
    let wrong = [
        "x",
        "%00",
        "%ff",
        &good[1..],
        &format!("{good}0"),
        &good.to_uppercase(),
        &format!("%20{}", &good[1..]),
    ];
    for hash in wrong {
        let path = route.path.replace("{sha256}", hash);
        let answer = ask(router, &format!("{} {path}", route.method), &[], "").await;
        let error = "artifact id must be a sha256 of 64 lower-case hexadecimal digits";
        assert_eq!(
            (answer.status, answer.body),
            (400, json!({ "error": error }).to_string()),
            "{route:?} {hash}"
        );
    }
}

async fn refuses_wrong_workflow_ids(router: &Router, route: Route) {
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

async fn is_not_moved_by_a_body(router: &Router, route: Route) {
    let request = format!("{} {}", route.method, route.path);
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
async fn every_route_of_both_routers_checks_what_it_takes_and_writes_nothing_that_it_refuses() {
    let database = FakeDatabase::start().await;
    let app = booted_on(config(), database.port).app;
    for (router, routes) in [
        (product_router(&app), product_routes()),
        (admin_router(&app), admin_routes()),
    ] {
        assert!(!routes.is_empty());
        for route in routes {
            let Some(takes) = takes(route) else {
                panic!(
                    "{route:?} is new: say in `takes` what it takes, so that it is sent what it must refuse"
                );
            };
            if route.path.contains("{id}") {
                refuses_wrong_ids(&router, route).await;
            }
            match takes {
                Takes::Nothing => is_not_moved_by_a_body(&router, route).await,
                Takes::Body(body) => refuses_wrong_bodies(&router, route, &body).await,
                Takes::Id => assert!(route.path.contains("{id}"), "{route:?}"),
                Takes::Hash => refuses_what_is_no_hash(&router, route).await,
                Takes::Workflow => refuses_wrong_workflow_ids(&router, route).await,
            }
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
async fn a_listed_route_is_one_that_answers_and_the_list_is_complete() {
    let database = FakeDatabase::start().await;
    let app = booted_on(config(), database.port).app;
    for (router, routes) in [
        (product_router(&app), product_routes()),
        (admin_router(&app), admin_routes()),
    ] {
        for route in &routes {
            let other = if route.method == "GET" { "POST" } else { "GET" };
            let twin = routes
                .iter()
                .any(|twin| twin.path == route.path && twin.method == other);
            let answer = ask(&router, &format!("{other} {}", target(*route)), &[], "").await;
            assert_eq!(answer.status == 405, !twin, "{other} {}", route.path);
        }
    }
}
