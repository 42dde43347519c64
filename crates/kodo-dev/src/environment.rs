//! The one place of these tools that reads the environment.

/// A variable that is text and not empty; `None` otherwise.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of these tools that reads the environment"
)]
pub(crate) fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
