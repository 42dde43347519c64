//! An upload: a body of any length up to the limit, received into a file without a name, so that nothing of an upload that
//! was interrupted remains, whatever interrupted it.

mod room;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use http_body_util::BodyExt;
use kodo_contract::ContentHash;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::error::ApiError;
use crate::route::{Describe, Input, Route};

pub(crate) use room::{Share, UploadRoom};

/// How much is written at once.
const PIECE: usize = 256 * 1024;

/// A body that was received whole.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) file: Arc<File>,
    /// Its length, in bytes.
    pub(crate) size: u64,
    pub(crate) hash: ContentHash,
    /// The room among all uploads that the file takes on the disk; kept as long as the file.
    _share: Share,
}

impl FromRequest<App> for Upload {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let config = app.config();
        receive(
            request.into_body(),
            app.uploads(),
            &config.upload_folder,
            config.max_upload_bytes,
            config.body_timeout,
        )
        .await
    }
}

impl Describe for Upload {
    fn describe(route: &mut Route) {
        route.inputs.push(Input::Upload);
        route.refuses([
            ApiError::BrokenBody,
            ApiError::SlowBody,
            // The text of `UploadTooLarge` begins like this one, and goes on with the limit.
            ApiError::PayloadTooLarge,
            ApiError::Unavailable(String::new()),
        ]);
    }
}

/// Receives a body of at most `most` bytes whose client is never silent for longer than `patience`.
///
/// A `Content-Length` that is too large is refused before the first byte is read, as `limits::read` does.
async fn receive(
    mut body: Body,
    room: &UploadRoom,
    folder: &Path,
    most: u64,
    patience: Duration,
) -> Result<Upload, ApiError> {
    if body.size_hint().lower() > most {
        return Err(ApiError::UploadTooLarge(most));
    }
    // Grows with what is received: an announced length holds nothing up that never comes.
    let mut share = room.share(patience).await?;
    let folder = folder.to_owned();
    let file = on_disk(move || {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        tempfile::tempfile_in(&folder)
    });
    let file = Arc::new(file.await?);
    let (mut hash, mut size, mut held) = (Sha256::new(), 0, BytesMut::new());
    loop {
        let frame = match tokio::time::timeout(patience, body.frame()).await {
            Ok(frame) => frame.transpose().map_err(|_| ApiError::BrokenBody)?,
            Err(_) => return Err(ApiError::SlowBody),
        };
        let over = frame.is_none();
        // A frame without data has trailers, which say nothing here.
        if let Some(Ok(data)) = frame.map(|frame| frame.into_data()) {
            held.extend_from_slice(&data);
        }
        if size + held.len() as u64 > most {
            return Err(ApiError::UploadTooLarge(most));
        }
        share.grow_to(size + held.len() as u64)?;
        if held.len() < PIECE && !over {
            continue;
        }
        let (piece, to, at) = (held.split().freeze(), Arc::clone(&file), size);
        size += piece.len() as u64;
        hash = on_disk(move || {
            hash.update(&piece);
            to.write_all_at(&piece, at)?;
            Ok(hash)
        })
        .await?;
        if over {
            let hash = ContentHash::from_digest(hash.finalize().into());
            return Ok(Upload {
                file,
                size,
                hash,
                _share: share,
            });
        }
    }
}

/// Carries out work on the local disk. It may have room later.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| {
            let cause = format!("the upload cannot be written below KODO_DATA_DIR: {error}");
            ApiError::Unavailable(cause)
        }),
        Err(error) => Err(ApiError::Internal(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::stream::{self, StreamExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn chunks(sizes: &[usize]) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + use<> {
        let chunks: Vec<_> = sizes
            .iter()
            .map(|size| Ok(Bytes::from(vec![b'x'; *size])))
            .collect();
        stream::iter(chunks)
    }

    #[tokio::test]
    async fn an_upload_is_what_was_sent_however_it_is_cut_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("made");
        for sizes in [&[][..], &[1], &[3 << 20], &[1, 1 << 20, 7, (2 << 20) - 8]] {
            let body = Body::from_stream(chunks(sizes));
            let upload = receive(body, &UploadRoom::new(3 << 20), &below, 3 << 20, LONG)
                .await
                .unwrap();
            let length: usize = sizes.iter().sum();
            assert_eq!(upload.size, length as u64);
            assert_eq!(upload.hash, ContentHash::of(&vec![b'x'; length]));
            assert_eq!(upload.file.metadata().unwrap().len(), length as u64);
        }
        assert_eq!(below.read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn one_byte_more_is_refused_without_waiting_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        for body in [
            Body::from(vec![b'x'; 101]),
            Body::from_stream(chunks(&[50, 51]).chain(stream::pending())),
        ] {
            let error = receive(body, &UploadRoom::new(200), folder.path(), 100, LONG)
                .await
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "payload too large: an upload has at most 100 bytes (MAX_UPLOAD_BYTES)"
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_is_not_waited_for_forever() {
        let folder = tempfile::tempdir().unwrap();
        let silent = Body::from_stream(chunks(&[5]).chain(stream::pending()));
        let (patience, room) = (Duration::from_millis(20), UploadRoom::new(100));
        let receiving = receive(silent, &room, folder.path(), 100, patience);
        let error = receiving.await.unwrap_err();
        assert!(matches!(error, ApiError::SlowBody), "{error}");
    }
    #[tokio::test]
    async fn a_body_for_which_others_leave_no_room_is_refused_however_it_tells_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let room = UploadRoom::new(150);
        let body = || Body::from_stream(chunks(&[60, 40]));
        let first = receive(body(), &room, folder.path(), 100, LONG)
            .await
            .unwrap();
        for second in [body(), Body::from(vec![b'x'; 100])] {
            let refused = receive(second, &room, folder.path(), 100, LONG).await;
            assert!(matches!(refused, Err(ApiError::Unavailable(_))));
        }
        drop(first);
        receive(body(), &room, folder.path(), 100, LONG)
            .await
            .unwrap();
    }
}
