//! Which dead letters have the same fault: a hash of what a failure says, without what varies.
//!
//! Ids, numbers, paths, quotes and times are replaced by short marks, so that the same line of code
//! failing for another customer is the same fault. What is left, with group, category and error
//! type, is hashed by a function that never changes: fingerprints are stored.

use super::{category::Category, text};
use crate::hash;

/// Longest masked text, in bytes.
pub const MASK_BYTES_MAX: usize = 512;
/// Lines of what decides that a fingerprint looks at: what follows is mostly a listing.
const LINES: usize = 3;
/// Longest quote, in bytes: a lone quotation mark must not swallow the rest.
const QUOTE_BYTES_MAX: usize = 1_024;

/// 16 hex digits for the fault: equal for failures that differ only in what `mask` hides.
#[must_use]
pub fn fingerprint(group: &str, category: Category, error_type: &str, text: &str) -> String {
    let masked = mask(text);
    let parts = [group, category.as_str(), error_type, &masked];
    format!("{:016x}", hash::of(&parts.map(str::as_bytes)))
}

/// What a failure says, in one line of at most 512 bytes, with marks in place of what varies:
/// `<q>` quotes, `<time>` times, `<n>` numbers, ids and hashes (some ids have digits alone),
/// `<path>` paths, `<email>` addresses. Of a link the host stays.
#[must_use]
pub fn mask(text: &str) -> String {
    let bounded = text::bounded(text);
    let head = text::headline(&bounded, LINES);
    let mut masked = String::new();
    let mut rest = head.as_str();
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        if masked.len() >= MASK_BYTES_MAX {
            break;
        }
        if c.is_whitespace() {
            if !masked.ends_with(' ') {
                masked.push(' ');
            }
            before = ' ';
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            continue;
        }
        let length = match quote(rest, before) {
            Some(length) => {
                masked.push_str("<q>");
                length
            },
            None => token(&mut masked, rest),
        };
        // Never 0, so that the walk ends.
        let (done, after) = rest.split_at(length.max(c.len_utf8()).min(rest.len()));
        before = done.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    let end = masked.floor_char_boundary(MASK_BYTES_MAX);
    masked.truncate(end);
    masked.trim().to_owned()
}

/// The length of the quote that `text` begins with, marks included. An apostrophe within a word
/// begins none.
fn quote(text: &str, before: char) -> Option<usize> {
    let mark = text.chars().next()?;
    let close = match mark {
        '"' | '`' => mark,
        '\'' if !before.is_alphanumeric() => mark,
        '\u{201c}' => '\u{201d}',
        '\u{2018}' => '\u{2019}',
        _ => return None,
    };
    let inner = text.get(mark.len_utf8()..)?;
    let mut is_escaped = false;
    for (at, c) in inner
        .char_indices()
        .take_while(|(at, _)| *at < QUOTE_BYTES_MAX)
    {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == close {
            let after = at.saturating_add(c.len_utf8());
            let next = inner.get(after..)?.chars().next();
            // `'it's'`: an apostrophe inside.
            if close == '\'' && next.is_some_and(char::is_alphanumeric) {
                continue;
            }
            return Some(mark.len_utf8().saturating_add(after));
        }
    }
    None
}

/// Masks what comes before the next space, quote or bracket; answers how many bytes that was.
fn token(masked: &mut String, text: &str) -> usize {
    let end = text.find(is_border).unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    if word.is_empty() {
        masked.extend(text.chars().next());
        return text.chars().next().map_or(0, char::len_utf8);
    }
    if let Some(length) = time(text) {
        masked.push_str("<time>");
        return length;
    }
    // `key=/a/path` and `url:https://…` begin within the word.
    if let Some((at, _)) = word.match_indices("://").next() {
        let head = word.get(..at).unwrap_or_default();
        let scheme = head
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+')
            .next();
        let start = at.saturating_sub(scheme.map_or(0, str::len));
        if start == 0 {
            link(masked, word);
            return end;
        }
        let (name, _) = word.split_at(start);
        words(masked, name);
        return start;
    }
    let core = word.trim_end_matches(['.', ':', ';', '!', '?']);
    if is_email(core) {
        masked.push_str("<email>");
        return core.len();
    }
    if let Some(at) = word.find('=') {
        let name = word.get(..at).unwrap_or_default();
        words(masked, name);
        masked.push('=');
        return at.saturating_add(1);
    }
    if is_path(core) {
        masked.push_str("<path>");
        return core.len();
    }
    words(masked, word);
    end
}

fn is_border(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '`' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | ',' | '|'
        )
        || matches!(c, '\'' | '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}')
}

/// The length of a time such as `2024-05-01T10:00:00.5Z`, `2024-05-01 10:00` or `10:00:00`.
fn time(text: &str) -> Option<usize> {
    let date = shape(text, "dddd-dd-dd").or_else(|| shape(text, "dddd/dd/dd"));
    let clock = |text: &str| {
        let mut length = shape(text, "dd:dd:dd").or_else(|| shape(text, "dd:dd"))?;
        let rest = text.get(length..)?;
        let more = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '+' | ':'));
        let zone = rest
            .get(..more.unwrap_or(rest.len()))?
            .trim_end_matches([':', '.', ',']);
        length = length.saturating_add(zone.len());
        let has_z = text.get(length..)?.starts_with('Z');
        Some(length.saturating_add(usize::from(has_z)))
    };
    let Some(length) = date else {
        return shape(text, "dd:dd:dd").and_then(|_| clock(text));
    };
    let rest = text.get(length..)?;
    let after = rest.strip_prefix(['T', 't', ' ']).and_then(clock);
    Some(after.map_or(length, |clock| {
        length.saturating_add(clock).saturating_add(1)
    }))
}

