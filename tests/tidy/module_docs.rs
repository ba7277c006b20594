//! Each Rust file opens with what it decides or does.

use crate::tree::{Problem, Tree, assert_none, problem};

fn check(tree: &Tree) -> Vec<Problem> {
    let bare = tree.ending(".rs").filter(|(_, text)| {
        let first = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//! "));
        first.is_none_or(|words| words.trim().is_empty())
    });
    bare.map(|(path, _)| problem(path, 1, "a file opens with `//! ` and its purpose"))
        .collect()
}

#[test]
fn every_file_opens_with_its_purpose() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_file_without_a_purpose_is_found() {
    let tree = Tree::of(&[
        ("a.rs", "//! Does a.\n"),
        ("b.rs", "use a;\n"),
        ("c.rs", "//! \n"),
    ]);
    assert_eq!(check(&tree).len(), 2);
}
