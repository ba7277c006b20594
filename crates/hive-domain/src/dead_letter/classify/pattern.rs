//! Patterns of rules and the text that they are looked for in.
//!
//! By hand, without regular expressions: a pattern is a few literals, so what it costs is bounded
//! by the length of the text, whoever wrote it.

/// Most characters that `*` stands for.
const GAP_BYTES_MAX: usize = 80;

/// A part of a failure's text in small letters, with the HTTP statuses that it names.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    text: String,
    /// The text with `#` for each number.
    counted: String,
    statuses: Vec<u16>,
    pairs: Pairs,
}

/// Which pairs of neighbouring bytes a text holds, by a hash of 12 bits. There are many patterns
/// and most of them hold a pair that the text does not: they need no search.
#[derive(Debug, Clone)]
struct Pairs([u64; 64]);

impl Pairs {
    fn new(text: &str) -> Self {
        let mut pairs = Self([0; 64]);
        pairs.add(text);
        pairs
    }

    fn add(&mut self, text: &str) {
        for (a, b) in text.bytes().zip(text.bytes().skip(1)) {
            let (word, bit) = Self::place(a, b);
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    fn may_hold(&self, literal: &str) -> bool {
        literal.bytes().zip(literal.bytes().skip(1)).all(|(a, b)| {
            let (word, bit) = Self::place(a, b);
            self.0.get(word).is_some_and(|word| word & bit != 0)
        })
    }

    /// The low six bits of both bytes: the letters, digits and most signs of small text differ
    /// in them.
    const fn place(a: u8, b: u8) -> (usize, u64) {
        ((a & 63) as usize, 1 << (b & 63))
    }
}

impl Segment {
    /// `text` must be in small letters.
    pub(super) fn new(text: String) -> Self {
        let statuses = statuses(&text);
        let counted = counted(&text);
        let mut pairs = Pairs::new(&text);
        pairs.add(&counted);
        Self {
            text,
            counted,
            statuses,
            pairs,
        }
    }
}

/// One pattern of a rule.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// A status of HTTP; both ends belong to it.
    Status(u16, u16),
    /// Literals with gaps between them.
    Literals {
        /// In small letters, none empty unless the pattern is.
        literals: Vec<String>,
        /// Whether a word must begin at the first one.
        starts: bool,
        /// Whether a word must end at the last one.
        ends: bool,
    },
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        if let Some(status) = text.strip_prefix("http:").and_then(status_range) {
            return Self::Status(status.0, status.1);
        }
        let (starts, rest) = match text.strip_prefix('|') {
            Some(rest) => (true, rest),
            None => (false, text.as_str()),
        };
        let (ends, rest) = match rest.strip_suffix('|') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let literals = rest.split('*').filter(|literal| !literal.is_empty());
        Self::Literals {
            literals: literals.map(str::to_owned).collect(),
            starts,
            ends,
        }
    }

    pub(super) fn is_in(&self, segment: &Segment) -> bool {
        match self {
            Self::Status(from, to) => segment
                .statuses
                .iter()
                .any(|status| status >= from && status <= to),
            Self::Literals {
                literals,
                starts,
                ends,
            } => {
                let Some((first, rest)) = literals.split_first() else {
                    return false;
                };
                if !literals
                    .iter()
                    .all(|literal| segment.pairs.may_hold(literal))
                {
                    return false;
                }
                let has_number = literals.iter().any(|literal| literal.contains('#'));
                let text = if has_number {
                    &segment.counted
                } else {
                    &segment.text
                };
                text.match_indices(first.as_str()).any(|(at, found)| {
                    let (before, after) = text.split_at(at);
                    let after = after.get(found.len()..).unwrap_or_default();
                    if *starts && before.chars().next_back().is_some_and(is_of_word) {
                        return false;
                    }
                    follows(after, rest, *ends)
                })
            },
        }
    }
}

/// A text with `#` in place of each number, its fraction included.
fn counted(text: &str) -> String {
    let mut counted = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            counted.push(c);
            continue;
        }
        counted.push('#');
        while chars
            .peek()
            .is_some_and(|c| c.is_ascii_digit() || matches!(c, '.' | ','))
        {
            let separator = chars.next().filter(|c| !c.is_ascii_digit());
            // The full stop of a sentence is none of a fraction.
            if let Some(separator) = separator
                && !chars.peek().is_some_and(char::is_ascii_digit)
            {
                counted.push(separator);
                break;
            }
        }
    }
    counted
}

