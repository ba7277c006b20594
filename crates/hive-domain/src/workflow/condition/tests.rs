//! Conditions on examples, and any text at all.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn holds(text: &str) -> Result<bool, String> {
    let inputs: BTreeMap<String, Json> = [
        ("review".to_owned(), json!({"score": 8, "tags": ["a", "b"]})),
        (
            "build".to_owned(),
            json!({"ok": true, "size": 1.5, "url": null}),
        ),
        ("my-task".to_owned(), json!(3)),
    ]
    .into();
    Condition::parse(text)?.holds(&inputs)
}

#[test]
fn a_condition_sees_the_results_of_the_dependencies() {
    assert_eq!(holds("inputs.review.score > 7"), Ok(true));
    assert_eq!(holds("inputs.review.score + 1 == 9"), Ok(true));
    assert_eq!(
        holds("inputs.build.ok && inputs.build.size < 1.0"),
        Ok(false)
    );
    assert_eq!(holds("inputs['my-task'] == 3"), Ok(true));
    assert_eq!(holds("'deploy' in inputs"), Ok(false));
    assert_eq!(holds("has(inputs.review.score)"), Ok(true));
    assert_eq!(holds("inputs.review.tags.exists(t, t == 'b')"), Ok(true));
}

#[test]
fn what_is_no_boolean_is_an_error() {
    let fault = holds("inputs.review.score").unwrap_err();
    assert_eq!(fault, "the result must be a boolean and is of type int");
    assert!(
        holds("inputs.nobody.score > 7")
            .unwrap_err()
            .contains("nobody")
    );
    assert!(holds("inputs.build.url > 7").is_err());
    assert!(holds("1 / 0 == 1").is_err());
}

#[test]
fn what_is_no_cel_is_refused_with_its_place() {
    let fault = holds("inputs.a >").unwrap_err();
    assert!(fault.starts_with("is not CEL: line 1, column "), "{fault}");
    assert!(holds("").is_err());
}

#[test]
fn length_depth_and_loops_are_bounded() {
    let words = |text: &str| Condition::parse(text).unwrap_err();
    let long = "a".repeat(CONDITION_BYTES_MAX + 1);
    assert_eq!(words(&long), "has 2049 bytes and must have at most 2048");
    let chain = format!("1{} == 1", "+1".repeat(80));
    assert_eq!(words(&chain), "is nested deeper than 64 levels");
    assert!(Condition::parse(&format!("{}a", "!(".repeat(900))).is_err());
    let square = "[1, 2].all(a, [1, 2].all(b, a == b))";
    assert_eq!(words(square), "has a loop within a loop");
    assert!(Condition::parse("[1].all(a, a > 0) && [2].all(a, a > 0)").is_ok());
}

#[test]
fn a_loop_over_many_values_is_refused() {
    let many: Vec<u32> = (0..1_000).collect();
    let inputs: BTreeMap<String, Vec<u32>> = [("a".to_owned(), many)].into();
    let looped = Condition::parse("inputs.a.all(n, n >= 0)").unwrap();
    assert_eq!(
        looped.holds(&inputs).unwrap_err(),
        "the inputs hold 1002 values and a condition with a loop may see at most 1000"
    );
    let plain = Condition::parse("size(inputs.a) == 1000").unwrap();
    assert_eq!(plain.holds(&inputs), Ok(true));
}

/// Pieces of the language, so that a random text is sometimes a condition.
const PIECES: [&str; 60] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    ":",
    "?",
    "||",
    "&&",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "<",
    ">",
    "==",
    "!=",
    " in ",
    " ",
    "a",
    "inputs",
    "inputs.a",
    "inputs['a']",
    "1",
    "2u",
    "0x1",
    "1.5",
    "1e999",
    "9223372036854775807",
    "-9223372036854775808",
    "'s'",
    "\"",
    "'",
    "r'",
    "b'",
    "\\x",
    "\\u12",
    "true",
    "false",
    "null",
    "has(",
    "size(",
    ".map(x,",
    ".all(x,",
    ".exists(y,",
    "é",
    "\n",
    "//",
    "`",
    "int(",
    "string(",
    "bytes(",
    "type(",
    "max(",
    ".contains(",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_has_an_answer(text in ".{0,200}") {
        drop(holds(&text));
    }

    #[test]
    fn pieces_of_the_language_have_an_answer(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..20)
    ) {
        drop(holds(&pieces.concat()));
    }

    #[test]
    fn deep_nesting_has_an_answer(
        open in prop::sample::select(&PIECES[..]),
        inner in prop::sample::select(&PIECES[..]),
        close in prop::sample::select(&PIECES[..]),
        deep in 0..1_000_usize,
    ) {
        drop(holds(&format!("{}{inner}{}", open.repeat(deep), close.repeat(deep))));
        drop(holds(&format!("{inner}{}", format!("{open}{close}").repeat(deep))));
    }
}
