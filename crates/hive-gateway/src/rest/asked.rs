//! What every call brings: a namespace, names in the path, a query, a trace, a JSON body.
//!
//! A body must say that it is JSON. A browser sends other media types to any host without asking
//! it first, so a page somewhere could otherwise publish to a gateway that listens on loopback.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use hive_domain::{
    name,
    violation::{Violations, quoted},
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{HEADERS_BYTES_MAX, HEADERS_MAX},
    namespace,
};
use serde_json::value::RawValue;
use tonic::metadata::MetadataMap;

use super::{
    fields::{Fields, Given},
    problem::Problem,
    shape::Call,
};
use crate::{core::Gateway, peers::Onward};

/// Everything of a request but its body.
pub(crate) struct Asked {
    /// The namespace that it is for.
    pub(crate) namespace: String,
    /// Its query, to be read by the shape that its call declares.
    pub(crate) query: Fields,
    /// The trace that it belongs to.
    pub(crate) trace: Trace,
    names: Vec<(String, String)>,
}

impl Asked {
    /// What a call takes along that goes on to another daemon.
    pub(crate) fn onward(&self) -> Onward {
        let mut metadata = MetadataMap::new();
        for (header, value) in [
            ("traceparent", &self.trace.parent),
            ("tracestate", &self.trace.state),
        ] {
            let value = value.as_ref().and_then(|value| value.parse().ok());
            if let Some(value) = value {
                metadata.insert(header, value);
            }
        }
        Onward::new(&self.namespace).with(&metadata)
    }

    /// The name that stands in the path at `{param}`.
    pub(crate) fn name(&self, param: &str) -> String {
        let found = self.names.iter().find(|(known, _)| known == param);
        found
            .map(|(_, name)| name.clone())
            .expect("a path holds the names that its call reads")
    }
}

impl FromRequestParts<Arc<Gateway>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, Problem> {
        let call = parts
            .extensions
            .get::<&'static Call>()
            .copied()
            .expect("every route carries its call");
        let namespace = namespace::from_headers(&parts.headers)?;
        let params = RawPathParams::from_request_parts(parts, gateway).await;
        let names = params
            .map_err(|fault| Fault::invalid_field("path", fault.to_string()))?
            .iter()
            .map(|(param, name)| (param.to_owned(), name.to_owned()))
            .collect::<Vec<(String, String)>>();
        check_names(&names)?;
        let pairs: Query<Vec<(String, String)>> = Query::try_from_uri(&parts.uri)
            .map_err(|fault| Fault::invalid_field("query", fault.to_string()))?;
        let query = Fields::new(Given::query(pairs.0, call.query), call.query, "");
        let query = if call.query.parts.is_empty() {
            query.finish()?;
            Fields::new(Given::default(), call.query, "")
        } else {
            query
        };
        Ok(Self {
            namespace,
            query,
            trace: Trace::of(&parts.headers),
            names,
        })
    }
}

fn check_names(names: &[(String, String)]) -> Result<(), Violations> {
    let mut faults = Violations::new();
    for (param, value) in names {
        faults.take(name::check(param, value));
    }
    faults.into_result()
}

/// The W3C trace context of a request.
#[derive(Default)]
pub(crate) struct Trace {
    parent: Option<String>,
    state: Option<String>,
}

impl Trace {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        Self {
            parent: text("traceparent"),
            state: text("tracestate"),
        }
    }

    /// Puts the trace into the headers of a message that brings none, as far as they have room.
    pub(crate) fn fill(&self, headers: &mut BTreeMap<String, String>) {
        let Some(parent) = &self.parent else { return };
        if headers.contains_key("traceparent") {
            return;
        }
        fill(headers, "traceparent", parent);
        if let Some(state) = &self.state
            && !headers.contains_key("tracestate")
        {
            fill(headers, "tracestate", state);
        }
    }
}

/// Adds a pair unless that would make too many headers of what its author sent within the limits.
fn fill(headers: &mut BTreeMap<String, String>, name: &str, value: &str) {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let fits = bytes + name.len() + value.len() <= HEADERS_BYTES_MAX;
    if headers.len() < HEADERS_MAX && fits {
        headers.insert(name.to_owned(), value.to_owned());
    }
}

/// A body of JSON, not looked into yet.
pub(crate) struct JsonBody(pub(crate) Box<RawValue>);

impl FromRequest<Arc<Gateway>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        Ok(Self(parse(&whole(request, gateway).await?)?))
    }
}

/// A body of JSON that may be left out: then it is an empty object.
pub(crate) struct MaybeJsonBody(pub(crate) Box<RawValue>);

