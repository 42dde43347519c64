//! The limits of request bodies: size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::ApiError;

/// The largest body that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Reads a body to its end. The body is dropped in any case: if a part of it is unread, the server closes the
/// connection, see `linger.rs`.
///
/// A `Content-Length` that is too large is refused before the first byte is read, so a client that sent
/// `Expect: 100-continue` is not told to continue.
///
/// # Errors
/// Those of [`errors`].
pub(crate) async fn read(body: Body, patience: Duration) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(ApiError::PayloadTooLarge);
    }
    let collecting = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(patience, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::PayloadTooLarge),
        // The client went away, or its chunks are malformed.
        Ok(Err(_)) => Err(ApiError::BrokenBody),
        Err(_) => Err(ApiError::SlowBody),
    }
}

/// What [`read`] answers if the body is not within the limits.
pub(crate) fn errors() -> [ApiError; 3] {
    [
        ApiError::BrokenBody,
        ApiError::SlowBody,
        ApiError::PayloadTooLarge,
    ]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A body of chunks of unknown total length; after the last one it ends, or never does.
    struct Chunks {
        left: Vec<Bytes>,
        then_hang: bool,
    }

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.left.pop() {
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                None if self.then_hang => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn chunks(sizes: &[usize], then_hang: bool) -> Body {
        let left = sizes.iter().map(|&size| vec![b'x'; size].into()).collect();
        Body::new(Chunks { left, then_hang })
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_however_it_is_cut() {
        let half = MAX_BODY_BYTES / 2;
        for body in [
            Body::from(vec![b'x'; MAX_BODY_BYTES]),
            chunks(&[MAX_BODY_BYTES], false),
            chunks(&[half, half], false),
            chunks(&[1, 0, MAX_BODY_BYTES - 3, 2], false),
        ] {
            assert_eq!(read(body, LONG).await.unwrap().len(), MAX_BODY_BYTES);
        }
    }

    #[tokio::test]
    async fn one_byte_more_is_refused_without_waiting_for_the_rest() {
        let half = MAX_BODY_BYTES / 2;
        for body in [
            Body::from(vec![b'x'; MAX_BODY_BYTES + 1]),
            chunks(&[MAX_BODY_BYTES + 1], true),
            chunks(&[1, half, half], true),
        ] {
            let error = read(body, LONG).await.unwrap_err();
            assert!(matches!(error, ApiError::PayloadTooLarge), "{error}");
        }
    }

    #[tokio::test]
    async fn the_pieces_are_joined_in_order() {
        let left = vec![Bytes::from("c"), Bytes::from("b"), Bytes::from("a")];
        let body = Body::new(Chunks {
            left,
            then_hang: false,
        });
        assert_eq!(read(body, LONG).await.unwrap(), "abc");
        assert_eq!(read(Body::empty(), LONG).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_is_not_waited_for_forever() {
        let body = chunks(&[10], true);
        let error = read(body, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ApiError::SlowBody), "{error}");
    }
}