/// Whether the literals follow each other in `text`, each in reach of the one before.
fn follows(text: &str, literals: &[String], ends: bool) -> bool {
    let Some((next, rest)) = literals.split_first() else {
        return !ends || !text.chars().next().is_some_and(is_of_word);
    };
    let line = text.lines().next().unwrap_or_default();
    line.match_indices(next.as_str())
        .take_while(|(at, _)| *at <= GAP_BYTES_MAX)
        .any(|(at, found)| {
            let after = text.get(at.saturating_add(found.len())..);
            follows(after.unwrap_or_default(), rest, ends)
        })
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The statuses that `503` or `5xx` stands for.
fn status_range(text: &str) -> Option<(u16, u16)> {
    if let Some(hundreds) = text.strip_suffix("xx") {
        let hundreds: u16 = hundreds.parse().ok().filter(|hundreds| *hundreds < 10)?;
        let from = hundreds.saturating_mul(100);
        return Some((from, from.saturating_add(99)));
    }
    let status = text.parse().ok()?;
    Some((status, status))
}

/// Words before a number that make it a status.
const BEFORE: &str = "\
    http; http/1.0; http/1.1; http/2; http/2.0; status; code; statuscode; error; err; errorcode; \
    exception; response; returned; returns; replied; responded; answered; responded with; \
    returned with; replied with; answered with; failed with; rejected with; got; got a; got an; \
    received; success; a; an; request failed; upstream; server; status of; with http";
/// What may stand before a number that is no status, although a word above is before that.
const NEVER_BEFORE: &str = "\
    exit code; exit status; exited with code; exit; exited with; line; errno; os error; \
    return code; returned code; code unit; winerror; socket error";
/// What is counted is no status.
const UNITS: &str = "\
    ms; s; sec; secs; second; seconds; minutes; min; m; h; hours; b; bytes; kb; mb; gb; kib; \
    mib; gib; tokens; token; rows; row; times; items; files; lines; attempts; tries; retries; \
    characters; chars; records; messages; requests; entries; of; x; days; steps; events; pages; \
    documents; chunks; tasks; columns; values; errors; tests; results; percent";
/// What is numbered is no status either: `order: 503 is late`.
const COUNTED: &str = "line; column; col; position; row; index; offset; attempt; retry; size; \
    count; length; job; task; order; step; page; item; chunk; version; took; after; elapsed; \
    duration; \
    pid; number; run; batch; message; entry; record; user; customer; ticket; issue; port; total; \
    expected; actual; value; limit; amount; result; seq; id; delivery; request; session";
/// What follows a status that stands alone.
const AFTER: &str = "\
    too many; service unav; service temp; bad gateway; bad request; internal server; \
    internal error; gateway time; unauthor; forbidden; unprocess; request time; client error; \
    server error; not found; payment req; conflict; precondition; method not; proxy auth; \
    payload too; request entity; error; status; response; overloaded; resource_ex; unavailable; \
    rate limit; gone; permission; invalid; failed dep; insufficient; site is over; \
    unknown error; http; unsupported";

/// The numbers of a text that are statuses of HTTP by what stands around them.
fn statuses(text: &str) -> Vec<u16> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut at = 0;
        while let Some(rest) = line.get(at..) {
            let Some(start) = rest.find(|c: char| c.is_ascii_digit()) else {
                break;
            };
            let start = at.saturating_add(start);
            let digits = line.get(start..).unwrap_or_default();
            let length = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            at = start.saturating_add(length);
            let (before, after) = (
                line.get(..start).unwrap_or_default(),
                line.get(at..).unwrap_or_default(),
            );
            let number = line.get(start..at).and_then(|digits| digits.parse().ok());
            if let Some(status) = number.filter(|status| (400..600).contains(status))
                && length == 3
                && is_status(before, after)
                && !found.contains(&status)
            {
                found.push(status);
            }
        }
    }
    found
}

