//! Ids in paths and queries, read from the raw request target: no framework decides what is an error here.

use kodo_contract::{MAX_ID_BYTES, WorkflowId};

use crate::error::ApiError;

/// The id of `/intents/{id}/run` and `/runs/{id}`: the second segment of the path.
///
/// `None` where the text is no id that we ever gave out (also where it is no UTF-8, or holds a NUL): the thing does
/// not exist, and no database needs to be asked about it.
pub(crate) fn path_id<T>(
    path: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let raw = path.split('/').nth(2).unwrap_or_default();
    let bytes = percent_decode(raw, false).unwrap_or_else(|| raw.as_bytes().to_vec());
    if bytes.len() > MAX_ID_BYTES {
        return Err(ApiError::IdTooLong);
    }
    Ok(std::str::from_utf8(&bytes).ok().and_then(parse))
}

/// The workflow id of `?wf=ID`. Of several `wf` the first one counts; other keys are ignored.
pub(crate) fn workflow_id(query: Option<&str>) -> Result<WorkflowId, ApiError> {
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
    // What is left to refuse is a NUL.
    WorkflowId::parse(&text).ok_or(ApiError::WfUnreadable)
}

/// Undoes percent-encoding, and `+` for a space where the text is of a query. `None` where a `%` is not followed by
/// two hex digits.
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
    use kodo_contract::RunId;

    use super::*;

    fn run_id(segment: &str) -> Result<Option<RunId>, ApiError> {
        path_id(&format!("/runs/{segment}"), RunId::parse)
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
        assert_eq!(run_id(&encoded).unwrap(), Some(id.clone()));
        let found = path_id(&format!("/intents/{id}/run"), RunId::parse).unwrap();
        assert_eq!(found, Some(id));
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
