//! Request bodies: read within the limits, then validated at ingress.

use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use kodo_contract::{Boundary, Invalid, Violation, decode, parse_json};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::http::limits;
use crate::route::{Describe, Input, Route};

/// A JSON body, read and not validated yet, because an unknown id in the path is answered first.
pub(crate) struct Body<T> {
    bytes: Bytes,
    headers: HeaderMap,
    of: PhantomData<T>,
}

impl<T: Boundary> Body<T> {
    /// The value of the body.
    ///
    /// # Errors
    /// The body is not one JSON document, or does not pass the schema.
    pub(crate) fn validate(&self) -> Result<T, ApiError> {
        let value = json(&self.bytes, &self.headers)?;
        Ok(decode(&value)?)
    }
}

impl<T: Boundary + Default> Body<T> {
    /// The value of the body; an empty body means `{}`.
    ///
    /// # Errors
    /// Those of [`Self::validate`].
    pub(crate) fn validate_or_default(&self) -> Result<T, ApiError> {
        if self.bytes.is_empty() {
            Ok(T::default())
        } else {
            self.validate()
        }
    }
}

impl<T: Boundary> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        Ok(Self {
            bytes: limits::read(body, app.config().body_timeout).await?,
            headers: head.headers,
            of: PhantomData,
        })
    }
}

impl<T: Boundary> Describe for Body<T> {
    fn describe(route: &mut Route) {
        let invalid = Invalid {
            name: T::NAME,
            violations: Vec::new(),
        };
        route.inputs.push(Input::Body(T::schema().document()));
        route.refuses([ApiError::InvalidJson(String::new()), invalid.into()]);
        route.refuses(limits::errors());
    }
}

/// A body whose content does not matter. It is read all the same, so that the connection stays usable.
pub(crate) struct AnyBody;

impl FromRequest<App> for AnyBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        limits::read(request.into_body(), app.config().body_timeout).await?;
        Ok(Self)
    }
}

impl Describe for AnyBody {
    fn describe(route: &mut Route) {
        route.inputs.push(Input::AnyBody);
        route.refuses(limits::errors());
    }
}

/// The one JSON document of a body.
///
/// # Errors
/// The body is no JSON document. If its client compressed it, a detail says so: to the client it looks right.
fn json(bytes: &[u8], headers: &HeaderMap) -> Result<Value, ApiError> {
    parse_json(bytes).map_err(|error| {
        let encoding = headers.get(header::CONTENT_ENCODING);
        let encoding = encoding.and_then(|value| value.to_str().ok());
        match encoding.filter(|name| !name.eq_ignore_ascii_case("identity")) {
            Some(encoding) => ApiError::EncodedBody(Box::new(Violation {
                instance_path: String::new(),
                schema_path: "#/contentEncoding".to_owned(),
                keyword: "contentEncoding".to_owned(),
                params: json!({"contentEncoding": encoding}),
                message: "must NOT be sent with a Content-Encoding".to_owned(),
            })),
            None if bytes.is_empty() => ApiError::InvalidJson("the body is empty".to_owned()),
            None => ApiError::InvalidJson(error.to_string()),
        }
    })
}

#[cfg(test)]
mod tests {
    use kodo_contract::RunRequest;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_body_that_is_no_json_is_told_apart() {
        let cause = |bytes: &[u8]| match json(bytes, &HeaderMap::new()).unwrap_err() {
            ApiError::InvalidJson(cause) => cause,
            other => panic!("{other}"),
        };
        assert_eq!(cause(b""), "the body is empty");
        assert_eq!(cause("[".repeat(129).as_bytes()), "nested deeper than 128");
        assert!(cause(b"{bad").starts_with("malformed JSON: "));

        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let compressed = [0x1f, 0x8b, 8, 0];
        let error = json(&compressed, &headers).unwrap_err();
        assert_eq!(error.to_string(), "invalid json");
        let ApiError::EncodedBody(violation) = error else {
            panic!("{error}");
        };
        assert_eq!(
            violation.to_string(),
            "data must NOT be sent with a Content-Encoding"
        );
        headers.insert(header::CONTENT_ENCODING, "identity".parse().unwrap());
        assert!(matches!(
            json(&compressed, &headers),
            Err(ApiError::InvalidJson(_))
        ));
    }

    #[test]
    fn no_bytes_are_an_empty_request_and_blanks_are_no_json() {
        let body = |bytes: &'static [u8]| Body::<RunRequest> {
            bytes: Bytes::from_static(bytes),
            headers: HeaderMap::new(),
            of: PhantomData,
        };
        let request = |bytes| body(bytes).validate_or_default();
        assert_eq!(request(b"").unwrap(), RunRequest::default());
        assert_eq!(request(b" {} ").unwrap(), RunRequest::default());
        for broken in [&b" "[..], b"\n", b"{", b"{}{}", b"\xef\xbb\xbf{}"] {
            let error = request(broken).unwrap_err();
            assert_eq!(error.to_string(), "invalid json", "{broken:?}");
        }
        let error = body(b"").validate().unwrap_err();
        assert_eq!(error.to_string(), "invalid json");
        let error = request(br#"{"traceId":1}"#).unwrap_err().to_string();
        assert!(
            error.starts_with("invalid RunRequest: data/traceId "),
            "{error}"
        );
    }
}
