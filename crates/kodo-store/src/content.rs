//! Content by its hash: what is too large for a row.
//!
//! What is small stays in its row ([`content_of`] says which bytes it stands for); from [`STORED_FROM`] on, content goes
//! into an [`ArtifactStore`] under its sha256, once for all runs that produce it, and the row only names it. There are
//! two stores, both by `object_store`: a local folder and any S3-compatible store.
//!
//! Nothing that a store returns is trusted: [`read`] compares it with the hash that named it.

mod cell;
mod error;
mod folder;
mod inline;
mod lent;
mod lock;
mod objects;
mod place;
mod read;
mod refused;
mod s3;
mod store;
mod tarball;
mod unpack;
mod wire;

pub use cell::ArtifactStoreCell;
pub use error::ArtifactError;
pub use inline::{
    Content, STORED_FROM, content_of, file_bytes, media_type_of, media_type_of_content, shortened,
};
pub use lock::{ContentClaims, HeldContent, UnnamedContent};
pub use objects::ObjectArtifacts;
pub use place::{Lent, Place, PlaceError, S3Access, S3Place};
pub use read::{Piece, Pieces, check, read, read_into, read_whole};
pub use store::{ArtifactStore, ContentInfo, Listed};
pub use tarball::tarball;
pub use unpack::{UnpackError, unpack};
