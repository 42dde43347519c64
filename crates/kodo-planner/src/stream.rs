//! An answer that comes as server-sent events, one chunk of a chat completion each.

use std::pin::pin;

use bytes::Bytes;
use futures_util::stream::{Stream, TryStreamExt};
use sse_stream::{Error, SseByteStream};

use crate::Secret;
use crate::completion::Completion;
use kodo_contract::ErrorCode;

use crate::failure::Failure;

/// The event that ends a stream of chunks.
const DONE: &str = "[DONE]";

/// Reads a stream of chunks up to its end mark.
///
/// # Errors
/// The failure of the stream itself; or what is wrong with a chunk; or that the stream ended before the answer did.
pub(crate) async fn read(
    pieces: impl Stream<Item = Result<Bytes, Failure>>,
    secret: Option<&Secret>,
) -> Result<Completion, Failure> {
    let mut completion = Completion::default();
    let mut events = pin!(SseByteStream::new(pieces));
    while let Some(event) = events.try_next().await.map_err(failure)? {
        match event.data.as_deref() {
            Some(DONE) => return Ok(completion),
            // Events without data keep a connection alive.
            None | Some("") => {}
            Some(chunk) => completion.add(chunk.as_bytes(), secret)?,
        }
    }
    // Some servers end a stream without the mark. An answer that says why it ended is complete.
    if completion.finish_reason.is_none() {
        return Err(Failure::new(
            ErrorCode::PlannerAnswerIncomplete,
            "the stream ended before the answer did",
        ));
    }
    Ok(completion)
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
    Failure::new(
        ErrorCode::PlannerAnswerInvalid,
        format!("the provider's answer is no JSON: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// The content of an answer that arrives in these pieces.
    async fn content(pieces: &[&[u8]]) -> Result<String, Failure> {
        let pieces = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece)));
        read(stream::iter(pieces), None).await.map(|it| it.content)
    }

    fn chunk(content: &str) -> String {
        format!("{{\"choices\":\ndata:[{{\"delta\":{{\"content\":\"{content}\"}}}}]}}")
    }

    #[tokio::test]
    async fn events_are_the_same_however_they_are_cut_and_whichever_line_ends_they_have() {
        let stream = format!(
            "\u{feff}: hello\nevent: x\ndata: {}\n\nretry: 5\n\n\ndata: {}\n\ndata\n\ndata: [DONE]\n\ndata: half",
            chunk("a"),
            chunk("ü"),
        );
        for end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', end);
            for at in 0..stream.len() {
                let (one, other) = stream.as_bytes().split_at(at);
                let read = content(&[one, other]).await;
                assert_eq!(read.as_deref(), Ok("aü"), "{end:?}, cut at {at}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_after_the_end_mark_is_not_read() {
        let stream = format!("data: {}\n\ndata: [DONE]\n\ndata: {{\n\n", chunk("a"));
        assert_eq!(content(&[stream.as_bytes()]).await.as_deref(), Ok("a"));
    }
}
