//! `hive-domain` decides: no I/O, no clock, no async, few dependencies.

use crate::{
    code::{Strings, code_of, has_word},
    tree::{Problem, Tree, assert_none, lines, problem},
};

const MANIFEST: &str = "crates/hive-domain/Cargo.toml";
/// Dependencies that neither wait nor look at the world.
const DEPENDENCIES: &[&str] = &["thiserror", "serde", "cel", "regex", "petgraph"];
/// Words that have no place in a pure crate.
const WORDS: &[&str] = &[
    "async",
    "await",
    "println!",
    "eprintln!",
    "print!",
    "tracing",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
];

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(text) = tree.text(MANIFEST) {
        let manifest: toml::Table = text.parse().expect("the manifest is TOML");
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        for name in dependencies.into_iter().flat_map(|table| table.keys()) {
            if !DEPENDENCIES.contains(&name.as_str()) {
                problems.push(problem(
                    MANIFEST,
                    0,
                    format!("`{name}` is not for a pure crate"),
                ));
            }
        }
    }
    for (path, text) in tree.ending(".rs") {
        if !path.starts_with("crates/hive-domain/src/") {
            continue;
        }
        for (number, line) in lines(&code_of(text, Strings::Blank)) {
            for word in WORDS.iter().filter(|word| has_word(line, word)) {
                problems.push(problem(path, number, format!("`{word}` is not pure")));
            }
        }
    }
    problems
}

#[test]
fn the_domain_is_pure() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn what_is_not_pure_is_found() {
    let tree = Tree::of(&[
        (
            MANIFEST,
            "[dependencies]\nserde.workspace = true\ntokio = \"1\"\n",
        ),
        (
            "crates/hive-domain/src/a.rs",
            "//! async in a comment\nasync fn a() {}\nlet t = Instant::now();\nlet instant = 1;",
        ),
        ("crates/hive-store/src/a.rs", "async fn a() {}"),
    ]);
    let found: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "crates/hive-domain/Cargo.toml:0: `tokio` is not for a pure crate",
            "crates/hive-domain/src/a.rs:2: `async` is not pure",
            "crates/hive-domain/src/a.rs:3: `Instant` is not pure",
        ]
    );
}
