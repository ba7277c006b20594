//! Which gateways there are.
//!
//! Order is preference: the first is tried first. A fleet that wants to spread over gateways gives
//! each agent another order, or one address that balances.

use std::{str::FromStr, time::Duration};

use tonic::transport::Endpoint;

/// Most gateways of one client.
const GATEWAYS_MAX: usize = 64;
/// How often a silent connection is asked whether it lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that one call may have under way towards us: bounds what a slow reader holds.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes that all calls together may have under way towards us.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// One or more gateways, each an `http` URL with host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    urls: Vec<String>,
}

impl Endpoints {
    /// Takes these URLs, in order of preference; the same URL twice counts once.
    ///
    /// # Errors
    /// When there is none, more than 64, or one that is not `http://host[:port]`.
    pub fn new<S: Into<String>>(urls: impl IntoIterator<Item = S>) -> Result<Self, EndpointsError> {
        let mut kept: Vec<String> = Vec::new();
        for url in urls {
            let url = url.into().trim().trim_end_matches('/').to_owned();
            check(&url)?;
            if !kept.contains(&url) {
                kept.push(url);
            }
        }
        match kept.len() {
            0 => Err(EndpointsError::Empty),
            count if count > GATEWAYS_MAX => Err(EndpointsError::TooMany { count }),
            _ => Ok(Self { urls: kept }),
        }
    }

    /// The URLs, in order of preference.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// One endpoint per URL, set up as every connection of this crate.
    pub(crate) fn transports(
        &self,
        connect_timeout: Duration,
    ) -> Result<Vec<(String, Endpoint)>, EndpointsError> {
        let mut transports = Vec::with_capacity(self.urls.len());
        for url in &self.urls {
            let endpoint = check(url)?
                .connect_timeout(connect_timeout)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(Duration::from_secs(10)))
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            transports.push((url.clone(), endpoint));
        }
        Ok(transports)
    }
}

impl FromStr for Endpoints {
    type Err = EndpointsError;

    /// URLs with commas between.
    fn from_str(text: &str) -> Result<Self, EndpointsError> {
        Self::new(text.split(',').filter(|url| !url.trim().is_empty()))
    }
}

/// Why a list of gateways cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointsError {
    /// The list is empty.
    #[error("no gateway given: at least one url like `http://127.0.0.1:8000` is needed")]
    Empty,
    /// The list is too long.
    #[error("`{count}` gateways given: at most 64 are taken")]
    TooMany {
        /// How many were given.
        count: usize,
    },
    /// One is not a URL of a gateway.
    #[error("url `{url}` must be like `http://127.0.0.1:8000`: {rule}")]
    Url {
        /// What was given.
        url: String,
        /// Which rule it breaks.
        rule: String,
    },
}

/// The endpoint of a URL that names scheme `http`, a host and no path.
fn check(url: &str) -> Result<Endpoint, EndpointsError> {
    let wrong = |rule: &str| EndpointsError::Url {
        url: url.to_owned(),
        rule: rule.to_owned(),
    };
    let endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(&error.to_string()))?;
    if endpoint.uri().scheme_str() != Some("http") {
        return Err(wrong("the scheme must be `http`"));
    }
    if !matches!(endpoint.uri().path(), "" | "/") {
        return Err(wrong("it must not have a path"));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::{Endpoints, EndpointsError};

    #[test]
    fn urls_are_parted_by_commas_and_keep_their_order() {
        let parsed: Endpoints = " http://b:8000/, http://a:8000,http://b:8000,"
            .parse()
            .unwrap();
        assert_eq!(parsed.urls(), ["http://b:8000", "http://a:8000"]);
    }

    #[test]
    fn a_list_without_a_url_is_refused() {
        assert_eq!(" , ".parse::<Endpoints>(), Err(EndpointsError::Empty));
    }

    #[test]
    fn a_url_that_is_none_is_named_with_its_rule() {
        for url in ["127.0.0.1:8000", "https://a", "http://a/v1", "not a url"] {
            let refused = url.parse::<Endpoints>().unwrap_err();
            assert!(refused.to_string().contains(url), "{refused}");
        }
    }
}
