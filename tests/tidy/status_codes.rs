//! gRPC codes are named in `hive-protocol/src/status.rs`, nowhere else.

use crate::{
    code::{Strings, code_of, has_word},
    tree::{Problem, Tree, assert_none, is_test, lines, problem},
};

const HOME: &str = "crates/hive-protocol/src/status.rs";

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree
        .ending(".rs")
        .filter(|(path, _)| *path != HOME && !is_test(path))
    {
        let code = code_of(text, Strings::Blank);
        // An import may span lines: look at it as one.
        let imports = code
            .split(';')
            .filter(|part| part.trim_start().starts_with("use tonic::"));
        let is_imported = imports.into_iter().any(|import| has_word(import, "Code"));
        for (number, line) in lines(&code) {
            let is_path = has_word(line, "tonic::Code");
            if is_path || (is_imported && has_word(line, "Code")) {
                problems.push(problem(
                    path,
                    number,
                    format!("gRPC codes belong to `{HOME}`"),
                ));
            }
        }
    }
    problems
}

#[test]
fn codes_are_named_in_one_place() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_code_elsewhere_is_found() {
    let tree = Tree::of(&[
        (
            "crates/a/src/a.rs",
            "let c = tonic::Code::Ok;\n// tonic::Code\nExitCode::SUCCESS",
        ),
        (
            "crates/a/src/b.rs",
            "use tonic::{\n    Code, Status,\n};\nfn f(c: Code) {}",
        ),
        ("crates/a/src/c.rs", "use tonic::Status;\nenum Code { A }"),
        (HOME, "use tonic::Code;"),
    ]);
    let found: Vec<(String, usize)> = check(&tree)
        .into_iter()
        .map(|problem| (problem.path, problem.line))
        .collect();
    let at = |path: &str, line| (path.to_owned(), line);
    let wanted = [
        at("crates/a/src/a.rs", 1),
        at("crates/a/src/b.rs", 2),
        at("crates/a/src/b.rs", 4),
    ];
    assert_eq!(found, wanted);
}
