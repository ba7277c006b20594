//! What is masked, and that the same fault has the same fingerprint for ever.

use proptest::prelude::*;

use super::{MASK_BYTES_MAX, fingerprint, mask};
use crate::dead_letter::Category;

fn print(text: &str) -> String {
    fingerprint("builders", Category::Timeout, "ReadTimeout", text)
}

/// What varies, by what it is written in.
fn noise() -> impl Strategy<Value = [String; 6]> {
    let uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    let path = "(/[a-z0-9_]{1,8}){1,4}(\\.py)?";
    (
        "[0-9]{1,9}",
        uuid,
        path,
        "[a-zA-Z0-9 _/:]{0,20}",
        "[0-9a-f]{8}[0-9]",
        "20[0-9]{2}-0[1-9]-1[0-9]T1[0-9]:0[0-9]:0[0-9](\\.[0-9]{3})?Z",
    )
        .prop_map(|(number, uuid, path, quote, hash, time)| [number, uuid, path, quote, hash, time])
}

fn text_with([number, uuid, path, quote, hash, time]: &[String; 6]) -> String {
    format!(
        "{time} run {uuid} (job-{number}) could not open {path} at commit {hash}: 'a {quote}' was \
         not \"{quote}\" after {number} ms, see https://ci.example.com{path}?q={number}"
    )
}

proptest! {
    #[test]
    fn the_same_fault_has_the_same_fingerprint(a in noise(), b in noise()) {
        let (a, b) = (text_with(&a), text_with(&b));
        prop_assert_eq!(mask(&a), mask(&b));
        prop_assert_eq!(print(&a), print(&b));
    }

    #[test]
    fn other_types_groups_categories_and_words_are_other_faults(
        a in "[A-Z][a-z]{3,8}Error", b in "[A-Z][a-z]{3,8}Error"
    ) {
        let of = |kind: &str| fingerprint("g", Category::Unknown, kind, "it failed");
        prop_assert_eq!(of(&a) == of(&b), a == b);
        prop_assert_eq!(print(&a) == print(&b), a == b);
        prop_assert_ne!(fingerprint("h", Category::Unknown, &a, "it failed"), of(&a));
        prop_assert_ne!(fingerprint("g", Category::Timeout, &a, "it failed"), of(&a));
    }

    #[test]
    fn any_text_is_masked_to_a_bounded_line(text: String) {
        let masked = mask(&text);
        prop_assert!(masked.len() <= MASK_BYTES_MAX);
        prop_assert!(!masked.contains('\n'));
    }

    #[test]
    fn a_long_text_is_masked_to_a_bounded_line(text in "[a-zä'\" /.0-9]{600,900}") {
        prop_assert!(mask(&text).len() <= MASK_BYTES_MAX);
    }

    #[test]
    fn frames_do_not_matter(line in 1..999_u32, more in 0..5_usize) {
        let frames = |line: u32, count| {
            format!("  File \"/srv/a.py\", line {line}, in run\n    run()\n").repeat(count)
        };
        let trace = |line, count| {
            let frames = frames(line, count);
            format!("Traceback (most recent call last):\n{frames}KeyError: 'a'")
        };
        prop_assert_eq!(print(&trace(1, 1)), print(&trace(line, more)));
    }
}

#[test]
fn what_varies_is_marked_by_what_it_is() {
    let texts = [
        ("run 8a3f took 30s", "run <n> took <n>s"),
        (
            "Read timed out. (read timeout=30)",
            "Read timed out. (read timeout=<n>)",
        ),
        ("at 2024-05-01 10:00:00,123 it died", "at <time> it died"),
        ("mail to joe@example.com bounced", "mail to <email> bounced"),
        (
            "GET https://u:p@api.example.com:8443/v1/x?y=1 failed",
            "GET https://api.example.com:<n>/<path> failed",
        ),
        (
            "can't open /srv/a/b.txt: i/o timeout",
            "can't open <path>: i/o timeout",
        ),
        ("C:\\app\\x.dll not found", "<path> not found"),
        ("src/main.rs:12:5: bad", "<path>: bad"),
        ("KeyError: 'customer'", "KeyError: <q>"),
        ("dial tcp 10.0.0.1:5432: refused", "dial tcp <n>: refused"),
        ("id 123e4567-e89b-12d3-a456-426614174000.", "id <n>."),
        ("pointer 0x7ffdeadbeef", "pointer <n>"),
        ("a  b\n\nc", "a b c"),
        ("", ""),
    ];
    for (text, expected) in texts {
        assert_eq!(mask(text), expected, "{text}");
    }
}

#[test]
fn a_fingerprint_never_changes() {
    // They are stored: a change here makes new faults of all old ones.
    assert_eq!(
        fingerprint(
            "builders",
            Category::Timeout,
            "ReadTimeout",
            "Read timed out after 30 s"
        ),
        "99b9b83f58a77898"
    );
    assert_eq!(
        fingerprint("", Category::Unknown, "", ""),
        "fc88f0e5d1c77311"
    );
}
