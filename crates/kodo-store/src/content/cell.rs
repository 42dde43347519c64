//! The artifact store of this process, which is known once the product database has said which one it is.

use std::sync::{Arc, OnceLock};

use super::ArtifactStore;

/// An [`ArtifactStore`] that is set once: the server listens before the boot sequence knows which store it is.
#[derive(Clone, Default)]
pub struct ArtifactStoreCell(Arc<OnceLock<Arc<dyn ArtifactStore>>>);

impl ArtifactStoreCell {
    /// Sets the store. Called once; a second call has no effect.
    pub fn set(&self, store: Arc<dyn ArtifactStore>) {
        let _ = self.0.set(store);
    }

    /// Returns the store, or `None` if boot has not set it yet.
    #[must_use]
    pub fn get(&self) -> Option<&Arc<dyn ArtifactStore>> {
        self.0.get()
    }
}
