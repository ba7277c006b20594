//! A member's `clippy.toml` replaces the root's, so it must repeat all of it.

use crate::tree::{Problem, Tree, assert_none, problem};

fn check(tree: &Tree) -> Vec<Problem> {
    let parse = |text: &str| text.parse::<toml::Table>().expect("clippy.toml is TOML");
    let root = parse(
        tree.text("clippy.toml")
            .expect("the root has a clippy.toml"),
    );
    let mut problems = Vec::new();
    for (path, text) in tree.ending("/clippy.toml") {
        let member = parse(text);
        for (key, wanted) in &root {
            let is_kept = match (wanted, member.get(key)) {
                (toml::Value::Array(wanted), Some(toml::Value::Array(has))) => {
                    wanted.iter().all(|ban| has.contains(ban))
                },
                (wanted, has) => has == Some(wanted),
            };
            if !is_kept {
                problems.push(problem(
                    path,
                    0,
                    format!("`{key}` lacks what the root says"),
                ));
            }
        }
    }
    problems
}

#[test]
fn members_keep_the_bans_of_the_root() {
    assert_none(&check(&Tree::repository()));
}

#[test]
fn a_ban_that_a_member_lacks_is_found() {
    let root = "max = 1\ndisallowed-methods = [{ path = \"a\" }, { path = \"b\" }]";
    let same =
        "max = 1\ndisallowed-methods = [{ path = \"b\" }, { path = \"c\" }, { path = \"a\" }]";
    let less = "max = 2\ndisallowed-methods = [{ path = \"a\" }]";
    let member = |text| {
        let tree = Tree::of(&[("clippy.toml", root), ("crates/x/clippy.toml", text)]);
        check(&tree).len()
    };
    assert_eq!(member(same), 0);
    assert_eq!(member(less), 2);
    assert_eq!(member(""), 2);
}
