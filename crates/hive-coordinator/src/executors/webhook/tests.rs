//! The executor against receivers in this process, which check the signature by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use ring::hmac;
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{Allowed, Key, Settings, Webhook, Wish};
use crate::executors::{ExecutorError, retry_after};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const WISH: Wish<'static> = Wish {
    namespace: "default",
    group: "reviewers",
    desired_consumers: 5,
    current_consumers: 2,
    reason: "12 waiting",
    epoch: 3,
    decided_ms: 1_700_000_000_123,
};

/// A receiver that keeps what it got.
struct Receiver {
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server of a test has no chassis"
)]
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work)
}

impl Receiver {
    /// One that answers so.
    async fn start(status: u16, fields: &[(&'static str, &str)], body: &str) -> Self {
        let got = Arc::new(Mutex::new(Vec::new()));
        let mut response = (StatusCode::from_u16(status).unwrap(), body.to_owned()).into_response();
        for (name, value) in fields {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let answer =
            async move |State(got): State<Arc<Mutex<Vec<_>>>>, headers: HeaderMap, sent: Bytes| {
                got.lock().push((headers, sent));
                Response::from_parts(parts, axum::body::Body::from(body))
            };
        let router = Router::new().fallback(answer).with_state(Arc::clone(&got));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { got, address, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn webhook(urls: &[&str]) -> Webhook {
    Webhook::new(Settings {
        urls: urls
            .iter()
            .map(|url| Allowed::parse(url).unwrap())
            .collect(),
        key: Some(Key::parse(SECRET).unwrap()),
        ..Settings::default()
    })
}

/// What a receiver does by the specification.
fn verify(headers: &HeaderMap, body: &[u8]) {
    let header = |name: &str| headers[name].to_str().unwrap();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let sent = Duration::from_secs(timestamp.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(now.abs_diff(sent) < Duration::from_secs(300), "{timestamp}");
    let (version, signature) = header("webhook-signature").split_once(',').unwrap();
    assert_eq!(version, "v1");
    let secret = STANDARD
        .decode(SECRET.trim_start_matches("whsec_"))
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    hmac::verify(&key, &signed, &STANDARD.decode(signature).unwrap()).unwrap();
}

#[test]
fn a_signature_is_that_of_the_specification() {
    let key = Key::parse(SECRET).unwrap();
    let body = br#"{"test": 2432232314}"#;
    let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_secret_is_random_bytes_of_some_length_and_never_shown() {
    let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
    for (secret, is_taken) in [
        (secret(24), true),
        (format!(" {}\n", secret(64)), true),
        (secret(23), false),
        (secret(65), false),
        ("whsec_".to_owned(), false),
        ("hunter2".to_owned(), false),
        (STANDARD.encode([7; 32]), false),
    ] {
        let key = Key::parse(&secret);
        assert_eq!(key.is_ok(), is_taken, "{secret}");
        let shown = format!("{key:?}");
        assert!(
            shown == "Ok(***)" || shown.contains("must hold `whsec_`"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_wish_arrives_signed() {
    let receiver = Receiver::start(204, &[], "").await;
    let webhook = webhook(&[&receiver.url("/")]);
    assert_eq!(
        webhook.post(&receiver.url("/scale?x=1"), &WISH).await,
        Ok(())
    );
    let got = receiver.got.lock();
    let (headers, body) = &got[0];
    verify(headers, body);
    assert_eq!(headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(body).unwrap();
    let wanted = json!({
        "group": "reviewers",
        "namespace": "default",
        "desired_consumers": 5,
        "current_consumers": 2,
        "reason": "12 waiting",
        "epoch": 3,
        "time": "2023-11-14T22:13:20.123Z",
    });
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn a_repeat_has_the_id_of_its_decision_and_another_decision_has_not() {
    let receiver = Receiver::start(200, &[], "ok").await;
    let webhook = webhook(&[&receiver.url("/")]);
    let current_consumers = 4;
    for wish in [
        WISH,
        Wish {
            current_consumers,
            ..WISH
        },
        Wish {
            desired_consumers: 6,
            ..WISH
        },
        Wish {
            decided_ms: 1,
            ..WISH
        },
        Wish { epoch: 4, ..WISH },
        Wish {
            group: "other",
            ..WISH
        },
        Wish {
            namespace: "other",
            ..WISH
        },
    ] {
        assert_eq!(webhook.post(&receiver.url("/"), &wish).await, Ok(()));
    }
    let got = receiver.got.lock();
    let mut ids: Vec<_> = got
        .iter()
        .map(|(headers, _)| &headers["webhook-id"])
        .collect();
    assert_eq!(ids[0], ids[1]);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn nothing_is_sent_where_settings_do_not_say_so() {
    let receiver = Receiver::start(200, &[], "").await;
    let url = receiver.url("/hooks/a");
    let unsigned = Webhook::new(Settings {
        urls: vec![Allowed::parse(&url).unwrap()],
        ..Settings::default()
    });
    for (webhook, words) in [
        (webhook(&[]), "`scaling.webhook_urls` allows none"),
        (
            webhook(&["https://a.example"]),
            "`scaling.webhook_urls` does not allow it",
        ),
        (
            webhook(&[&receiver.url("/hook")]),
            "`scaling.webhook_urls` does not allow it",
        ),
        (unsigned, "set `scaling.webhook_secret_file`"),
    ] {
        let error = webhook.post(&url, &WISH).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.needs_a_hand());
    }
    let error = webhook(&[&url])
        .post("ftp://a/\n", &WISH)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(r"`ftp://a/\n` must be an `http://`"),
        "{error}"
    );
    assert!(receiver.got.lock().is_empty());
}

#[tokio::test]
async fn an_answer_says_what_can_be_done() {
    let text = "x".repeat(9_000);
    for (status, fields, body, word, words) in [
        (410, None, "", "missing", "/a` does not exist"),
        (
            429,
            Some(("retry-after", "9")),
            "",
            "busy",
            "/a` asks to wait",
        ),
        (503, None, "", "busy", "/a` asks to wait"),
        (500, None, "no\nluck", "failed", "/a` answered 500: no luck"),
        (404, None, text.as_str(), "failed", "/a` answered 404: xxx"),
        (401, None, "", "failed", "/a` answered 401: "),
        (
            307,
            Some(("location", "/b")),
            "",
            "failed",
            "redirects are not followed",
        ),
    ] {
        let receiver = Receiver::start(status, fields.as_slice(), body).await;
        let webhook = webhook(&[&receiver.url("/")]);
        let error = webhook
            .post(&receiver.url("/a?token=x"), &WISH)
            .await
            .unwrap_err();
        assert_eq!(error.word(), word, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("token"), "{error}");
        assert!(error.to_string().len() < 500, "{error}");
        let wait = if status == 429 { 9 } else { 1 };
        assert_eq!(retry_after(1, &error).as_secs(), wait);
        assert_eq!(receiver.got.lock().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let task = spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[b'a'; 1024]).await.is_ok() {}
    });
    assert_eq!(webhook(&[&url]).post(&url, &WISH).await, Ok(()));
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .expect("the connection is closed")
        .unwrap();
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let patient = webhook(&[&url]);
    let webhook = Webhook::new(Settings {
        deadline: Duration::from_millis(200),
        ..patient.settings
    });
    let begun = Instant::now();
    let error = webhook.post(&url, &WISH).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(
        error
            .to_string()
            .ends_with("is away: no answer within 200ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_receiver_that_is_away_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = webhook(&[&url]).post(&url, &WISH).await.unwrap_err();
    assert_eq!((error.word(), error.needs_a_hand()), ("away", false));
    assert!(error.to_string().contains("refused"), "{error}");
}

/// A receiver under TLS whose certificate is for `localhost`, and that certificate.
async fn tls_receiver() -> (String, RootCertStore, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut seen = Vec::new();
            while !seen.ends_with(b"}") {
                seen.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    (format!("https://localhost:{port}/"), roots, task)
}

#[tokio::test]
async fn a_certificate_is_checked() {
    let (url, roots, task) = tls_receiver().await;
    let with = |roots| {
        Webhook::new(Settings {
            roots: Some(roots),
            ..webhook(&[&url]).settings
        })
    };
    assert_eq!(with(roots).post(&url, &WISH).await, Ok(()));
    let (_, others, other) = tls_receiver().await;
    let error = with(others).post(&url, &WISH).await.unwrap_err();
    assert_eq!(error.word(), "away");
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = with(RootCertStore::empty())
        .post(&url, &WISH)
        .await
        .unwrap_err();
    let ExecutorError::Refused { why } = &error else {
        panic!("{error}");
    };
    assert!(why.contains("SSL_CERT_FILE"), "{why}");
    task.abort();
    other.abort();
}

#[tokio::test]
async fn the_certificates_of_the_machine_are_trusted_by_default_and_ours_is_not() {
    let (url, _, task) = tls_receiver().await;
    let error = webhook(&[&url]).post(&url, &WISH).await.unwrap_err();
    // A machine without certificates says so; one with them does not know this one.
    assert!(matches!(error.word(), "away" | "refused"), "{error}");
    task.abort();
}
