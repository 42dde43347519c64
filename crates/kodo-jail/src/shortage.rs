//! Which errors of the kernel say that it is short of something for a moment, and not that something is not allowed.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// Whether a call that failed with this number can succeed later although nobody changes anything.
pub(crate) fn passes(number: i32) -> bool {
    matches!(
        number,
        libc::EAGAIN
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::EUSERS
            | libc::EINTR
            | libc::EBUSY
            | libc::ENOBUFS
            | libc::ETXTBSY
    )
}

/// The same for an error of a call.
pub(crate) fn error_passes(error: &io::Error) -> bool {
    number_of(error).is_some_and(passes)
}

/// The kernel's number in an error, or in what caused it.
pub(crate) fn number_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(one) = error {
        let own = one.downcast_ref::<io::Error>();
        let number = own
            .and_then(io::Error::raw_os_error)
            .or_else(|| one.downcast_ref::<Errno>().map(|it| it.raw_os_error()));
        if number.is_some() {
            return number;
        }
        // What an `io::Error` wraps is its own text, and not in its `source`.
        error = match own.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => one.source(),
        };
    }
    None
}

/// An error with where it happened, which keeps the kernel's number.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {error}")]
struct At {
    place: String,
    #[source]
    error: io::Error,
}

/// Adds to an error where it happened.
pub(crate) fn at(place: impl ToString) -> impl Fn(io::Error) -> io::Error {
    move |error| {
        let place = place.to_string();
        io::Error::new(error.kind(), At { place, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_below_what_was_said_of_it() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let told = at("twice")(at("/sys/fs/cgroup/x")(full));
        assert_eq!(number_of(&told), Some(libc::ENOSPC));
        assert!(told.to_string().starts_with("twice: /sys/fs/cgroup/x: "));
        assert!(error_passes(&told));
        assert_eq!(number_of(&Errno::PERM), Some(libc::EPERM));
        assert_eq!(number_of(&io::Error::other("x")), None);
        let seccomp = seccompiler::Error::Seccomp(io::Error::from_raw_os_error(libc::ENOMEM));
        assert_eq!(number_of(&seccomp), Some(libc::ENOMEM));
    }

    #[test]
    fn what_is_not_allowed_does_not_pass() {
        for number in [
            libc::EPERM,
            libc::EACCES,
            libc::EINVAL,
            libc::ENOSYS,
            libc::ENOENT,
            libc::EOPNOTSUPP,
            libc::ENODEV,
        ] {
            assert!(!passes(number), "{number}");
        }
    }
}
