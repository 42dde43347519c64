//! Bodies that come in pieces, with pauses, and may break.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// One thing that happens while a body is sent.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// These bytes go out.
    Bytes(Bytes),
    /// Nothing happens for a while.
    Pause(Duration),
    /// The connection breaks.
    Break,
    /// These bytes go out again and again.
    Forever(Bytes),
}

/// A body that is known whole.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body in pieces.
pub(crate) fn pieces(pieces: Vec<Piece>) -> Body {
    let frames = unfold(
        pieces
            .into_iter()
            .collect::<std::collections::VecDeque<_>>(),
        |mut left| async {
            loop {
                match left.front()?.clone() {
                    Piece::Forever(bytes) => return Some((Ok(Frame::data(bytes)), left)),
                    Piece::Bytes(bytes) => {
                        left.pop_front();
                        return Some((Ok(Frame::data(bytes)), left));
                    }
                    Piece::Break => {
                        left.clear();
                        return Some((Err(io::Error::other("broken by script")), left));
                    }
                    Piece::Pause(pause) => {
                        left.pop_front();
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        },
    );
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
