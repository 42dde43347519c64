//! What handlers take: each extractor reads one part of a request, and says which and what it refuses.

pub(crate) mod body;
pub(crate) mod idempotency;
pub(crate) mod params;
pub(crate) mod service;
pub(crate) mod upload;

use axum::extract::State;
use axum::http::{HeaderMap, Method};

use crate::app::App;
use crate::route::{Describe, Route};

/// Nothing of the request.
impl Describe for State<App> {
    fn describe(_: &mut Route) {}
}

/// `GET` or `HEAD`.
impl Describe for Method {
    fn describe(_: &mut Route) {}
}

/// Optional headers, which the handler interprets.
impl Describe for HeaderMap {
    fn describe(_: &mut Route) {}
}
