//! Where calls of webhooks may go.
//!
//! A URL is compared by its parts and not as a text: `https://hooks.example.org` as a beginning of
//! a text would allow `https://hooks.example.org.elsewhere.net` too. A path with `..`, or with a
//! slash that is hidden by an escape, is refused: servers disagree about where it leads.

use http::Uri;

/// A URL under which calls may go anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    is_tls: bool,
    /// In lower case.
    host: String,
    port: u16,
    path: String,
}

impl Allowed {
    /// Where calls may go: `http://` or `https://`, a host, and a port and a path where these are
    /// to be kept.
    ///
    /// # Errors
    /// The rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('?') {
            return Err("must have no query".to_owned());
        }
        Self::parse_target(text)
    }

    /// The place of a URL that is to be called, which may have a query.
    ///
    /// # Errors
    /// The rule.
    pub(super) fn parse_target(text: &str) -> Result<Self, String> {
        let rule = "must be an `http://` or `https://` URL without user and fragment";
        if text.contains(['#', '@', '\\']) {
            return Err(rule.to_owned());
        }
        let url: Uri = text.parse().map_err(|error| format!("{rule}: {error}"))?;
        let (is_tls, port) = match url.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            Some(_) | None => return Err(rule.to_owned()),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or(rule)?;
        // `http` answers no port for one that is too large, and would fall back to another one.
        let authority = url.authority().map_or("", |authority| authority.as_str());
        if url.port_u16().is_none() && authority.len() != host.len() {
            return Err("must have a port between 0 and 65535".to_owned());
        }
        let path = url.path();
        let plain = path.to_ascii_lowercase().replace("%2e", ".");
        let is_winding = plain.split('/').any(|part| matches!(part, "." | ".."));
        if is_winding || plain.contains("%2f") || plain.contains("%5c") {
            return Err("must have a path without `.`, `..` and escaped slashes".to_owned());
        }
        Ok(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port: url.port_u16().unwrap_or(port),
            path: path.to_owned(),
        })
    }

    /// Whether `place` lies under it.
    pub(super) fn covers(&self, place: &Self) -> bool {
        let is_there =
            (self.is_tls, &self.host, self.port) == (place.is_tls, &place.host, place.port);
        let rest = place.path.strip_prefix(&self.path);
        is_there
            && rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    fn covers(allowed: &str, target: &str) -> bool {
        let allowed = Allowed::parse(allowed).unwrap();
        Allowed::parse_target(target).is_ok_and(|place| allowed.covers(&place))
    }

    #[test]
    fn what_lies_under_a_url_is_allowed() {
        for (allowed, target) in [
            ("https://a.example", "https://a.example"),
            ("https://a.example", "https://A.example:443/any?x=1"),
            ("https://a.example:443/hooks", "https://a.example/hooks"),
            ("https://a.example/hooks", "https://a.example/hooks/a"),
            ("https://a.example/hooks/", "https://a.example/hooks/a"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://[::1]:8080", "http://[::1]:8080/a..b"),
        ] {
            assert!(covers(allowed, target), "{allowed} {target}");
        }
    }

    #[test]
    fn what_only_looks_so_is_not() {
        for (allowed, target) in [
            ("https://a.example", "https://a.example.elsewhere.net/"),
            ("https://a.example", "https://a.example@elsewhere.net/"),
            ("https://a.example", "http://a.example/"),
            ("https://a.example", "https://a.example:8443/"),
            ("https://a.example", "https://a.example:99999/"),
            ("https://a.example", "https://a.example\\@elsewhere.net/"),
            ("https://a.example/hooks", "https://a.example/hooksmith"),
            (
                "https://a.example/hooks",
                "https://a.example/hooks/../admin",
            ),
            (
                "https://a.example/hooks",
                "https://a.example/hooks/%2E./admin",
            ),
            (
                "https://a.example/hooks",
                "https://a.example/hooks/..%2Fadmin",
            ),
            ("https://a.example/hooks/", "https://a.example/hooks"),
            ("https://a.example/hooks", "https://a.example/HOOKS"),
            ("https://a.example", "ftp://a.example/"),
            ("https://a.example", "a.example"),
        ] {
            assert!(!covers(allowed, target), "{allowed} {target}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_rule() {
        for (text, rule) in [
            ("a.example", "must be an `http://`"),
            ("https://", "must be an `http://`"),
            ("https://me:x@a.example", "must be an `http://`"),
            ("https://a.example?x=1", "must have no query"),
            ("https://a.example:99999", "must have a port"),
            ("https://a.example/a/../b", "must have a path without"),
        ] {
            let error = Allowed::parse(text).unwrap_err();
            assert!(error.starts_with(rule), "{text}: {error}");
        }
    }
}
