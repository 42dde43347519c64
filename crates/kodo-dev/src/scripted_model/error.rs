//! What goes wrong with a script or its server.

use std::path::PathBuf;

/// Why there is no scripted model.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The port cannot be listened on.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// The script cannot be read.
    #[error("script {} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The script is none.
    #[error("script {} is invalid: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
