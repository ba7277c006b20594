//! Which part of a text decides, and what type its error has.

use proptest::prelude::*;

use super::{bounded, error_type, headline, parts};

proptest! {
    #[test]
    fn any_text_has_a_part_that_decides(text: String) {
        prop_assert!(!parts(&text).is_empty());
        headline(&text, 3);
        prop_assert!(error_type(&text).len() <= 128);
    }

    #[test]
    fn a_long_text_is_cut_at_characters(text in "[aä€🦀]{4000,5000}") {
        let cut = bounded(&text);
        prop_assert!(cut.len() <= 9_000);
        prop_assert_eq!(cut.len() < text.len(), text.len() > 8_192);
    }
}

#[test]
fn a_trace_of_python_is_read_from_its_end() {
    let text = "working\nTraceback (most recent call last):\n  File \"a.py\", line 1\n    a()\n\
                KeyError: 'a'\n\nThe above exception was the direct cause of the following \
                exception:\n\nTraceback (most recent call last):\n  File \"b.py\", line 2\n    \
                b()\nacme.StepError: step failed\nmore";
    assert_eq!(
        parts(text),
        [
            "acme.StepError: step failed",
            "acme.StepError: step failed\nmore",
            "KeyError: 'a'",
            "working"
        ]
    );
    assert_eq!(error_type(text), "StepError");
    assert_eq!(headline(text, 1), "acme.StepError: step failed");
}

#[test]
fn causes_come_after_what_they_caused() {
    let java = "a.B: b\n\tat a.B.c(B.java:1)\nCaused by: java.io.IOException: d\n\t... 3 more";
    assert_eq!(parts(java), ["a.B: b", "java.io.IOException: d"]);
    let net = "A.B: b ---> System.IO.IOException: d\n   at A.C()\n   --- End of inner ---";
    assert_eq!(parts(net), ["A.B: b", "System.IO.IOException: d"]);
    let node = "TypeError: fetch failed\n    at a (b.js:1:2)\n  [cause]: Error: read ECONNRESET";
    assert_eq!(
        parts(node),
        ["TypeError: fetch failed", "Error: read ECONNRESET"]
    );
}

#[test]
fn the_type_of_an_error_is_found_where_languages_put_it() {
    let texts = [
        ("json.decoder.JSONDecodeError: x", "JSONDecodeError"),
        (
            "java.net.SocketTimeoutException: Read timed out",
            "SocketTimeoutException",
        ),
        (
            "Exception in thread \"main\" java.lang.NullPointerException",
            "NullPointerException",
        ),
        (
            "PHP Fatal error:  Uncaught TypeError: x in a.php:3",
            "TypeError",
        ),
        (
            "a.rb:3:in `b': execution expired (Net::ReadTimeout)",
            "ReadTimeout",
        ),
        ("the request failed with an error", ""),
        ("", ""),
    ];
    for (text, expected) in texts {
        assert_eq!(error_type(text), expected, "{text}");
    }
}
