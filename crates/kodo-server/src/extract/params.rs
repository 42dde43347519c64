//! Ids in paths and queries. They are decoded here and not by axum's `Path` and `Query`, which accept a `%` without two
//! hex digits and replace what is no UTF-8: an id would then be another one than the client meant.

use axum::extract::{FromRequestParts, MatchedPath, OptionalFromRequestParts};
use axum::http::request::Parts;
use kodo_contract::{ContentHash, IntentId, MAX_ID_BYTES, RunId, WorkflowId};

use crate::app::App;
use crate::error::ApiError;
use crate::route::{Describe, Input, Route};

/// An id that a path can hold.
pub(crate) trait PathId: Sized {
    /// The name of the parameter, as in the braces of the route's path.
    const PARAMETER: &'static str;

    /// Whether every text that Postgres can store may be such an id.
    const ANY_TEXT: bool = false;

    /// Reads an id; `None` if the text is no id that there can be.
    fn parse(text: &str) -> Option<Self>;

    /// The answer to a text that is no id.
    fn unknown() -> ApiError;
}

macro_rules! path_id {
    ($id:ty, $parameter:literal, $unknown:expr) => {
        impl PathId for $id {
            const PARAMETER: &'static str = $parameter;

            fn parse(text: &str) -> Option<Self> {
                Self::parse(text)
            }

            fn unknown() -> ApiError {
                $unknown
            }
        }
    };
}
path_id!(IntentId, "id", ApiError::IntentNotFound);
path_id!(ContentHash, "sha256", ApiError::NoContentHash);

/// What names a run in a path: its id, or the id of its workflow where a client of the engine made that: a UUID, or whatever
/// the client chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunKey {
    Run(RunId),
    Workflow(WorkflowId),
}

impl PathId for RunKey {
    const PARAMETER: &'static str = "id";
    const ANY_TEXT: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match RunId::parse(text) {
            Some(id) => Some(Self::Run(id)),
            None => WorkflowId::parse(text).map(Self::Workflow),
        }
    }

    fn unknown() -> ApiError {
        ApiError::RunNotFound
    }
}

impl RunKey {
    /// The run.
    ///
    /// # Errors
    /// [`ApiError::RunNotFound`], and those of [`App::in_time`].
    pub(crate) async fn run(self, app: &App) -> Result<RunId, ApiError> {
        match self {
            Self::Run(id) => Ok(id),
            Self::Workflow(id) => app
                .in_time(app.store().run_of_workflow(&id))
                .await?
                .ok_or(ApiError::RunNotFound),
        }
    }
}

/// An id in the path. A text that is no id is answered as an id that does not exist is: no database has to be asked.
///
/// As an `Option`, for routes that tell other errors first: `None` if the text is no id.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: PathId + Send> FromRequestParts<App> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        <Self as OptionalFromRequestParts<App>>::from_request_parts(parts, app)
            .await?
            .ok_or_else(T::unknown)
    }
}

impl<T: PathId + Send> OptionalFromRequestParts<App> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Option<Self>, ApiError> {
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map(MatchedPath::as_str).unwrap_or_default();
        let segment = segment(route, parts.uri.path(), T::PARAMETER);
        Ok(path_id(segment)?.map(Self))
    }
}

impl<T: PathId> Describe for Id<T> {
    fn describe(route: &mut Route) {
        route.inputs.push(Input::PathId {
            parameter: T::PARAMETER,
            any_text: T::ANY_TEXT,
            otherwise: T::unknown().into(),
        });
        route.refuses([ApiError::IdTooLong, T::unknown()]);
    }
}

impl<T: PathId> Describe for Option<Id<T>> {
    fn describe(route: &mut Route) {
        <Id<T> as Describe>::describe(route);
    }
}

/// The id of a workflow in the query: `?wf=ID`.
pub(crate) struct WorkflowQuery(pub(crate) WorkflowId);

impl FromRequestParts<App> for WorkflowQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        workflow_id(parts.uri.query()).map(Self)
    }
}

impl Describe for WorkflowQuery {
    fn describe(route: &mut Route) {
        route.inputs.push(Input::WorkflowQuery);
        route.refuses([
            ApiError::WfRequired,
            ApiError::WfTooLong,
            ApiError::WfUnreadable,
        ]);
    }
}

/// What a path has in the place of a route's parameter.
fn segment<'a>(route: &str, path: &'a str, parameter: &str) -> &'a str {
    let place = format!("{{{parameter}}}");
    let mut pairs = route.split('/').zip(path.split('/'));
    pairs
        .find(|(segment, _)| *segment == place)
        .map(|(_, segment)| segment)
        .unwrap_or_default()
}

/// The id in a segment of a path; `None` if it is no id, also if it is no UTF-8, or holds a NUL.
fn path_id<T: PathId>(raw: &str) -> Result<Option<T>, ApiError> {
    let bytes = percent_decode(raw, false).unwrap_or_else(|| raw.as_bytes().to_vec());
    if bytes.len() > MAX_ID_BYTES {
        return Err(ApiError::IdTooLong);
    }
    Ok(std::str::from_utf8(&bytes).ok().and_then(T::parse))
}