impl FromRequest<Arc<Gateway>> for MaybeJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Self, Problem> {
        let is_declared = check_media_type(request.headers());
        let bytes = whole(request, gateway).await?;
        if bytes.is_empty() {
            return Ok(Self(parse(b"{}")?));
        }
        is_declared?;
        Ok(Self(parse(&bytes)?))
    }
}

/// All bytes of a body.
async fn whole(request: Request, gateway: &Arc<Gateway>) -> Result<Bytes, Fault> {
    let read = Bytes::from_request(request, gateway).await;
    read.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let max = gateway.door_bytes_max();
            let rule = format!("the body must have at most `{max}` bytes");
            Fault::new(Reason::BodyTooLarge, rule)
        },
        _ => malformed("the body ended early").with_detail(refused.to_string()),
    })
}

fn parse(bytes: &[u8]) -> Result<Box<RawValue>, Fault> {
    if bytes.trim_ascii().is_empty() {
        return Err(malformed("the body is empty and must be JSON"));
    }
    serde_json::from_slice(bytes)
        .map_err(|fault| malformed(&format!("the body is no JSON: {fault}")))
}

fn malformed(message: &str) -> Fault {
    Fault::new(Reason::MalformedBody, message)
}

/// What `curl -d` declares where nobody says otherwise.
const CURL: &str = "application/x-www-form-urlencoded";

/// A body must be declared as JSON. What curl declares by itself passes too, but not from a
/// browser: a page may send that to any host unasked, and a gateway on loopback must not obey it.
fn check_media_type(headers: &HeaderMap) -> Result<(), Fault> {
    let given = headers.get(header::CONTENT_TYPE);
    let text = given
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let from_browser = headers.contains_key(header::ORIGIN)
        || headers.contains_key("sec-fetch-site")
        || headers.contains_key(header::COOKIE);
    if is_json(text) || (!from_browser && (text.is_empty() || text == CURL)) {
        return Ok(());
    }
    let shown = quoted(text);
    Err(Fault::new(
        Reason::UnsupportedMediaType,
        format!(
            "the header `content-type` is {shown} and must be `application/json` (with curl: \
             `-H 'content-type: application/json'`)"
        ),
    ))
}

/// Whether a media type, perhaps with parameters, is JSON.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::{HeaderMap, HeaderValue};

    use super::{Trace, check_media_type, is_json, parse};

    fn trace() -> Trace {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static("00-a-b-01"));
        headers.insert("tracestate", HeaderValue::from_static("c=d"));
        Trace::of(&headers)
    }

    #[test]
    fn a_message_without_a_trace_gets_that_of_the_request() {
        let mut headers = BTreeMap::new();
        trace().fill(&mut headers);
        assert_eq!(headers["traceparent"], "00-a-b-01");
        assert_eq!(headers["tracestate"], "c=d");
    }

    #[test]
    fn a_message_keeps_the_trace_that_it_brings() {
        let own = BTreeMap::from([("traceparent".to_owned(), "own".to_owned())]);
        let mut headers = own.clone();
        trace().fill(&mut headers);
        assert_eq!(headers, own);
    }

    #[test]
    fn a_message_with_as_many_headers_as_it_may_have_gets_no_more() {
        let full: BTreeMap<String, String> = (0..64)
            .map(|index| (format!("h{index}"), String::new()))
            .collect();
        let mut headers = full.clone();
        trace().fill(&mut headers);
        assert_eq!(headers, full);
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/ld+json",
        ] {
            assert!(is_json(json), "{json}");
        }
        for other in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "json",
        ] {
            assert!(!is_json(other), "{other}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let fault = check_media_type(&headers).unwrap_err();
        assert_eq!(fault.reason.as_str(), "UNSUPPORTED_MEDIA_TYPE");
    }

    #[test]
    fn what_curl_declares_by_itself_passes_but_not_from_a_browser() {
        let mut headers = HeaderMap::new();
        assert!(check_media_type(&headers).is_ok());
        headers.insert("content-type", HeaderValue::from_static(super::CURL));
        assert!(check_media_type(&headers).is_ok());
        headers.insert("origin", HeaderValue::from_static("https://page.example"));
        assert!(check_media_type(&headers).is_err());
    }

    #[test]
    fn a_body_that_is_no_json_says_where() {
        let fault = parse(b"{\"a\": }").unwrap_err();
        assert_eq!(fault.reason.as_str(), "MALFORMED_BODY");
        assert!(
            fault.message.contains("line 1 column 7"),
            "{}",
            fault.message
        );
        assert!(parse(b" \n").is_err());
        assert!(parse(b"\"\xff\"").is_err());
    }
}