/// The length of `shape` if `text` begins so: `d` stands for a digit.
fn shape(text: &str, shape: &str) -> Option<usize> {
    let mut chars = text.chars();
    for wanted in shape.chars() {
        let c = chars.next()?;
        let fits = if wanted == 'd' {
            c.is_ascii_digit()
        } else {
            c == wanted
        };
        if !fits {
            return None;
        }
    }
    Some(shape.len())
}

/// A link: its scheme and host stay; a path, a port and what is asked for do not.
fn link(masked: &mut String, word: &str) {
    let Some((scheme, rest)) = word.split_once("://") else {
        return;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = host.trim_end_matches([':', '.', ';']);
    let (host, has_port) = match host.split_once(':') {
        Some((host, _)) => (host, true),
        None => (host, false),
    };
    masked.push_str(scheme);
    masked.push_str("://");
    let is_address = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    masked.push_str(if is_address { "<n>" } else { host });
    if has_port {
        masked.push_str(":<n>");
    }
    if path.len() > 1 {
        masked.push_str("/<path>");
    }
}

fn is_email(word: &str) -> bool {
    word.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && host.contains('.') && !host.contains(['@', '/', ':'])
    })
}

/// Absolute, relative or of Windows; `i/o` and `text/html` are words.
fn is_path(word: &str) -> bool {
    let has_name = |rest: &str| rest.chars().any(|c| c.is_alphanumeric() || c == '_');
    if let Some(rest) = word.strip_prefix('/').or_else(|| word.strip_prefix("~/")) {
        return has_name(rest);
    }
    if word.starts_with("./") || word.starts_with("../") {
        return true;
    }
    let mut chars = word.chars();
    let drive = (chars.next(), chars.next(), chars.next());
    if let (Some(letter), Some(':'), Some('\\' | '/')) = drive
        && letter.is_ascii_alphabetic()
    {
        return true;
    }
    let slashes = word.matches('/').count();
    let last = word.rsplit('/').next().unwrap_or_default();
    let is_file = last.split_once('.').is_some_and(|(name, end)| {
        !name.is_empty() && end.starts_with(|c: char| c.is_ascii_alphabetic())
    });
    (slashes >= 1 && is_file) || slashes >= 2
}

/// Masks the numbers and ids within a word; its parts are kept apart by what is between them.
fn words(masked: &mut String, word: &str) {
    if is_uuid(word.trim_end_matches(['.', ':', ';', '!'])) {
        let core = word.trim_end_matches(['.', ':', ';', '!']);
        mark(masked, "<n>");
        masked.push_str(word.get(core.len()..).unwrap_or_default());
        return;
    }
    let mut rest = word;
    while !rest.is_empty() {
        let is_part = |c: char| c.is_alphanumeric();
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        if part.is_empty() {
            let mut chars = after.chars();
            let separator = chars.next().unwrap_or_default();
            // `1.5`, `10:20` and `3-4` are one number, whatever its digits.
            let joins = matches!(separator, '.' | ':' | '-')
                && masked.ends_with("<n>")
                && chars.next().is_some_and(|c| c.is_ascii_digit());
            if !joins {
                masked.push(separator);
            }
            rest = after.get(separator.len_utf8()..).unwrap_or_default();
            continue;
        }
        match kind(part) {
            Kind::Word => masked.push_str(part),
            Kind::Number(unit) => {
                mark(masked, "<n>");
                masked.push_str(unit);
            },
        }
        rest = after;
    }
}

/// Appends a mark, unless the text ends with one already.
fn mark(masked: &mut String, mark: &str) {
    if !masked.ends_with("<n>") {
        masked.push_str(mark);
    }
}

enum Kind<'a> {
    Word,
    /// Or an id, with the unit that follows it.
    Number(&'a str),
}

/// Units that stay with their number: a changed unit is another fault.
const UNITS: &[&str] = &[
    "", "ms", "s", "m", "h", "b", "kb", "mb", "gb", "kib", "mib", "gib", "k",
];

fn kind(part: &str) -> Kind<'_> {
    let digits = part
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(part.len());
    let unit = part.get(digits..).unwrap_or_default();
    if digits > 0 && UNITS.contains(&unit.to_ascii_lowercase().as_str()) {
        return Kind::Number(unit);
    }
    if part.chars().any(|c| c.is_ascii_digit()) {
        return Kind::Number("");
    }
    Kind::Word
}

fn is_uuid(word: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut parts = word.split('-');
    lengths.iter().all(|length| {
        parts.next().is_some_and(|part| {
            part.len() == *length && part.chars().all(|c| c.is_ascii_hexdigit())
        })
    }) && parts.next().is_none()
}

#[cfg(test)]
mod tests;
