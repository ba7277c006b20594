//! Metrics are named in the tables of `metrics.rs`, nowhere else.

use crate::{
    code::{Strings, code_of},
    tree::{Problem, Tree, assert_none, is_test, lines, problem},
};

/// Crate names look like metric names: they are filters and targets of logs.
const CRATES: &[&str] = &[
    "hive_domain",
    "hive_protocol",
    "hive_store",
    "hive_runtime",
    "hive_client",
    "hive_gateway",
    "hive_coordinator",
    "hive_router",
    "hive_dlq",
    "hive_cli",
    "hive_testkit",
];

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let is_table = path.ends_with("/metrics.rs") || path.contains("/metrics/");
        if is_table || is_test(path) {
            continue;
        }
        for (number, line) in lines(&code_of(text, Strings::Keep)) {
            // The odd parts between quotes are the literals of the line.
            for literal in line.split('"').skip(1).step_by(2) {
                let is_name = literal.starts_with("hive_")
                    && literal
                        .bytes()
                        .all(|b| b == b'_' || b.is_ascii_alphanumeric());
                if is_name && !CRATES.contains(&literal) {
                    let rule = format!("metric `{literal}` belongs into the table of metrics.rs");
                    problems.push(problem(path, number, rule));
                }
            }
        }
    }
    problems
}

#[test]
fn metrics_are_named_in_their_tables() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_metric_named_elsewhere_is_found() {
    let source =
        "counter!(\"hive_messages_acked_total\");\n// \"hive_x\"\nlet t = \"hive_gateway\";";
    let tree = Tree::of(&[
        ("crates/a/src/a.rs", source),
        ("crates/a/src/metrics.rs", source),
        ("tests/e2e/a.rs", source),
    ]);
    let found = check(&tree);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].path.as_str(), found[0].line),
        ("crates/a/src/a.rs", 1)
    );
}
