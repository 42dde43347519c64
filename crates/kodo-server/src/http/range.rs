//! Conditions and ranges of requests (RFC 9110, sections 13 and 14), for content that never changes.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, header};
use http_range_header::parse_range_header;

use crate::error::ApiError;

/// Whether the client has this content already: `If-None-Match` with its entity tag or with `*`.
pub(crate) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter();
    lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|tag| tag.trim())
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// The range that the client asks for. Returns `None` if it gets all of the content: it asks for no range, for several,
/// for a malformed one, or for one of other content (`If-Range`).
///
/// # Errors
/// [`ApiError::RangeNotSatisfiable`] if the range has no byte of the content.
pub(crate) fn wanted(
    headers: &HeaderMap,
    etag: &str,
    size: u64,
) -> Result<Option<Range<u64>>, ApiError> {
    let range = single(headers, &header::RANGE)
        .filter(|text| text.starts_with("bytes=") && !text.contains(','));
    let Some(Ok(ranges)) = range.map(parse_range_header) else {
        return Ok(None);
    };
    let other_content = headers.contains_key(header::IF_RANGE)
        && single(headers, &header::IF_RANGE).map(str::trim) != Some(etag);
    if other_content {
        return Ok(None);
    }
    let satisfiable = ranges
        .validate(size)
        .ok()
        .and_then(|ranges| ranges.into_iter().next());
    let range = satisfiable.ok_or(ApiError::RangeNotSatisfiable(size))?;
    Ok(Some(*range.start()..range.end() + 1))
}

/// The value of a header that occurs exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&'static str, &str)]) -> Result<Option<Range<u64>>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        wanted(&headers, "\"e\"", 100).map_err(|error| error.to_string())
    }

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        for (text, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=90-", 90..100),
            ("bytes=90-1000", 90..100),
            ("bytes=0-99999999999999999999999", 0..100),
            ("bytes=-7", 93..100),
            ("bytes=-1000", 0..100),
        ] {
            assert_eq!(asked(&[("range", text)]), Ok(Some(range)), "{text}");
        }
        for text in [
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes 0-1",
            "bytes=+1-2",
            "bytes=0-1,200-300",
            "bytes=0-1,",
            "Bytes=0-1",
            "0-1",
        ] {
            assert_eq!(asked(&[("range", text)]), Ok(None), "{text}");
        }
        for text in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            let refused = asked(&[("range", text)]);
            assert_eq!(refused, Err("range not satisfiable".into()), "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("range", "bytes=-5".parse().unwrap());
        assert!(wanted(&headers, "\"e\"", 0).is_err(), "of no bytes");
        let twice = [("range", "bytes=0-0"), ("range", "bytes=1-1")];
        assert_eq!(asked(&twice), Ok(None));
    }

    #[test]
    fn a_range_of_another_content_is_all_of_this_one() {
        let range = ("range", "bytes=0-0");
        assert_eq!(asked(&[range, ("if-range", "\"e\"")]), Ok(Some(0..1)));
        for other in ["\"f\"", "W/\"e\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(asked(&[range, ("if-range", other)]), Ok(None), "{other}");
        }
    }

    #[test]
    fn content_is_known_by_its_tag() {
        let known = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("if-none-match", text.parse().unwrap());
            is_known(&headers, "\"e\"")
        };
        for text in ["\"e\"", "*", "W/\"e\"", "\"a\", \"e\"", "\"a\",W/\"e\""] {
            assert!(known(text), "{text}");
        }
        for text in ["\"a\"", "e", "", "\"ee\""] {
            assert!(!known(text), "{text}");
        }
    }
}
