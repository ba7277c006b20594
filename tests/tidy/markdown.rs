//! A page has one title.

use crate::tree::{Problem, Tree, assert_none, problem};

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".md") {
        let mut is_fenced = false;
        let mut titles = 0;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                is_fenced = !is_fenced;
            }
            titles += usize::from(!is_fenced && line.starts_with("# "));
        }
        if titles != 1 {
            problems.push(problem(
                path,
                1,
                format!("{titles} titles (`# `), must be one"),
            ));
        }
    }
    problems
}

#[test]
fn every_page_has_one_title() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_page_without_a_title_or_with_two_is_found() {
    let tree = Tree::of(&[
        ("a.md", "# A\n\n```sh\n# a comment\n```\n## B\n"),
        ("b.md", "text\n"),
        ("c.md", "# A\n# B\n"),
    ]);
    let found: Vec<String> = check(&tree)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(found, ["b.md", "c.md"]);
}