/// The workflow id of `?wf=ID`. Of several `wf` the first one counts; other keys are ignored.
fn workflow_id(query: Option<&str>) -> Result<WorkflowId, ApiError> {
    let raw = query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| percent_decode(key, true).is_some_and(|key| key == b"wf"))
        .map(|(_, value)| value)
        .ok_or(ApiError::WfRequired)?;
    let bytes = percent_decode(raw, true).ok_or(ApiError::WfUnreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| ApiError::WfUnreadable)?;
    if text.trim().is_empty() {
        return Err(ApiError::WfRequired);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(ApiError::WfTooLong);
    }
    // All that is left to refuse is a NUL.
    WorkflowId::parse(&text).ok_or(ApiError::WfUnreadable)
}

/// Undoes percent-encoding, and `+` for a space if the text is part of a query. Returns `None` if a `%` is not followed
/// by two hex digits.
fn percent_decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    path_id!(RunId, "id", ApiError::RunNotFound);

    fn run_id(raw: &str) -> Result<Option<RunId>, ApiError> {
        path_id(raw)
    }

    #[test]
    fn a_run_is_also_named_by_whatever_its_workflow_is_called() {
        for id in [
            "0b9f1f0e-0c55-4c39-8f4e-5b1f6f3a9d10",
            "my-fork",
            "run_0",
            "a b",
        ] {
            let key: Option<RunKey> = path_id(id).unwrap();
            assert_eq!(key, WorkflowId::parse(id).map(RunKey::Workflow));
        }
        let run = RunId::generate();
        let key: Option<RunKey> = path_id(run.as_str()).unwrap();
        assert_eq!(key, Some(RunKey::Run(run)));
        for none in ["", "%00", "%ff"] {
            assert_eq!(path_id::<RunKey>(none).unwrap(), None, "{none}");
        }
    }

    #[test]
    fn an_id_is_found_in_its_path_also_percent_encoded() {
        let id = RunId::generate();
        assert_eq!(run_id(id.as_str()).unwrap(), Some(id.clone()));
        let encoded: String = id
            .as_str()
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        assert_eq!(run_id(&encoded).unwrap(), Some(id));
    }

    #[test]
    fn a_segment_is_found_by_the_name_of_its_parameter() {
        for (route, path, parameter, found) in [
            ("/runs/{id}", "/runs/a", "id", "a"),
            ("/intents/{id}/run", "/intents/%61/run", "id", "%61"),
            ("/runs/{id}/gates/{gate}", "/runs/a/gates/b", "gate", "b"),
            ("/runs/{id}", "/runs/a", "sha256", ""),
        ] {
            assert_eq!(segment(route, path, parameter), found, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_an_id_does_not_exist() {
        for odd in [
            "",
            "x",
            "%00",
            "a%00b",
            "%ff",
            "%zz",
            "%4",
            "%",
            "run_%C3%28",
            "%2e%2e",
        ] {
            assert!(matches!(run_id(odd), Ok(None)), "{odd}");
        }
    }

    #[test]
    fn an_id_over_256_bytes_is_refused_and_decoded_bytes_count() {
        assert!(matches!(run_id(&"x".repeat(256)), Ok(None)));
        assert!(matches!(run_id(&"x".repeat(257)), Err(ApiError::IdTooLong)));
        assert!(matches!(run_id(&"%78".repeat(256)), Ok(None)));
        assert!(matches!(
            run_id(&"%C3%A9".repeat(129)),
            Err(ApiError::IdTooLong)
        ));
        assert!(matches!(
            run_id(&"%zz".repeat(100)),
            Err(ApiError::IdTooLong)
        ));
    }

    fn wf(query: &str) -> Result<String, String> {
        workflow_id(Some(query))
            .map(WorkflowId::into_string)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn wf_is_decoded_as_a_form_field() {
        for (query, id) in [
            ("wf=demo-1", "demo-1"),
            ("a=b&wf=x", "x"),
            ("%77f=x", "x"),
            ("wf=a+b%2Bc%26", "a b+c&"),
            ("wf=%C3%A9=é", "é=é"),
            ("wf=first&wf=second", "first"),
            ("wf=+x", " x"),
        ] {
            assert_eq!(wf(query).as_deref(), Ok(id), "{query}");
        }
    }

    #[test]
    fn a_missing_or_blank_wf_is_required() {
        for query in [
            "",
            "wf",
            "wf=",
            "wf=+%20%09",
            "WF=x",
            "xwf=1",
            "wf=&wf=x",
            "wf=%C2%A0",
        ] {
            assert_eq!(wf(query), Err("wf query param required".into()), "{query}");
        }
        assert!(matches!(workflow_id(None), Err(ApiError::WfRequired)));
    }

    #[test]
    fn a_wf_that_no_row_can_hold_is_refused() {
        let unreadable = "wf must be percent-encoded UTF-8 without U+0000";
        for query in ["wf=a%00", "wf=%ff", "wf=%", "wf=%g0", "wf=%+1"] {
            assert_eq!(wf(query), Err(unreadable.into()), "{query}");
        }
        assert!(wf(&format!("wf={}", "x".repeat(256))).is_ok());
        let long = wf(&format!("wf={}", "x".repeat(257)));
        assert_eq!(long, Err("wf must be at most 256 bytes".into()));
    }
}
