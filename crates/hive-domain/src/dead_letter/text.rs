//! The text of a failure: what of it is looked at, and which part of it decides.
//!
//! A trace of Python ends with the exception that was raised last and tells its causes before;
//! those of Java, .NET, Rust and JavaScript begin with the last one and tell causes after. Frames,
//! lines of code and markers say where, not what, and are left out: a file may be called
//! `timeout.py`.

use std::borrow::Cow;

/// How much of each end of a text is looked at, in bytes.
pub(super) const END_BYTES: usize = 4_096;

/// The beginning and the end of a long text; a short one whole.
pub(super) fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= END_BYTES.saturating_mul(2) {
        return Cow::Borrowed(text);
    }
    let head = text.get(..text.floor_char_boundary(END_BYTES));
    let from = text.len().saturating_sub(END_BYTES);
    let tail = text.get(text.ceil_char_boundary(from)..);
    Cow::Owned(format!(
        "{}\n{}",
        head.unwrap_or_default(),
        tail.unwrap_or_default()
    ))
}

/// One part of a text while it is taken apart.
#[derive(Debug, Default)]
struct Part<'a> {
    is_trace: bool,
    lines: Vec<&'a str>,
}

/// The parts of a text, from what decides to what explains: the first line of the exception that
/// was raised last, the whole of it, then its causes. The last ones may be what surrounds them.
pub(super) fn parts(text: &str) -> Vec<String> {
    let parts = take_apart(text);
    let (mut traces, others): (Vec<Part<'_>>, Vec<Part<'_>>) =
        parts.into_iter().partition(|part| part.is_trace);
    traces.reverse();
    let mut found = Vec::new();
    for part in traces.into_iter().chain(others) {
        let Some((first, rest)) = part.lines.split_first() else {
            continue;
        };
        if found.is_empty() && !rest.is_empty() {
            found.push((*first).to_owned());
        }
        found.push(part.lines.join("\n"));
    }
    if found.is_empty() {
        // Nothing but frames: better than nothing.
        found.push(text.trim().to_owned());
    }
    found
}

/// The first lines of what decides, at most `most`.
pub(super) fn headline(text: &str, most: usize) -> String {
    let parts = parts(text);
    let whole = parts.get(1).or_else(|| parts.first());
    let lines = whole.map(String::as_str).unwrap_or_default().lines();
    lines.take(most).collect::<Vec<_>>().join("\n")
}

fn take_apart(text: &str) -> Vec<Part<'_>> {
    let mut parts = vec![Part::default()];
    let mut in_frames = false;
    for line in text.lines() {
        let line = bare(line);
        let low = line.trim_start().to_ascii_lowercase();
        if low.is_empty() {
            continue;
        }
        if let Some(at) = low.find("traceback (most recent call last)") {
            // A logger's words may stand before it.
            let before = line.trim_start().get(..at).unwrap_or_default();
            if let Some(part) = parts.last_mut().filter(|_| !before.trim().is_empty()) {
                part.lines.push(before);
            }
            parts.push(Part {
                is_trace: true,
                lines: Vec::new(),
            });
            in_frames = true;
            continue;
        }
        if low.starts_with("stack backtrace:") {
            break;
        }
        if MARKERS.iter().any(|marker| low.starts_with(marker)) {
            in_frames = false;
            continue;
        }
        let is_indented = line.starts_with([' ', '\t']);
        if in_frames && (is_indented || is_frame(&low, is_indented)) {
            continue;
        }
        in_frames = false;
        if is_frame(&low, is_indented) {
            continue;
        }
        push(&mut parts, line.trim());
    }
    parts
}

/// Without the frame that Python draws around the exceptions of a group.
fn bare(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with("| ") || trimmed.starts_with("+-") || trimmed.starts_with("+ ") {
        let rest = trimmed.trim_start_matches(['|', '+', '-']);
        rest.strip_prefix(' ').unwrap_or(rest)
    } else {
        line
    }
}

