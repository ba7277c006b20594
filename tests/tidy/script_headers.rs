//! Each Lua script is flagged, short, and headed by its contract.

use crate::tree::{Problem, Tree, assert_none, lines, problem};

const SCRIPTS: &str = "crates/hive-store/src/scripts/";
/// The longest, `publish`, is one step that must not be cut in two.
const LINES_MAX: usize = 340;
/// What a script may say about itself: whether a full Redis runs it.
const FLAGS: &[&str] = &["#!lua", "#!lua flags=allow-oom", "#!lua flags=no-writes"];
/// Sections behind the purpose, in this order.
const SECTIONS: &[&str] = &[
    "Why one script",
    "KEYS",
    "ARGV",
    "RETURNS",
    "IDEMPOTENT",
    "COST",
    "INVARIANTS",
];

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree
        .ending(".lua")
        .filter(|(path, _)| path.starts_with(SCRIPTS))
    {
        let count = text.lines().count();
        if count > LINES_MAX {
            problems.push(problem(
                path,
                count,
                format!("{count} lines, at most {LINES_MAX}"),
            ));
        }
        if !FLAGS.contains(&text.lines().next().unwrap_or_default()) {
            problems.push(problem(
                path,
                1,
                format!("the first line must be one of {FLAGS:?}"),
            ));
        }
        if let Err((line, rule)) = check_header(path, text) {
            problems.push(problem(path, line, rule));
        }
    }
    problems
}

fn check_header(path: &str, text: &str) -> Result<(), (usize, String)> {
    let name = path.trim_start_matches(SCRIPTS).trim_end_matches(".lua");
    if text.lines().nth(1) != Some("--[[") {
        return Err((
            2,
            "the second line must open the header with `--[[`".to_owned(),
        ));
    }
    let header: Vec<(usize, &str)> = lines(text)
        .skip(2)
        .take_while(|(_, line)| *line != "]]")
        .collect();
    if header.len() + 2 == text.lines().count() {
        return Err((2, "the header must end with `]]`".to_owned()));
    }
    let purpose = header.first().map_or("", |(_, line)| *line);
    let is_purpose = purpose
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(": "))
        .is_some_and(|words| words.ends_with('.'));
    if !is_purpose {
        return Err((
            3,
            format!("the purpose must be one line, `{name}: what it does.`"),
        ));
    }
    let is_section = |line: &str, section: &str| {
        line.strip_prefix(section)
            .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    let found: Vec<(usize, &str)> = header
        .iter()
        .filter_map(|(number, line)| {
            let section = SECTIONS.iter().find(|section| is_section(line, section))?;
            Some((*number, *section))
        })
        .collect();
    for (index, wanted) in SECTIONS.iter().enumerate() {
        match found.get(index) {
            Some((_, section)) if section == wanted => {},
            Some((line, section)) => {
                return Err((
                    *line,
                    format!("section `{section}` where `{wanted}` belongs"),
                ));
            },
            None => return Err((3, format!("section `{wanted}` is missing"))),
        }
    }
    match found.get(SECTIONS.len()) {
        Some((line, section)) => Err((*line, format!("section `{section}` stands twice"))),
        None => Ok(()),
    }
}

#[test]
fn every_script_is_headed_by_its_contract() {
    assert_none(&check(&Tree::repository()));
}

#[cfg(test)]
const GOOD: &str = "#!lua flags=allow-oom
--[[
entry_park: move one entry.

Why one script: or it is lost.

KEYS  (one tag)
  1 stream
ARGV
  1 group
RETURNS  { status }
IDEMPOTENT  yes
COST        O(1)
INVARIANTS  D1
]]
return { 'OK' }
";

#[cfg(test)]
fn found(text: &str) -> Vec<String> {
    let path = format!("{SCRIPTS}entry_park.lua");
    check(&Tree::of(&[(&path, text)]))
        .into_iter()
        .map(|problem| problem.rule)
        .collect()
}

#[test]
fn a_good_script_passes() {
    assert_eq!(found(GOOD), Vec::<String>::new());
}

#[test]
fn a_script_that_breaks_its_contract_is_found() {
    let cases = [
        (
            GOOD.replace("flags=allow-oom", "flags=allow-stale"),
            "the first line must be one of",
        ),
        (GOOD.replace("--[[", "--"), "the second line must open"),
        (GOOD.replace("\n]]", ""), "the header must end"),
        (
            GOOD.replace("entry_park: ", "park: "),
            "the purpose must be one line",
        ),
        (
            GOOD.replace("COST        O(1)\n", ""),
            "section `INVARIANTS` where `COST` belongs",
        ),
        (
            GOOD.replace("INVARIANTS  D1\n", ""),
            "section `INVARIANTS` is missing",
        ),
        (
            GOOD.replace("COST ", "COST x\nCOST "),
            "section `COST` where `INVARIANTS` belongs",
        ),
        (
            GOOD.to_owned() + &"\n".repeat(340),
            "356 lines, at most 340",
        ),
    ];
    for (text, wanted) in cases {
        let rules = found(&text);
        assert!(
            rules.len() == 1 && rules[0].starts_with(wanted),
            "{wanted}: {rules:?}"
        );
    }
}
