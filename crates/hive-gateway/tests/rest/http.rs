//! A small HTTP/1.1 client that holds every answer against the served OpenAPI document.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::schema;

/// Longest time that a call may take; the longest poll of the tests is shorter.
const DEADLINE: Duration = Duration::from_secs(20);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Answer {
    /// The fields that a refusal names.
    pub(crate) fn faulty_fields(&self) -> Vec<&str> {
        let violations = self.body["violations"]
            .as_array()
            .map_or(&[][..], |all| all);
        violations
            .iter()
            .filter_map(|one| one["field"].as_str())
            .collect()
    }

    /// The reason of a refusal.
    pub(crate) fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

/// A client of one gateway.
pub(crate) struct Client {
    address: SocketAddr,
    document: Value,
}

impl Client {
    /// A client that has read the gateway's OpenAPI document.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self {
            address,
            document: Value::Null,
        };
        let (status, _, body) = client.send("GET", "/api/v1/openapi.json", &[], b"").await;
        assert_eq!(status, 200);
        client.document = serde_json::from_slice(&body).unwrap();
        client
    }

    /// The OpenAPI document.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// A call without a body.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    /// A call without a body by `method`.
    pub(crate) async fn bare(&self, method: &str, path: &str) -> Answer {
        self.call(method, path, &[], b"").await
    }

    /// A call with a JSON body.
    pub(crate) async fn send_json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.call(method, path, &json, body.to_string().as_bytes())
            .await
    }

    /// Posts a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send_json("POST", path, body).await
    }

    /// The text of an answer that is no JSON.
    pub(crate) async fn text(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let (status, headers, body) = self.send("GET", path, headers, b"").await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(
            (status, &*headers["content-type"]),
            (200, "text/event-stream"),
            "{body}"
        );
        body
    }

    /// Any call; its answer is held against the document.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let (status, headers, body) = self.send(method, path, headers, body).await;
        let body: Value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| panic!("{method} {path}: {status} without JSON: {body:?}"));
        let faults = schema::faults(&self.document, method, path, status, &body);
        assert_eq!(
            faults,
            Vec::<String>::new(),
            "{method} {path}: {status} {body}"
        );
        if status >= 400 && !(status == 503 && body.get("components").is_some()) {
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(body["status"], status);
        }
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, BTreeMap<String, String>, Vec<u8>) {
        let exchange = async {
            let mut head = format!(
                "{method} {path} HTTP/1.1\r\nhost: hive\r\nconnection: close\r\ncontent-length: \
                 {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            // A door that refuses a large body may answer and close before it has read it all.
            let _is_read = stream.write_all(body).await.is_ok();
            let mut answer = Vec::new();
            let _is_whole = stream.read_to_end(&mut answer).await.is_ok();
            answer
        };
        let answer = timeout(DEADLINE, exchange).await;
        parse(&answer.unwrap_or_else(|_| panic!("{method} {path}: no answer in time")))
    }
}

fn parse(answer: &[u8]) -> (u16, BTreeMap<String, String>, Vec<u8>) {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP: {:?}", String::from_utf8_lossy(answer)));
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = &answer[end + 4..];
    let is_chunked = headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked");
    let body = if is_chunked {
        unchunk(body)
    } else {
        body.to_vec()
    };
    (status, headers, body)
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 4 + length..];
    }
}