/// Lines between the exceptions of a chain, and notes of runtimes.
const MARKERS: &[&str] = &[
    "during handling of the above",
    "the above exception was the direct",
    "note: run with `rust_backtrace",
    "stack trace:",
    "--- end of",
    "node.js v",
    "... ",
];

/// Where a cause begins.
const CAUSES: &[&str] = &["caused by:", "[cause]:", "cause:", "---> ", "suppressed:"];

fn push<'a>(parts: &mut Vec<Part<'a>>, line: &'a str) {
    let low = line.to_ascii_lowercase();
    let cause = CAUSES.iter().find(|cause| low.starts_with(**cause));
    if let Some(cause) = cause {
        let rest = line.get(cause.len()..).unwrap_or_default().trim();
        parts.push(Part::default());
        if !rest.is_empty() {
            push(parts, rest);
        }
        return;
    }
    // .NET writes inner exceptions into the same line.
    if let Some((outer, inner)) = line.split_once(" ---> ") {
        push(parts, outer.trim());
        parts.push(Part::default());
        push(parts, inner.trim());
        return;
    }
    if let Some(part) = parts.last_mut() {
        part.lines.push(line);
    }
}

/// Whether a line says where and not what. `low` is in small letters, without its indentation.
fn is_frame(low: &str, is_indented: bool) -> bool {
    let is_numbered = low
        .strip_prefix('#')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    low.starts_with("file \"")
        || (is_indented && low.starts_with("at "))
        || (low.starts_with("at ") && low.ends_with(')') && low.contains(':'))
        || is_numbered
        || (low.starts_with("from ") && low.contains(":in "))
        || low.starts_with("goroutine ")
        || low.chars().all(|c| matches!(c, '^' | '~' | ' '))
        || (is_indented && low.contains(".go:") && low.contains(" +0x"))
}

/// The type of the error that decides, without its module, as far as a text names one; else empty.
#[must_use]
pub fn error_type(text: &str) -> &str {
    let mut parts = take_apart(text);
    let at = parts.iter().rposition(|part| part.is_trace).unwrap_or(0);
    let lines = if at < parts.len() {
        parts.swap_remove(at).lines
    } else {
        Vec::new()
    };
    lines
        .iter()
        .find_map(|line| type_of_line(line))
        .unwrap_or_default()
}

/// How a name of an error ends, in small letters.
const ENDS: &[&str] = &[
    "error",
    "exception",
    "fault",
    "timeout",
    "interrupt",
    "exit",
    "failure",
    "warning",
    "iteration",
    "exceeded",
    "expired",
    "disconnected",
    "refused",
    "unavailable",
    "exhausted",
    "panic",
];

fn type_of_line(line: &str) -> Option<&str> {
    for word in line.split([' ', '(', ')', '[', ']', ',', '"']).take(12) {
        let has_colon = word.ends_with(':');
        let word = word.trim_end_matches([':', ';', '.']);
        let name = word.rsplit(['.', ':', '\\', '$']).next().unwrap_or(word);
        let low = name.to_ascii_lowercase();
        let is_name = name.len() > 5
            && name.len() <= 128
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.starts_with(|c: char| c.is_ascii_alphabetic());
        // A plain word of a sentence ends like this too; a name has an inner capital or a module.
        let is_type = name.chars().skip(1).any(|c| c.is_ascii_uppercase())
            || (name.len() < word.len() && word.contains(['.', ':', '\\']))
            || (has_colon && matches!(name, "Exception" | "Timeout"));
        if is_name && is_type && ENDS.iter().any(|end| low.ends_with(end)) {
            return Some(name);
        }
    }
    None
}

/// A span of time for people: in minutes, from two hours on in hours, from two days on in days; any
/// part of a minute counts as one.
pub(super) fn span(ms: u64) -> String {
    let minutes = ms.div_ceil(60_000).max(1);
    let (count, unit) = if minutes < 120 {
        (minutes, "minute")
    } else if minutes < 2_880 {
        (minutes / 60, "hour")
    } else {
        (minutes / 1_440, "day")
    };
    let more = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{more}")
}

#[cfg(test)]
mod tests;
