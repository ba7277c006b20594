//! What an HTTP server answered, read within bounds.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// Most characters of another side's words in an error.
const EXCERPT_CHARS_MAX: usize = 300;

/// An answer whose body was read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// For how long the other side asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// The body, or its begin.
    pub(super) body: Vec<u8>,
    /// Whether `body` is all of it.
    pub(super) is_whole: bool,
}

impl Answer {
    /// Reads at most `bytes_max` of the body of `response`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn read<B>(response: Response<B>, bytes_max: usize) -> Result<Self, B::Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, mut body) = response.into_parts();
        let mut answer = Self {
            status: parts.status,
            retry_after: retry_after(&parts.headers, SystemTime::now()),
            body: Vec::new(),
            is_whole: true,
        };
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame?.into_data() else {
                continue;
            };
            let room = bytes_max.saturating_sub(answer.body.len());
            if data.len() > room {
                answer.is_whole = false;
                data.truncate(room);
            }
            answer.body.extend_from_slice(&data);
            if !answer.is_whole {
                break;
            }
        }
        Ok(answer)
    }

    /// The begin of the body, for an error.
    pub(super) fn words(&self) -> String {
        excerpt(&self.body)
    }
}

/// `Retry-After` of `headers`: seconds, or a moment.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = httpdate::parse_http_date(text).ok()?;
    Some(moment.duration_since(now).unwrap_or_default())
}

/// The begin of `bytes` as one line of plain text.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let trimmed = text.trim();
    let mut words: String = trimmed
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if trimmed.chars().nth(EXCERPT_CHARS_MAX).is_some() {
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;
    use http::{HeaderMap, Response};
    use http_body_util::Full;

    use super::{Answer, excerpt, retry_after};

    #[test]
    fn a_wait_is_seconds_or_a_moment() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 7);
        for (text, seconds) in [
            ("3", Some(3)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            let wait = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), wait, "{text}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_bound() {
        for (bytes, is_whole) in [(4, true), (5, false)] {
            let body = Full::new(Bytes::from(vec![b'a'; bytes]));
            let answer = Answer::read(Response::new(body), 4).await.unwrap();
            assert_eq!(
                (answer.words().as_str(), answer.is_whole),
                ("aaaa", is_whole)
            );
        }
    }

    #[test]
    fn words_are_one_line_of_bounded_length() {
        assert_eq!(excerpt(b" a\n\x1b[31mb\xff "), "a  [31mb\u{fffd}");
        assert_eq!(excerpt("é".repeat(301).as_bytes()).chars().count(), 301);
    }
}
