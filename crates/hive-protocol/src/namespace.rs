//! Which namespace a call is for.

use hive_domain::{name, violation::Violation};
use tonic::metadata::MetadataMap;

use crate::{
    fault::Fault,
    limits::{NAMESPACE_DEFAULT, NAMESPACE_HEADER},
};

/// The namespace of a gRPC call, from its metadata `hive-namespace`; `default` without one.
///
/// # Errors
/// `INVALID_ARGUMENT`: not a name, or given more than once.
pub fn from_metadata(metadata: &MetadataMap) -> Result<String, Fault> {
    let values = metadata
        .get_all(NAMESPACE_HEADER)
        .iter()
        .map(|value| value.as_bytes());
    one_name(values)
}

/// The namespace of a REST call, from its header `Hive-Namespace`; `default` without one.
///
/// # Errors
/// `INVALID_ARGUMENT`: not a name, or given more than once.
pub fn from_headers(headers: &http::HeaderMap) -> Result<String, Fault> {
    one_name(
        headers
            .get_all(NAMESPACE_HEADER)
            .iter()
            .map(http::HeaderValue::as_bytes),
    )
}

/// The one name among `values`.
fn one_name<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<String, Fault> {
    let Some(value) = values.next() else {
        return Ok(NAMESPACE_DEFAULT.to_owned());
    };
    if values.next().is_some() {
        let rule = "must be given once";
        return Err(Violation::new(NAMESPACE_HEADER, rule).into());
    }
    let value = String::from_utf8_lossy(value);
    name::check(NAMESPACE_HEADER, &value)?;
    Ok(value.into_owned())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use tonic::metadata::MetadataMap;

    use super::{from_headers, from_metadata};

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("hive-namespace", HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_call_without_a_namespace_is_for_the_default_one() {
        assert_eq!(from_headers(&headers(&[])), Ok("default".to_owned()));
        assert_eq!(from_metadata(&MetadataMap::new()), Ok("default".to_owned()));
    }

    #[test]
    fn the_named_namespace_is_taken_at_both_doors() {
        let named = headers(&[b"team-a"]);
        assert_eq!(from_headers(&named), Ok("team-a".to_owned()));
        assert_eq!(
            from_metadata(&MetadataMap::from_headers(named)),
            Ok("team-a".to_owned())
        );
    }

    #[test]
    fn a_bad_or_repeated_namespace_is_refused() {
        for values in [&[&b"a b"[..]][..], &[b""], &[b"\xff"], &[b"a", b"b"]] {
            let fault = from_headers(&headers(values)).unwrap_err();
            assert_eq!(fault.violations[0].field, "hive-namespace");
        }
    }
}
