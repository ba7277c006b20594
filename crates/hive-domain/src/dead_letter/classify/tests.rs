//! Whose word counts, what configured rules do, and what never matters.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{Classified, Failure, RULE_GIVEN, RULE_NONE, RuleSpec, Rules};
use crate::dead_letter::Category;

/// Built once: there are many patterns, and properties ask often.
static RULES: LazyLock<Rules> = LazyLock::new(Rules::built_in);

fn of(given: &str, error_type: &str, text: &str) -> Category {
    let failure = Failure {
        given,
        error_type,
        text,
    };
    RULES.classify(&failure).category
}

fn rule(name: &str) -> RuleSpec {
    RuleSpec {
        name: name.to_owned(),
        category: Category::RateLimited,
        ..RuleSpec::default()
    }
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Texts with a place for something that varies, which must not change what they are.
const NOISY: &[(&str, Category)] = &[
    (
        "request {} took {} ms and was refused: connection refused",
        Category::NetworkError,
    ),
    ("run {} timed out after {} s", Category::Timeout),
    ("job {}: KeyError: 'status'", Category::HandlerException),
    ("order {} did not work out in {} ms", Category::Unknown),
    (
        "call {} ended: HTTP 503 for item {}",
        Category::DependencyFailure,
    ),
    (
        "[{}] Expecting value: line {} column {} (char 0)",
        Category::ParsingError,
    ),
    (
        "org {}: Rate limit reached, used {} of {}",
        Category::RateLimited,
    ),
];

proptest! {
    #[test]
    fn any_text_has_an_answer(given: String, error_type: String, text: String) {
        of(&given, &error_type, &text);
    }

    #[test]
    fn case_does_not_matter(
        start in proptest::sample::select(NOISY), more in "[a-zA-Z0-9 :.'(\\[]{0,40}"
    ) {
        let text = format!("{} {more}", start.0);
        let classify = |text: &str| {
            let found = RULES.classify(&Failure { given: "", error_type: "", text });
            (found.category, found.rule.to_owned())
        };
        prop_assert_eq!(classify(&text.to_ascii_lowercase()), classify(&text.to_ascii_uppercase()));
        prop_assert_eq!(classify(&text), classify(&text.to_ascii_uppercase()));
    }

    #[test]
    fn ids_and_numbers_do_not_matter(
        case in proptest::sample::select(NOISY),
        noise in prop_oneof![
            "[0-9]{1,8}", "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}",
            "(req|run|org)_[0-9]{1,3}[a-f0-9]{8}", "(429|500|503|401|400|504)"
        ]
    ) {
        let text = case.0.replace("{}", &noise);
        prop_assert_eq!(of("", "", &text), case.1, "{}", text);
    }

    #[test]
    fn what_the_agent_gave_is_what_it_is(
        category in proptest::sample::select(Category::ALL.to_vec()), text in "[a-z ]{0,30}"
    ) {
        let is_word = !matches!(category, Category::Unknown | Category::HandlerException);
        let found = of(category.as_str(), "TimeoutError", &format!("HTTP 503 {text}"));
        prop_assert!(!is_word || found == category);
    }

    #[test]
    fn what_stands_in_the_middle_of_a_long_text_is_not_looked_at(noise in "[u-z]{4}") {
        let filler = format!("{noise} ").repeat(2_000);
        let text = format!("it did not work {filler} connection refused {filler} end");
        prop_assert_ne!(of("", "", &text), Category::NetworkError);
    }
}

#[test]
fn words_of_our_own_daemons_are_known() {
    let words = [
        ("lease_expired", Category::Timeout),
        ("connection_lost", Category::Timeout),
        ("undecodable", Category::ParsingError),
        ("invalid_outcome", Category::ValidationError),
        ("expired", Category::Expired),
        ("cancelled", Category::Cancelled),
        ("no_capable_consumer", Category::NoCapableConsumer),
        (" Rate-Limit ", Category::RateLimited),
    ];
    for (word, category) in words {
        assert_eq!(of(word, "", "boom"), category, "{word}");
    }
}

#[test]
fn the_default_of_a_nack_leaves_the_word_to_the_text() {
    assert_eq!(
        of("handler_exception", "", "Connection refused"),
        Category::NetworkError
    );
    assert_eq!(
        of("handler_exception", "", "boom"),
        Category::HandlerException
    );
    assert_eq!(
        of("handler_exception", "", "something went wrong"),
        Category::HandlerException
    );
    assert_eq!(of("", "", "boom"), Category::Unknown);
}

#[test]
fn the_name_of_the_rule_is_told() {
    let rule = |given, text| {
        let error_type = "";
        RULES
            .classify(&Failure {
                given,
                error_type,
                text,
            })
            .rule
    };
    assert_eq!(rule("timeout", ""), RULE_GIVEN);
    assert_eq!(rule("", "boom"), RULE_NONE);
    assert_eq!(rule("", "HTTP 429"), "rate");
}

#[test]
fn the_last_exception_decides_unless_it_says_nothing() {
    let chain = |first: &str, last: &str| {
        let head = "Traceback (most recent call last):\n  File \"timeout.py\", line 3, in run\n";
        format!(
            "{head}{first}\n\nDuring handling of the above exception, another exception \
             occurred:\n\n{head}{last}"
        )
    };
    let (slow, bug, wrapper) = ("ReadTimeout: x", "KeyError: 'a'", "AgentError: step failed");
    assert_eq!(of("", "", &chain(slow, bug)), Category::HandlerException);
    assert_eq!(of("", "", &chain(bug, slow)), Category::Timeout);
    assert_eq!(of("", "", &chain(slow, wrapper)), Category::Timeout);
    let java = "com.acme.StepException: step failed\n\tat com.acme.Timeout.run(Timeout.java:5)\n\
                Caused by: java.net.ConnectException: Connection refused";
    assert_eq!(of("", "", java), Category::NetworkError);
}

#[test]
fn a_configured_rule_comes_before_the_built_in_ones_and_after_the_agents_word() {
    let rules = Rules::with(vec![RuleSpec {
        any_of: list(&["Connection refused"]),
        ..rule("mine")
    }])
    .unwrap();
    let classify = |given| {
        rules.classify(&Failure {
            given,
            error_type: "",
            text: "connection refused by the gate",
        })
    };
    let mine = Classified {
        category: Category::RateLimited,
        rule: "mine",
    };
    assert_eq!(classify(""), mine);
    assert_eq!(classify("handler_exception"), mine);
    assert_eq!(classify("timeout").category, Category::Timeout);
}

#[test]
fn a_configured_rule_may_translate_the_words_of_agents() {
    let rules = Rules::with(vec![RuleSpec {
        given: list(&["Busy", "timeout"]),
        none_of: list(&["lock"]),
        ..rule("busy")
    }])
    .unwrap();
    let classify = |given, text| {
        let error_type = "";
        rules
            .classify(&Failure {
                given,
                error_type,
                text,
            })
            .category
    };
    assert_eq!(classify("busy", ""), Category::RateLimited);
    assert_eq!(classify("timeout", ""), Category::RateLimited);
    assert_eq!(classify("timeout", "lock"), Category::Timeout);
}

#[test]
fn every_part_of_a_configured_rule_must_be_met() {
    let rules = Rules::with(vec![RuleSpec {
        error_type: list(&["|GateError|"]),
        all_of: list(&["gate", "closed"]),
        ..rule("gate")
    }])
    .unwrap();
    let classify = |error_type, text| {
        let given = "";
        rules
            .classify(&Failure {
                given,
                error_type,
                text,
            })
            .rule
    };
    assert_eq!(classify("GateError", "the gate is closed"), "gate");
    assert_ne!(classify("GateError", "the gate is open"), "gate");
    assert_ne!(classify("OtherError", "the gate is closed"), "gate");
    assert_eq!(classify("", "acme.GateError: the gate is closed"), "gate");
}

#[test]
fn rules_are_refused_with_each_field_at_fault() {
    let bad = RuleSpec {
        name: "a b".to_owned(),
        given: vec!["x".repeat(129)],
        any_of: list(&["", "|*|"]),
        all_of: vec!["x".to_owned(); 33],
        ..rule("")
    };
    let good = RuleSpec {
        any_of: list(&["x"]),
        ..rule("same")
    };
    let faults = Rules::with(vec![bad, good.clone(), good, rule("empty")]).unwrap_err();
    let fields: Vec<&str> = faults.as_slice().iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "rules[0].name",
            "rules[0].given[0]",
            "rules[0].all_of",
            "rules[0].any_of[0]",
            "rules[0].any_of[1]",
            "rules[2].name",
            "rules[3].any_of",
        ]
    );
    let many = (0..201).map(|index| RuleSpec {
        any_of: list(&["x"]),
        ..rule(&format!("r{index}"))
    });
    let faults = Rules::with(many.collect()).unwrap_err();
    assert_eq!(faults.to_string(), "rules: `201` must be at most 200");
}
