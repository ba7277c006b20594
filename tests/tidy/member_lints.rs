//! Each member takes the lints and the versions of the workspace.

use crate::tree::{Problem, Tree, assert_none, problem};

const TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending("/Cargo.toml") {
        let is_member = path.starts_with("crates/") || path == "tests/Cargo.toml";
        if !is_member {
            continue;
        }
        let manifest: toml::Table = text.parse().expect("a manifest is TOML");
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            problems.push(problem(path, 0, "`[lints] workspace = true` is missing"));
        }
        for table in TABLES {
            let dependencies = manifest.get(*table).and_then(toml::Value::as_table);
            for (name, value) in dependencies.into_iter().flatten() {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    let rule = format!("version of `{name}` belongs into the root manifest");
                    problems.push(problem(path, 0, rule));
                }
            }
        }
    }
    problems
}

#[test]
fn members_take_lints_and_versions_of_the_workspace() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_member_that_goes_its_own_way_is_found() {
    let good = "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\n\
                b = { workspace = true, features = [\"c\"] }";
    let bad = "[dev-dependencies]\na = \"1\"";
    let tree = Tree::of(&[("crates/a/Cargo.toml", good), ("crates/b/Cargo.toml", bad)]);
    let found: Vec<String> = check(&tree)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(found, ["crates/b/Cargo.toml", "crates/b/Cargo.toml"]);
}