/// The items of a list; one literal is shorter than an array of them.
fn list(items: &'static str) -> impl Iterator<Item = &'static str> {
    items.split(';').map(str::trim)
}

fn is_status(before: &str, after: &str) -> bool {
    let is_inside = before
        .chars()
        .next_back()
        .is_some_and(|c| is_of_word(c) || matches!(c, '.' | '-' | '/' | '$' | '#' | '+'))
        // `HTTP/503` and `status-503` are names of a status nobody else uses.
        && !before.ends_with("status-");
    let mut next = after.chars();
    let follows = match (next.next(), next.next()) {
        (Some(c), _) if is_of_word(c) || matches!(c, '%' | '/' | '-') => false,
        (Some('.' | ','), Some(c)) if c.is_ascii_digit() => false,
        _ => true,
    };
    if is_inside || !follows {
        return false;
    }
    let word = after.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let end = word.find(|c: char| !c.is_ascii_alphanumeric());
    let unit = word.get(..end.unwrap_or(word.len())).unwrap_or_default();
    if after.starts_with(' ') && list(UNITS).any(|one| one == unit) {
        return false;
    }
    if list(AFTER).any(|phrase| word.starts_with(phrase))
        && after.len() < word.len().saturating_add(8)
    {
        return true;
    }
    if before.ends_with('(') && after.starts_with(')') && before.len() > 1 {
        return true;
    }
    let trimmed = before.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    // `a.b.OpenSearch: 503 search phase …`: after the name of what failed.
    let name = before.strip_suffix(": ").unwrap_or_default();
    let name = name
        .rsplit(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    let is_text = after.starts_with(' ') && word.starts_with(|c: char| c.is_ascii_alphabetic());
    if name.len() > 2 && is_text && !list(COUNTED).any(|counted| counted == name) {
        return true;
    }
    let ends = |words: &'static str| {
        list(words).any(|word| {
            trimmed
                .strip_suffix(word)
                .is_some_and(|rest| !rest.ends_with(is_of_word) || rest.ends_with('_'))
        })
    };
    if ends(NEVER_BEFORE) {
        return false;
    }
    if ends(BEFORE) {
        return true;
    }
    // `TooManyRequests: 503 the model …`, `ReadError: 503`: the name of an error before it.
    let is_named = [
        "error",
        "exception",
        "requests",
        "unavailable",
        "exhausted",
        "statuscode",
    ]
    .iter()
    .any(|end| trimmed.ends_with(end));
    is_named || (trimmed.is_empty() && (after.starts_with(" {") || after.starts_with(':')))
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Segment, statuses};

    fn is_in(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).is_in(&Segment::new(text.to_ascii_lowercase()))
    }

    #[test]
    fn a_border_of_a_word_is_asked_for_where_the_bar_is() {
        assert!(is_in("|oom|", "killed: OOM."));
        assert!(!is_in("|oom|", "room 5"));
        assert!(!is_in("|oom|", "oomph"));
        assert!(is_in("|oom", "oomkilled"));
        assert!(is_in("oom|", "room"));
    }

    #[test]
    fn a_star_stands_for_a_bounded_rest_of_the_line() {
        assert!(is_in("pool * exhausted", "pool of 5 exhausted"));
        assert!(is_in("pool*exhausted|", "pool exhausted: x"));
        assert!(!is_in("pool*exhausted", "pool\nexhausted"));
        let far = format!("pool {} exhausted", "x".repeat(100));
        assert!(!is_in("pool*exhausted", &far));
        assert!(!is_in("*", "anything"));
    }

    #[test]
    fn a_number_is_a_status_only_by_what_stands_around_it() {
        let texts = [
            ("error code: 429 - {", &[429][..]),
            ("429 too many requests", &[429]),
            (
                "response status code does not indicate success: 503 (service unavailable).",
                &[503],
            ),
            ("{\"code\": 429, \"status\": 503}", &[429, 503]),
            ("httperror: 500 server error for url", &[500]),
            ("got 502 from upstream", &[502]),
            ("http/1.1 504", &[504]),
            ("unexpected status: [401]", &[401]),
            ("error: 429 {\"type\":\"error\"", &[429]),
            ("status_code=503", &[503]),
            ("took 4290 ms", &[]),
            ("took 429 ms", &[]),
            ("order 503 failed", &[]),
            ("exit code 401", &[]),
            ("error 429 rows", &[]),
            ("req_503", &[]),
            ("v1.429", &[]),
            ("line 404", &[]),
        ];
        for (text, expected) in texts {
            assert_eq!(statuses(text), expected, "{text}");
        }
    }

    #[test]
    fn a_range_of_statuses_is_one_pattern() {
        assert!(is_in("http:5xx", "HTTP 503"));
        assert!(!is_in("http:5xx", "HTTP 404"));
        assert!(is_in("http:404", "HTTP 404"));
    }
}
