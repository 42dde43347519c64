//! Artifacts by content.
//!
//! What is small stays in its row ([`content_of`] says what its bytes are); from [`STORED_FROM`] on, content goes into an
//! [`ArtifactStore`] under its sha256, once for all runs that come to it, and the row only names it. There are two of
//! them, both by `object_store`: a local folder and any S3-compatible store.
//!
//! Nothing read from a store is taken for what it should be: [`read`] compares it with the hash that named it.

mod content;
mod error;
mod folder;
mod objects;
mod place;
mod read;
mod refused;
mod s3;
mod shelf;
mod store;
mod wire;

pub use content::{Content, STORED_FROM, content_of, media_type_of, shortened};
pub use error::ArtifactError;
pub use objects::ObjectArtifacts;
pub use place::{Place, PlaceError, S3Access, S3Place};
pub use read::{Piece, Pieces, check, read};
pub use shelf::Shelf;
pub use store::{ArtifactStore, Held, Listed};
