//! Tells a URL how many consumers a group is to have, by a signed POST.
//!
//! Signed as the Standard Webhooks specification says, so that receivers can use its libraries: the
//! headers `webhook-id`, `webhook-timestamp` and `webhook-signature`. The id is that of the
//! decision, so that a receiver can drop what it has seen; the timestamp is of the attempt, so that
//! nobody can send an old one again later.
//!
//! Which URL is called stands in the settings of a group, which many may write. Hence the operator
//! lists where calls may go ([`Allowed`]); without the list none is made, and redirects are not
//! followed. A connection is not kept: wishes change too seldom for it.

mod allowed;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ring::{digest, hmac};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub use allowed::Allowed;

use super::answer::Answer;
use super::{ExecutorError, chain};

/// How long a receiver may take, with the connection and its answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// What a secret begins with, as the specification says.
const SECRET_PREFIX: &str = "whsec_";
/// Shortest and longest secret, in bytes, as the specification says.
const SECRET_BYTES: (usize, usize) = (24, 64);

/// Where calls may go, and how they are signed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where calls may go; none may go anywhere else.
    pub urls: Vec<Allowed>,
    /// Signs them.
    pub key: Option<Key>,
    /// Which certificates are trusted: those of the machine where this is `None`.
    pub roots: Option<RootCertStore>,
    /// Longest call.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            key: None,
            roots: None,
            deadline: DEADLINE,
        }
    }
}

