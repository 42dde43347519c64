//! The service, if it is in the state that a route needs; otherwise the request is answered 503.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::error::ApiError;
use crate::route::{Describe, Route};

macro_rules! service {
    ($(#[$doc:meta])* $name:ident: $obstacle:ident) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) App);

        impl FromRequestParts<App> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, ApiError> {
                match $obstacle(app) {
                    None => Ok(Self(app.clone())),
                    Some(cause) => Err(ApiError::Unavailable(cause.into())),
                }
            }
        }

        impl Describe for $name {
            fn describe(route: &mut Route) {
                route.refuses([ApiError::Unavailable(String::new())]);
            }
        }
    };
}

service! {
    /// The service once the database has its schema: for routes that read.
    Migrated: not_migrated
}
service! {
    /// The same while it takes new work, so not while it drains: for routes that write.
    Accepting: not_accepting
}
service! {
    /// The same once the engine is launched: for routes that start a workflow themselves.
    Launched: not_launched
}

fn not_migrated(app: &App) -> Option<&'static str> {
    (!app.readiness().is_migrated()).then_some("boot has not migrated the database yet")
}

fn not_accepting(app: &App) -> Option<&'static str> {
    if app.engine().is_draining() {
        return Some("draining");
    }
    not_migrated(app)
}

fn not_launched(app: &App) -> Option<&'static str> {
    not_accepting(app)
        .or_else(|| (!app.engine().is_launched()).then_some("the engine is not launched"))
}
