//! Nothing speaks of the machine that it was written on, or of the mirror that it was fetched from.

use crate::tree::{Problem, Tree, assert_none, lines, problem};

/// Written in two parts, so that this file passes its own rule.
const WORDS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("--index", "-url"),
    concat!("--extra-index", "-url"),
    concat!("replace", "-with"),
    concat!("artif", "actory"),
    concat!("GOP", "ROXY"),
];

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, file) in tree.files() {
        for (number, line) in lines(&file.text) {
            for word in WORDS.iter().filter(|word| line.contains(**word)) {
                problems.push(problem(path, number, format!("`{word}` is of a workplace")));
            }
        }
    }
    for (path, text) in tree.ending("Cargo.lock") {
        for (number, line) in lines(text) {
            let is_elsewhere = line.starts_with("source = ")
                && line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
            if is_elsewhere {
                problems.push(problem(path, number, "a dependency from another registry"));
            }
        }
    }
    problems
}

#[test]
fn no_workplace_is_named() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_workplace_is_found() {
    let tree = Tree::of(&[
        ("a.md", concat!("see /wo", "rk/a")),
        ("b.sh", concat!("pip install --index", "-url x")),
        ("c.rs", "let work = 1; // https://example.org/networking"),
        (
            "Cargo.lock",
            "source = \"registry+https://example.org/index\"",
        ),
    ]);
    let found: Vec<String> = check(&tree)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(found, ["a.md", "b.sh", "Cargo.lock"]);
}
