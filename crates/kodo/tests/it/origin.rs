//! No page of a stranger's site can make a browser ask us.

use hyper::Method;

use crate::api::{refusal, rows};
use crate::support::{DEMO_INTENT, World};

const FORBIDDEN: &str = r#"403 {"error":"forbidden origin"}"#;

#[tokio::test]
async fn a_foreign_origin_is_refused_on_every_route_and_ours_is_not() {
    let world = World::new("origin").await;
    let port = world.service.port;
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1",
        &format!("https://127.0.0.1:{port}"),
        &format!("http://127.0.0.1:{port}.evil.example"),
        &format!("http://evil.example:{port}"),
    ] {
        for (method, path) in [
            ("POST", "/intents"),
            ("POST", "/intents/x/run"),
            ("POST", "/crashdemo?wf=x"),
            ("GET", "/runs/x"),
            ("GET", "/marks?wf=x"),
            ("GET", "/healthz"),
            ("GET", "/nothing"),
            ("OPTIONS", "/intents"),
        ] {
            let refused = refusal(&world, method, path, &[("origin", origin)], DEMO_INTENT).await;
            assert_eq!(refused, FORBIDDEN, "{method} {path} from {origin}");
        }
    }
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let origin = format!("http://{host}:{port}");
        let headers = [
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        let answer = world
            .client
            .send(Method::POST, "/intents", &headers, DEMO_INTENT)
            .await
            .unwrap();
        assert_eq!(answer.status, 201, "{origin}");
        // A page of ours needs no permission, and no other gets one.
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(rows(&world).await.0, 3);

    let cross = [("sec-fetch-site", "cross-site")];
    for path in ["/intents", "/intents/x/run", "/crashdemo?wf=x"] {
        let refused = refusal(&world, "POST", path, &cross, DEMO_INTENT).await;
        assert_eq!(refused, FORBIDDEN, "{path}");
    }
    let link = world.client.send(Method::GET, "/healthz", &cross, "").await;
    assert_eq!(link.unwrap().status, 200);
}
