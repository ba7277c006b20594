//! Only known kinds of files, none of them large.

use crate::tree::{File, Problem, Tree, assert_none, problem};

const BYTES_MAX: usize = 256 * 1024;
const EXTENSIONS: &[&str] = &[
    "conf", "css", "html", "js", "json", "lock", "lua", "md", "proto", "py", "pyi", "rs", "sh",
    "svg", "toml", "tpl", "txt", "yaml", "yml",
];
const NAMES: &[&str] = &[
    ".dockerignore",
    ".gitattributes",
    ".gitignore",
    ".gitkeep",
    ".helmignore",
    "Dockerfile",
    "LICENSE",
    "NOTICE",
];
/// Folders of commands, which have no extension.
const COMMANDS: &[&str] = &["scripts/", ".ci/"];

fn check(tree: &Tree) -> Vec<Problem> {
    tree.files()
        .filter_map(|(path, file)| Some(problem(path, 0, fault(path, file)?)))
        .collect()
}

fn fault(path: &str, file: &File) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_command = COMMANDS.iter().any(|folder| path.starts_with(folder)) && !name.contains('.');
    let is_known = name
        .rsplit_once('.')
        .is_some_and(|(_, end)| EXTENSIONS.contains(&end));
    if !is_known && !NAMES.contains(&name) && !is_command {
        return Some("this kind of file is not on the list".to_owned());
    }
    (file.bytes > BYTES_MAX).then(|| format!("{} bytes, at most {BYTES_MAX}", file.bytes))
}

#[test]
fn files_are_of_known_kinds_and_small() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn an_unknown_or_large_file_is_found() {
    let large = " ".repeat(BYTES_MAX + 1);
    let tree = Tree::of(&[
        ("a.rs", ""),
        ("b.exe", ""),
        ("c.rs", &large),
        ("d", ""),
        ("scripts/e", ""),
        (".gitignore", ""),
    ]);
    let found: Vec<String> = check(&tree)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(found, ["b.exe", "c.rs", "d"]);
}