/// The secret that calls are signed with. Never shown.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// The key of a secret: `whsec_` and 24 to 64 bytes in base64.
    ///
    /// # Errors
    /// The rule, without the secret.
    pub fn parse(secret: &str) -> Result<Self, String> {
        let (least, most) = SECRET_BYTES;
        let encoded = secret.trim().strip_prefix(SECRET_PREFIX);
        let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
        let bytes = bytes.filter(|bytes| (least..=most).contains(&bytes.len()));
        let bytes = bytes.ok_or_else(|| {
            format!("must hold `{SECRET_PREFIX}` and {least} to {most} random bytes in base64")
        })?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature`.
    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{timestamp}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How many consumers a group is to have.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The namespace of the group.
    pub namespace: &'a str,
    /// The group.
    pub group: &'a str,
    /// How many it is to have.
    pub desired_consumers: u32,
    /// How many it has.
    pub current_consumers: u32,
    /// Why, for a person.
    pub reason: &'a str,
    /// The ownership under which it was decided. Grows; a receiver may drop what is older.
    pub epoch: u64,
    /// When it was decided, in ms since 1970: the same for each repeat of one decision.
    pub decided_ms: u64,
}

/// A wish as it is sent.
#[derive(Serialize)]
struct Body<'a> {
    group: &'a str,
    namespace: &'a str,
    desired_consumers: u32,
    current_consumers: u32,
    reason: &'a str,
    epoch: u64,
    time: String,
}

impl Wish<'_> {
    /// Names the decision, the same for each repeat.
    fn id(&self) -> String {
        let Self {
            namespace,
            group,
            desired_consumers,
            epoch,
            decided_ms,
            ..
        } = self;
        let text = format!("{namespace}/{group}/{epoch}/{decided_ms}/{desired_consumers}");
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let half = digest.as_ref().iter().take(16);
        half.fold("scale_".to_owned(), |id, byte| format!("{id}{byte:02x}"))
    }

    fn body(&self) -> Result<Vec<u8>, ExecutorError> {
        let millis = i64::try_from(self.decided_ms).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        let body = Body {
            group: self.group,
            namespace: self.namespace,
            desired_consumers: self.desired_consumers,
            current_consumers: self.current_consumers,
            reason: self.reason,
            epoch: self.epoch,
            time: time.to_string(),
        };
        serde_json::to_vec(&body).map_err(|error| ExecutorError::Failed {
            why: format!("the wish does not become JSON: {error}"),
        })
    }
}

/// The executor `webhook`.
#[derive(Debug)]
pub struct Webhook {
    settings: Settings,
    door: OnceCell<Door>,
}

/// How calls leave.
#[derive(Debug)]
struct Door {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Whether any certificate is trusted.
    has_roots: bool,
}

impl Webhook {
    /// An executor that makes no connection yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            door: OnceCell::new(),
        }
    }

    /// Sends `wish` to `target`, a URL.
    ///
    /// # Errors
    /// `Refused` where settings forbid it, `Missing` for 410, `Busy` for 429 and 503, `Away` where
    /// nobody answers within the deadline, `Failed` for any other answer than 2xx.
    pub async fn post(&self, target: &str, wish: &Wish<'_>) -> Result<(), ExecutorError> {
        let url = self.allowed(target)?;
        let Some(key) = &self.settings.key else {
            return Err(refused(
                "webhooks are not signed and so not sent: set `scaling.webhook_secret_file`",
            ));
        };
        let (id, body) = (wish.id(), wish.body()?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.unwrap_or_default().as_secs();
        let request = Request::post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(
                USER_AGENT,
                concat!("hive-coordinator/", env!("CARGO_PKG_VERSION")),
            )
            .header("webhook-signature", key.sign(&id, timestamp, &body))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| refused(format!("`{url}` cannot be called: {error}")))?;
        let deadline = self.settings.deadline;
        let answer = timeout(deadline, self.send(&url, request)).await;
        let answer = answer
            .unwrap_or_else(|_late| Err(away(&url, format!("no answer within {deadline:?}"))))?;
        check(&url, &answer)
    }

    /// The URL of `target`, if calls may go there.
    fn allowed(&self, target: &str) -> Result<Uri, ExecutorError> {
        let shown = target.escape_debug();
        let place = Allowed::parse_target(target)
            .map_err(|rule| refused(format!("the target `{shown}` {rule}")))?;
        if self.settings.urls.iter().any(|url| url.covers(&place)) {
            return target
                .parse::<Uri>()
                .map_err(|error| refused(format!("the target `{shown}` is no URL: {error}")));
        }
        let rule = if self.settings.urls.is_empty() {
            "allows none"
        } else {
            "does not allow it"
        };
        Err(refused(format!(
            "`{shown}` is not called, because `scaling.webhook_urls` {rule}: add a URL that it \
             begins with"
        )))
    }

    async fn send(
        &self,
        url: &Uri,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ExecutorError> {
        let roots = &self.settings.roots;
        let door = self
            .door
            .get_or_try_init(|| Door::open(roots.clone()))
            .await?;
        if url.scheme_str() == Some("https") && !door.has_roots {
            return Err(refused(
                "this machine trusts no certificate: name a file of them in `SSL_CERT_FILE`",
            ));
        }
        let response = door.client.request(request).await;
        let response = response.map_err(|error| away(url, chain(&error)))?;
        let answer = Answer::read(response, ANSWER_BYTES_MAX).await;
        answer.map_err(|error| away(url, chain(&error)))
    }
}

impl Door {
    async fn open(roots: Option<RootCertStore>) -> Result<Self, ExecutorError> {
        let roots = match roots {
            Some(roots) => roots,
            // Reads files, hundreds on some systems.
            None => tokio::task::spawn_blocking(native_roots)
                .await
                .map_err(|error| refused(format!("certificates cannot be read: {error}")))?,
        };
        let has_roots = !roots.is_empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(format!("TLS cannot be used: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, has_roots })
    }
}

/// The certificates that the machine trusts; those that cannot be read are left out.
fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (taken, left) = roots.add_parsable_certificates(found.certs);
    for error in &found.errors {
        tracing::warn!(error = chain(error), "certificates_unread");
    }
    tracing::debug!(taken, left, "certificates_read");
    roots
}

/// Whether an answer says yes.
fn check(url: &Uri, answer: &Answer) -> Result<(), ExecutorError> {
    let place = shown(url);
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::GONE => Err(ExecutorError::Missing {
            what: format!("the receiver at `{place}`"),
        }),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(ExecutorError::Busy {
                who: format!("`{place}`"),
                retry_after: answer.retry_after,
            })
        },
        status => {
            let note = if status.is_redirection() {
                " (redirects are not followed)"
            } else {
                ""
            };
            let (status, words) = (status.as_u16(), answer.words());
            Err(ExecutorError::Failed {
                why: format!("`{place}` answered {status}{note}: {words}"),
            })
        },
    }
}

/// A URL without its query, which may hold a secret of the receiver.
fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}", url.path())
}

fn away(url: &Uri, why: String) -> ExecutorError {
    ExecutorError::Away {
        who: format!("`{}`", shown(url)),
        why,
    }
}

fn refused(why: impl Into<String>) -> ExecutorError {
    ExecutorError::Refused { why: why.into() }
}

#[cfg(test)]
mod tests;
