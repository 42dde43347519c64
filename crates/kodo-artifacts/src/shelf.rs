//! The store of the product database that this process works on, once it is known which that is.

use std::sync::{Arc, OnceLock};

use crate::ArtifactStore;

/// A place for the store: whoever serves requests is there before the database has said which one it is.
#[derive(Clone, Default)]
pub struct Shelf(Arc<OnceLock<Arc<dyn ArtifactStore>>>);

impl Shelf {
    /// Puts the store there. Called once.
    pub fn set(&self, store: Arc<dyn ArtifactStore>) {
        // A second one would be a bug of the boot sequence; the first one stays.
        let _ = self.0.set(store);
    }

    /// The store, if boot has come that far.
    #[must_use]
    pub fn get(&self) -> Option<&dyn ArtifactStore> {
        self.0.get().map(AsRef::as_ref)
    }
}
