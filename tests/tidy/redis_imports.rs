//! `redis` is imported by `hive-store` and `hive-testkit`, nowhere else.

use crate::{
    code::{Strings, code_of, has_word},
    tree::{Problem, Tree, assert_none, is_test, lines, problem},
};

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let may =
            path.starts_with("crates/hive-store/") || path.starts_with("crates/hive-testkit/");
        if may || is_test(path) {
            continue;
        }
        for (number, line) in lines(&code_of(text, Strings::Blank)) {
            // A module of ours may be called `redis`; a path through another one is no import.
            let is_path = has_word(line, "redis::") && !line.contains("::redis::");
            if is_path || line.contains("use ::redis") || line.trim() == "use redis;" {
                problems.push(problem(path, number, "`redis` belongs to hive-store"));
            }
        }
    }
    problems
}

#[test]
fn only_hive_store_imports_redis() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn an_import_elsewhere_is_found() {
    let source =
        "use redis::Client;\n// redis::x\nlet a = \"redis::\";\nuse hive_testkit::redis::R;";
    let tree = Tree::of(&[
        ("crates/hive-gateway/src/a.rs", source),
        ("crates/hive-store/src/a.rs", source),
    ]);
    let found = check(&tree);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].path.as_str(), found[0].line),
        ("crates/hive-gateway/src/a.rs", 1)
    );
}
