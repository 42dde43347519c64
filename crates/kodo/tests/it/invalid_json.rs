//! Malformed JSON is refused whole: 400, and no row.

use crate::api::refused_post;
use crate::support::{DEMO_INTENT, World};

/// Documents that are no JSON document, with what is wrong.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let intent = DEMO_INTENT.as_bytes();
    let with = |prefix: &[u8], suffix: &[u8]| [prefix, intent, suffix].concat();
    let goal =
        |goal: &str| format!(r#"{{"goal":{goal},"inputs":{{}},"constraints":{{}}}}"#).into_bytes();
    let input = |value: &str| {
        format!(r#"{{"goal":"g","inputs":{{"a":{value}}},"constraints":{{}}}}"#).into_bytes()
    };
    vec![
        ("blanks", b" \n ".to_vec()),
        ("the course's", b"{bad".to_vec()),
        ("cut off", intent[..intent.len() - 1].to_vec()),
        ("trailing garbage", with(b"", b" x")),
        ("a trailing comma", with(b"", b",")),
        ("two documents", with(b"", intent)),
        ("two documents on two lines", with(b"{}\n", b"")),
        ("a trailing NUL", with(b"", b"\0")),
        ("a byte order mark", with(b"\xef\xbb\xbf", b"")),
        ("UTF-16", with(b"\xff\xfe", b"")),
        ("invalid UTF-8", [&b"\"\xc3\""[..]].concat()),
        ("a surrogate as UTF-8", b"\"\xed\xa0\x80\"".to_vec()),
        ("an overlong NUL", b"\"\xc0\x80\"".to_vec()),
        ("a high surrogate alone", goal(r#""\ud800""#)),
        ("a low surrogate alone", goal(r#""\udc00""#)),
        ("surrogates swapped", goal(r#""\ude00\ud83d""#)),
        ("a surrogate in a key", input(r#"{"\ud83d":1}"#)),
        ("NaN", input("NaN")),
        ("Infinity", input("-Infinity")),
        ("a leading zero", input("01")),
        ("a plus sign", input("+1")),
        ("no digit after the point", input("1.")),
        ("hexadecimal", input("0x1")),
        ("a trailing comma inside", input("[1,]")),
        ("single quotes", b"{'goal':'g'}".to_vec()),
        ("a bare key", b"{goal:\"g\"}".to_vec()),
        ("a comment", with(b"/**/", b"")),
        ("a raw control character", goal("\"\u{1}\"")),
        ("a raw line feed", goal("\"\n\"")),
        ("an unknown escape", goal(r#""\x41""#)),
        (
            "nested 129 deep",
            input(&("[".repeat(127) + &"]".repeat(127))),
        ),
        ("nested very deep", vec![b'['; 1 << 20]),
        ("deep and not closed", b"{\"a\":".repeat(100_000)),
    ]
}

#[tokio::test]
async fn what_is_no_json_document_is_400_invalid_json_and_writes_nothing() {
    let world = World::new("invalid_json").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = format!("/intents/{intent}/run");
    let invalid = r#"400 {"error":"invalid json"}"#;
    assert_eq!(refused_post(&world, "/intents", "").await, invalid, "empty");
    for (what, body) in malformed() {
        assert_eq!(
            refused_post(&world, "/intents", body.clone()).await,
            invalid,
            "{what}"
        );
        assert_eq!(refused_post(&world, &run, body).await, invalid, "{what}");
    }
    // The service is none the worse for it.
    world.intent(DEMO_INTENT).await;
}
