//! The bearer token, where one is set.

use hyper::Method;

use crate::api::{refusal, rows};
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World};

const UNAUTHORIZED: &str = r#"401 {"error":"unauthorized"}"#;

const TOKEN: &str = "s3cret-T0ken~!";

async fn status(world: &World, method: Method, path: &str, token: &str) -> u16 {
    let value = format!("Bearer {token}");
    let headers = [("authorization", value.as_str())];
    let answer = world.client.send(method, path, &headers, DEMO_INTENT).await;
    answer.expect("an answer").status
}

#[tokio::test]
async fn every_route_but_the_probes_wants_the_token() {
    // Open to the network, which only a token allows.
    let world = World::with("token", |options| {
        options.env("API_TOKEN", TOKEN).env("HOST", "0.0.0.0")
    })
    .await;
    for (method, path) in [
        ("POST", "/intents"),
        ("POST", "/intents/x/run"),
        ("GET", "/runs/x"),
        ("POST", "/crashdemo?wf=x"),
        ("GET", "/marks?wf=x"),
        ("GET", "/nothing"),
        ("DELETE", "/intents"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
        ("GET", "/"),
    ] {
        for headers in [
            &[][..],
            &[("authorization", "Bearer wrong")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer s3cret-T0ken~")],
            &[("authorization", "Bearer s3cret-t0ken~!")],
            &[("authorization", "Basic s3cret-T0ken~!")],
            &[("authorization", TOKEN)],
            &[("x-api-token", TOKEN)],
        ] {
            let refused = refusal(&world, method, path, headers, DEMO_INTENT).await;
            assert_eq!(refused, UNAUTHORIZED, "{method} {path} {headers:?}");
        }
    }
    assert_eq!(
        refusal(&world, "GET", "/marks?wf=x&token=s3cret-T0ken~!", &[], "").await,
        UNAUTHORIZED
    );
    for path in ["/healthz", "/readyz"] {
        for method in [Method::GET, Method::HEAD] {
            let open = world.client.send(method, path, &[], "").await.unwrap();
            assert_eq!(open.status, 200, "{path}");
        }
    }
    assert_eq!(status(&world, Method::POST, "/intents", TOKEN).await, 201);
    assert_eq!(status(&world, Method::GET, "/marks?wf=x", TOKEN).await, 200);
    assert_eq!(status(&world, Method::GET, "/nothing", TOKEN).await, 404);
    assert_eq!(rows(&world).await, (1, 0, 0, 0));

    let refused = world.client.get("/marks?wf=x").await.unwrap();
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let admin = world.service.admin();
    assert_eq!(admin.get("/readyz").await.unwrap().status, 200);
    assert!(!world.service.log().contains(TOKEN), "a secret in the log");
}

#[tokio::test]
async fn the_token_may_come_from_a_file() {
    let scratch = Scratch::new("token_file");
    let file = scratch.file("token", &format!("{TOKEN}\n"));
    let world = World::with("token_file", |options| {
        options.env("API_TOKEN_FILE", file.display())
    })
    .await;
    assert_eq!(
        refusal(&world, "POST", "/intents", &[], DEMO_INTENT).await,
        UNAUTHORIZED
    );
    assert_eq!(status(&world, Method::POST, "/intents", TOKEN).await, 201);
}
