//! Words that must not reach the main branch: ignored tests, debug prints, notes to oneself.

use crate::{
    code::{Strings, code_of, has_word},
    tree::{Problem, Tree, assert_none, lines, problem},
};

/// In code, outside of comments and strings.
const IN_CODE: &[&str] = &["#[ignore", "dbg!", "todo!", "unimplemented!"];
/// Anywhere in a source file.
const ANYWHERE: &[&str] = &["FIXME", "TODO", "XXX"];
/// These rules name what they forbid.
const SELF: &str = "tests/tidy/";

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree
        .ending(".rs")
        .filter(|(path, _)| !path.starts_with(SELF))
    {
        for (number, line) in lines(&code_of(text, Strings::Blank)) {
            for word in IN_CODE.iter().filter(|word| has_word(line, word)) {
                problems.push(problem(path, number, format!("`{word}` is forbidden")));
            }
        }
    }
    for (path, file) in tree.files() {
        let is_source = [".rs", ".lua", ".proto", ".py", ".toml", ".sh"]
            .iter()
            .any(|end| path.ends_with(end));
        if !is_source || path.starts_with(SELF) {
            continue;
        }
        for (number, line) in lines(&file.text) {
            for word in ANYWHERE.iter().filter(|word| has_word(line, word)) {
                problems.push(problem(
                    path,
                    number,
                    format!("`{word}`: open an issue instead"),
                ));
            }
        }
    }
    problems
}

#[test]
fn no_forbidden_word_is_left() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn forbidden_words_are_found() {
    let tree = Tree::of(&[
        (
            "a.rs",
            "#[ignore = \"slow\"]\ndbg!(1);\n// FIXME\nlet t = \"dbg!\"; // todo!",
        ),
        ("b.lua", "-- TODO later"),
        ("c.md", "TODO"),
    ]);
    let found: Vec<(String, usize)> = check(&tree)
        .into_iter()
        .map(|problem| (problem.path, problem.line))
        .collect();
    let at = |path: &str, line| (path.to_owned(), line);
    assert_eq!(
        found,
        [at("a.rs", 1), at("a.rs", 2), at("a.rs", 3), at("b.lua", 1)]
    );
}
