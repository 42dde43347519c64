//! An answer that comes as server-sent events, one chunk of a chat completion each.

use std::pin::pin;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, TryStreamExt, once};
use kodo_contract::parse_json;
use sse_stream::{Error, Sse, SseByteStream};

use crate::Secret;
use crate::completion::{Completion, incomplete, invalid};
use crate::failure::Failure;
use crate::refusal::Refusal;
use crate::told::Told;
use crate::unanswered::Unanswered;

/// The event that ends a stream of chunks.
const DONE: &str = "[DONE]";

/// Reads a stream of chunks up to its end mark.
///
/// # Errors
/// The failure of the stream itself; or what is wrong with a chunk; or that the stream ended before the answer did: with an
/// end mark or without one, an answer that does not say why it ended was broken off.
pub(crate) async fn read(
    pieces: impl Stream<Item = Result<Bytes, Failure>>,
    secret: Option<&Secret>,
) -> Result<Completion, Unanswered> {
    let mut completion = Completion::default();
    // The standard drops a last event without an empty line after it, and some servers send none.
    let pieces = pieces.chain(once(async { Ok(Bytes::from_static(b"\n\n")) }));
    let mut events = pin!(SseByteStream::new(pieces));
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            // What breaks after the end of the answer takes nothing away from it.
            Err(_) if completion.finish_reason.is_some() => break,
            Err(error) => return Err(failure(error).into()),
        };
        if event.data.as_deref().map(str::trim) == Some(DONE) {
            break;
        }
        take(&mut completion, &event, secret)?;
    }
    match completion.finish_reason {
        Some(_) => Ok(completion),
        None => Err(incomplete("the stream ended before the answer did").into()),
    }
}

/// Takes one event. Those without data keep a connection alive, and so do those of a type of their own without JSON.
fn take(
    completion: &mut Completion,
    event: &Sse,
    secret: Option<&Secret>,
) -> Result<(), Unanswered> {
    let data = event.data.as_deref().unwrap_or_default();
    match event.event.as_deref() {
        Some("error") => Err(Refusal::in_answer(Told::of_body(data.as_bytes()), secret).into()),
        _ if data.trim().is_empty() => Ok(()),
        Some(kind) if !["", "message"].contains(&kind) && parse_json(data.as_bytes()).is_err() => {
            Ok(())
        }
        _ => completion.add(data.as_bytes(), secret),
    }
}

fn failure(error: Error) -> Failure {
    let reason = match error {
        Error::Body(error) => match error.downcast::<Failure>() {
            Ok(failure) => return *failure,
            Err(error) => error.to_string(),
        },
        Error::Utf8Parse(error) => format!("not UTF-8: {error}"),
        other => other.to_string(),
    };
    invalid(format!("the provider's answer is no JSON: {reason}"))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use kodo_contract::ErrorCode;

    use super::*;

    /// The content of an answer that arrives in these pieces.
    async fn content(pieces: &[&[u8]]) -> Result<String, Failure> {
        let pieces = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let read = read(stream::iter(pieces), None).await;
        read.map(Completion::into_text).map_err(|it| it.failure(0))
    }

    fn chunk(content: &str) -> String {
        format!("{{\"choices\":\ndata:[{{\"delta\":{{\"content\":\"{content}\"}}}}]}}")
    }

    const END: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;

    #[tokio::test]
    async fn events_are_the_same_however_they_are_cut_and_whichever_line_ends_they_have() {
        let whole = format!(
            "\u{feff}: hello\nevent: x\ndata: {}\n\nretry: 5\n\n\ndata: {}\n\ndata\n\ndata:{END}\n\ndata: [DONE]\n\ndata: half",
            chunk("a"),
            chunk("ü"),
        );
        // And one that ends without a mark, in its last line.
        let open = format!(
            "data: {}\n\n: ping\n\nid: 7\ndata: {}\n\nevent: message\ndata:{END}",
            chunk("a"),
            chunk("ü")
        );
        for stream in [whole, open] {
            for end in ["\n", "\r\n", "\r"] {
                let stream = stream.replace('\n', end);
                for at in 0..stream.len() {
                    let (one, other) = stream.as_bytes().split_at(at);
                    let read = content(&[one, other]).await;
                    assert_eq!(read.as_deref(), Ok("aü"), "{end:?}, cut at {at}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_after_the_end_mark_is_not_read() {
        let stream = format!(
            "data: {}\n\ndata: {END}\n\ndata:[DONE] \n\ndata: {{\n\n",
            chunk("a")
        );
        assert_eq!(content(&[stream.as_bytes()]).await.as_deref(), Ok("a"));
    }

    #[tokio::test]
    async fn a_stream_that_is_broken_off_is_no_answer_whatever_its_last_event() {
        for end in [
            "",
            "\n\n",
            "\n\ndata: [DONE]\n\n",
            "\n\ndata: {\"choices\":[{\"del",
            "\n\ndata: {\"choices\":null,\"usage\":{}}\n\n",
        ] {
            let stream = format!("data: {}{end}", chunk("{}"));
            let failure = content(&[stream.as_bytes()]).await.unwrap_err();
            assert_eq!(failure.code, ErrorCode::PlannerAnswerIncomplete, "{end:?}");
            assert!(failure.passes_after.is_some());
        }
    }

    #[tokio::test]
    async fn what_breaks_after_the_end_of_an_answer_takes_nothing_away_from_it() {
        let broken = || Err(incomplete("broken"));
        let whole = Bytes::from(format!("data: {}\n\ndata: {END}\n\n", chunk("a")));
        let answer = read(stream::iter([Ok(whole), broken()]), None).await;
        assert_eq!(answer.map(Completion::into_text).ok().as_deref(), Some("a"));
        let half = Bytes::from(format!("data: {}\n\n", chunk("a")));
        assert!(
            read(stream::iter([Ok(half), broken()]), None)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn what_is_no_chunk_is_skipped_unless_it_is_an_error() {
        let frames = format!(
            "event: ping\ndata: now\n\ndata: {{\"choices\":null,\"usage\":{{}}}}\n\nevent: ping\ndata: {{\"type\":\"ping\"}}\n\ndata: {}\n\ndata: {END}\n\n",
            chunk("a")
        );
        assert_eq!(content(&[frames.as_bytes()]).await.as_deref(), Ok("a"));
        for frame in [
            "event: error\ndata: overloaded\n\n",
            "event: error\ndata: {\"message\":\"overloaded\"}\n\n",
            "data: {\"error\":{\"message\":\"overloaded\"}}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\",\"error\":{\"message\":\"overloaded\",\"code\":502}}]}\n\n",
        ] {
            let stream = format!("data: {}\n\n{frame}data: {END}\n\n", chunk("a"));
            let failure = content(&[stream.as_bytes()]).await.unwrap_err();
            assert_eq!(failure.code, ErrorCode::PlannerUnavailable, "{frame}");
            assert!(failure.message.contains("overloaded"), "{failure}");
        }
        for frame in ["data: now", "data: {\"choices\":[{]}", "data: \u{0}"] {
            let stream = format!("data: {}\n\n{frame}\n\ndata: {END}\n\n", chunk("a"));
            let other = content(&[stream.as_bytes()]).await.unwrap_err();
            assert_eq!(other.code, ErrorCode::PlannerAnswerInvalid, "{frame}");
            assert!(other.passes_after.is_some(), "{frame}");
        }
    }
}
