//! Each silenced lint says why.

use crate::{
    code::{Strings, code_of},
    tree::{Problem, Tree, assert_none, lines, problem},
};

const OPENINGS: &[&str] = &["#[allow(", "#![allow(", "#[expect(", "#![expect("];

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let code = code_of(text, Strings::Blank);
        let numbered: Vec<(usize, &str)> = lines(&code).collect();
        for (index, (number, line)) in numbered.iter().enumerate() {
            if !OPENINGS.iter().any(|opening| line.contains(opening)) {
                continue;
            }
            // The attribute goes on to the line that closes it.
            let attribute = numbered[index..].iter().map(|(_, line)| *line);
            let end = attribute
                .clone()
                .position(|line| line.contains(")]"))
                .unwrap_or(0);
            let has_reason = attribute
                .take(end + 1)
                .any(|line| line.contains("reason ="));
            if !has_reason {
                problems.push(problem(path, *number, "a silenced lint needs a `reason`"));
            }
        }
    }
    problems
}

#[test]
fn every_silenced_lint_has_a_reason() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_lint_that_is_silenced_without_a_reason_is_found() {
    let tree = Tree::of(&[
        ("a.rs", "#[allow(dead_code)]\nfn a() {}"),
        (
            "b.rs",
            "#[expect(\n    clippy::exit,\n    reason = \"a child\"\n)]\nfn a() {}",
        ),
        (
            "c.rs",
            "#![expect(\n    clippy::exit,\n)]\n// reason = none\nfn a() {}",
        ),
    ]);
    let found: Vec<String> = check(&tree)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(found, ["a.rs", "c.rs"]);
}
