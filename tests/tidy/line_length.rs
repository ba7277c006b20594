//! Lines of source have at most 100 columns; a line with a link may be longer.

use crate::tree::{Problem, Tree, assert_none, lines, problem};

const COLUMNS_MAX: usize = 100;

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, file) in tree.files() {
        let is_source = [".rs", ".lua", ".sh"].iter().any(|end| path.ends_with(end))
            || path.starts_with("scripts/")
            || path.starts_with(".ci/");
        if !is_source {
            continue;
        }
        for (number, line) in lines(&file.text) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !line.contains("://") {
                problems.push(problem(
                    path,
                    number,
                    format!("{columns} columns, at most 100"),
                ));
            }
        }
    }
    problems
}

#[test]
fn lines_fit() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_long_line_is_found() {
    let long = "x".repeat(101);
    let link = format!("// https://example.org/{long}");
    let tree = Tree::of(&[
        ("a.rs", &long),
        ("b.rs", &link),
        ("c.md", &long),
        ("d.lua", &long[1..]),
    ]);
    let found = check(&tree);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "a.rs");
}
