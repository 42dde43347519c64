//! Why an artifact store did not do what it was asked, split by what the caller can do about it.

use std::error::Error as StdError;
use std::io;

use kodo_contract::ErrorCode;

use super::refused::Refused;

/// A failed call to an artifact store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// It cannot be reached, is overloaded or does not answer in time: the same call can succeed later.
    #[error("the artifact store is unavailable: {0}")]
    Unavailable(String),
    /// It has no room. An operator can make some.
    #[error("the artifact store is full: {0}")]
    Full(String),
    /// It answers, and does not let us: credentials, permissions, a bucket that does not exist.
    #[error("the artifact store refused: {0}")]
    Denied(String),
    /// It has no content of this hash.
    #[error("the artifact store has no content of this hash")]
    Missing,
    /// It has something else under this hash.
    #[error("the artifact store has content that does not fit its hash: {0}")]
    Damaged(String),
}

impl ArtifactError {
    /// Stable, for programs: why a run failed. Whether the same call can succeed later is said there.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::ArtifactStoreUnavailable,
            Self::Full(_) => ErrorCode::ArtifactStoreFull,
            Self::Denied(_) => ErrorCode::ArtifactStoreDenied,
            Self::Missing => ErrorCode::ArtifactMissing,
            Self::Damaged(_) => ErrorCode::ArtifactDamaged,
        }
    }

    /// Whether the same call can succeed later although nobody changes anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.code().is_transient()
    }
}

impl From<object_store::Error> for ArtifactError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error;
        if let Some(refused) = cause::<Refused>(&error) {
            let text = sanitized(refused);
            return match refused.is_full {
                true => Self::Full(text),
                false => Self::Denied(text),
            };
        }
        let text = sanitized(&error);
        match &error {
            Error::NotFound { .. } => Self::Missing,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied(text),
            // The operating system's error, if it is the cause.
            _ => match cause::<io::Error>(&error) {
                Some(system) => Self::of_io(system.kind(), text),
                None => Self::Unavailable(text),
            },
        }
    }
}

impl From<io::Error> for ArtifactError {
    fn from(error: io::Error) -> Self {
        Self::of_io(error.kind(), error.to_string())
    }
}

impl ArtifactError {
    fn of_io(kind: io::ErrorKind, text: String) -> Self {
        match kind {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(text),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied(text)
            }
            _ => Self::Unavailable(text),
        }
    }

    /// The error of a write: if something is missing, it can only be the folder or the bucket itself.
    pub(crate) fn of_write(self) -> Self {
        match self {
            Self::Missing => Self::Denied("there is no such folder or bucket".to_owned()),
            other => other,
        }
    }
}

/// Returns the first cause of this type.
fn cause<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// What a store said, as one line, and short enough to be a run's reason.
fn sanitized(error: &dyn StdError) -> String {
    const MOST: usize = 400;
    let text = error.to_string();
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(kind: io::ErrorKind) -> ArtifactError {
        let source = Box::new(io::Error::from(kind));
        object_store::Error::Generic { store: "x", source }.into()
    }

    #[test]
    fn what_the_system_says_decides_what_can_be_done() {
        assert!(matches!(
            local(io::ErrorKind::StorageFull),
            ArtifactError::Full(_)
        ));
        assert!(matches!(
            local(io::ErrorKind::PermissionDenied),
            ArtifactError::Denied(_)
        ));
        assert!(matches!(
            local(io::ErrorKind::NotADirectory),
            ArtifactError::Unavailable(_)
        ));
        assert_eq!(local(io::ErrorKind::NotFound), ArtifactError::Missing);
        let write = local(io::ErrorKind::NotFound).of_write();
        assert_eq!(write.code(), "artifact_store_denied");
        assert!(!write.is_transient() && local(io::ErrorKind::StorageFull).is_transient());
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let source = format!("a\nb{}", "é".repeat(2000)).into();
        let error = ArtifactError::from(object_store::Error::Generic { store: "x", source });
        let text = error.to_string();
        assert!(!text.contains('\n') && text.chars().count() < 500, "{text}");
    }
}
