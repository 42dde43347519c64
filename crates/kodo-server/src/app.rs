//! The state that all handlers share.

use std::sync::Arc;

use kodo_store::Store;
use kodo_store::content::{ArtifactStore, ArtifactStoreCell};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::extract::upload::UploadRoom;
use crate::readiness::Readiness;
use kodo_engine::EngineHandle;

/// The service behind both APIs. A handle: cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    config: ServerConfig,
    store: Store,
    artifacts: ArtifactStoreCell,
    engine: EngineHandle,
    readiness: Readiness,
    large_views: Arc<Semaphore>,
    uploads: UploadRoom,
}

/// How many large views are put together at once.
const LARGE_VIEWS: usize = 2;

impl App {
    /// Puts the service together. The store connects lazily and the engine may be launched later.
    #[must_use]
    pub fn new(
        config: ServerConfig,
        store: Store,
        artifacts: ArtifactStoreCell,
        engine: EngineHandle,
        readiness: Readiness,
    ) -> Self {
        let inner = Inner {
            uploads: UploadRoom::new(
                config
                    .max_uploads_together_bytes
                    .max(config.max_upload_bytes),
            ),
            config,
            store,
            artifacts,
            engine,
            readiness,
            large_views: Arc::new(Semaphore::new(LARGE_VIEWS)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.inner.config
    }

    pub(crate) fn uploads(&self) -> &UploadRoom {
        &self.inner.uploads
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The artifact store, which boot opens before it reports the schema.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if boot has not opened it yet.
    pub(crate) fn artifacts(&self) -> Result<&Arc<dyn ArtifactStore>, ApiError> {
        let store = self.inner.artifacts.get();
        store.ok_or_else(|| ApiError::Unavailable("boot has not opened the artifact store".into()))
    }

    pub(crate) fn engine(&self) -> &EngineHandle {
        &self.inner.engine
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }

    /// Waits until a large view may be put together.
    pub(crate) async fn turn_for_large_view(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let turn = Arc::clone(&self.inner.large_views).acquire_owned().await;
        // Nobody closes the semaphore.
        turn.map_err(|error| ApiError::Internal(error.to_string()))
    }

    /// Bounds how long a request may take after its body was read.
    ///
    /// A statement that was sent may still commit after the client was answered 503; idempotency keys make the retry
    /// safe. The sweep finds a run that was stored this way.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] after the time of [`ServerConfig::request_timeout`]; otherwise the error of `work`.
    pub(crate) async fn in_time<T, E: Into<ApiError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ApiError> {
        let limit = self.inner.config.request_timeout;
        let done = match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => Err(ApiError::Unavailable(format!("not done within {limit:?}"))),
        };
        match done {
            // For the log line, where the pool only knows that it got no connection in time.
            Err(ApiError::Unavailable(cause)) => Err(ApiError::Unavailable(
                match self.inner.store.why_unavailable().await {
                    Some(why) if why != cause => format!("{cause}: {why}"),
                    _ => cause,
                },
            )),
            done => done,
        }
    }
}
