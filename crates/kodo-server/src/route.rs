//! A route: its method, path, access, inputs and answers, stated once, beside its handler.
//!
//! The router with its `Allow` answers, the list of routes, the access policy and the tests are all made from this.
//! What a route takes is read off its handler's extractors, so that the two cannot disagree.

use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post, put};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;

/// What a caller needs for a route, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing: probes carry no token.
    Public,
    /// The token of `API_TOKEN`, if one is set.
    Token,
}

/// A part of the request that a route reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// An id in the path.
    PathId {
        /// The name of the parameter, as in the braces of [`Route::path`].
        parameter: &'static str,
        /// Whether every text that Postgres can store may be such an id, so that the database is asked.
        any_text: bool,
        /// The answer to a text that is no such id.
        otherwise: Answer,
    },
    /// The query parameter `wf`, a workflow's id.
    WorkflowQuery,
    /// The header `Idempotency-Key`; it may be missing.
    IdempotencyKey,
    /// A JSON body that passes this schema, whose title is the name in error texts.
    Body(&'static Value),
    /// A body whose content does not matter.
    AnyBody,
    /// A body that is kept as it is, up to `MAX_UPLOAD_BYTES`.
    Upload,
}

/// An answer that a route gives.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// When it is given. For an error, its text up to the details.
    pub meaning: String,
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        Self {
            status: error.status().as_u16(),
            meaning: error.to_string(),
        }
    }
}

/// A route, as documentation and tests see it.
#[derive(Debug, Clone)]
pub struct Route {
    /// `GET` (which answers `HEAD` as well), `POST` or `PUT`.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// What its caller needs.
    pub access: Access,
    /// What it reads, in this order.
    pub inputs: Vec<Input>,
    /// Every answer that it gives.
    pub answers: Vec<Answer>,
}

impl Route {
    /// Adds answers that are errors.
    pub(crate) fn refuses(&mut self, errors: impl IntoIterator<Item = ApiError>) {
        self.answers.extend(errors.into_iter().map(Answer::from));
    }
}

/// A route with its handler.
pub(crate) struct Operation {
    pub(crate) route: Route,
    pub(crate) handler: MethodRouter<App>,
}

impl Operation {
    /// A `GET`, which answers `HEAD` as well.
    pub(crate) fn get<T: Inputs>(
        path: &'static str,
        access: Access,
        handler: impl Handler<T, App>,
    ) -> Self {
        Self::new::<T>("GET", path, access, get(handler))
    }

    /// A `POST`.
    pub(crate) fn post<T: Inputs>(
        path: &'static str,
        access: Access,
        handler: impl Handler<T, App>,
    ) -> Self {
        Self::new::<T>("POST", path, access, post(handler))
    }

    /// A `PUT`.
    pub(crate) fn put<T: Inputs>(
        path: &'static str,
        access: Access,
        handler: impl Handler<T, App>,
    ) -> Self {
        Self::new::<T>("PUT", path, access, put(handler))
    }

    fn new<T: Inputs>(
        method: &'static str,
        path: &'static str,
        access: Access,
        handler: MethodRouter<App>,
    ) -> Self {
        let mut route = Route {
            method,
            path,
            access,
            inputs: Vec::new(),
            answers: Vec::new(),
        };
        route.refuses([
            ApiError::BadHost,
            ApiError::ForbiddenOrigin,
            ApiError::Internal(String::new()),
        ]);
        if access == Access::Token {
            route.refuses([ApiError::Unauthorized]);
        }
        T::describe(&mut route);
        Self { route, handler }
    }

    /// Adds an answer that is no error.
    pub(crate) fn answers(mut self, status: StatusCode, meaning: &str) -> Self {
        self.route.answers.push(Answer {
            status: status.as_u16(),
            meaning: meaning.to_owned(),
        });
        self
    }

    /// Adds the errors of the handler itself; those of its extractors are there already.
    pub(crate) fn refuses(mut self, errors: impl IntoIterator<Item = ApiError>) -> Self {
        self.route.refuses(errors);
        self
    }
}

/// An extractor that tells what it reads, and what it answers if that is wrong.
pub(crate) trait Describe {
    fn describe(route: &mut Route);
}

/// The extractors of a handler, as axum writes their types: behind a marker of its own.
pub(crate) trait Inputs: 'static {
    fn describe(route: &mut Route);
}

impl Inputs for ((),) {
    fn describe(_: &mut Route) {}
}

macro_rules! inputs {
    ($($extractor:ident)+) => {
        impl<M: 'static, $($extractor: Describe + 'static),+> Inputs for (M, $($extractor),+) {
            fn describe(route: &mut Route) {
                $($extractor::describe(route);)+
            }
        }
    };
}
inputs!(A);
inputs!(A B);
inputs!(A B C);
inputs!(A B C D);
inputs!(A B C D E);
