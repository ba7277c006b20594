//! The header of each script, held against its body and its typed call.

use std::{collections::BTreeSet, fs, path::Path};

use hive_store::scripts::{ALL, Script};

const SECTIONS: [&str; 6] = [
    "KEYS",
    "ARGV",
    "RETURNS",
    "IDEMPOTENT",
    "COST",
    "INVARIANTS",
];
/// What takes new work is refused by a full Redis; all else goes on, so that it drains.
const REFUSED_WHEN_FULL: [&str; 5] = [
    "definition_create",
    "group_create",
    "publish",
    "run_create",
    "task_dispatch",
];

fn header(script: &Script) -> &str {
    let (_, rest) = script.source.split_once("--[[\n").expect("a header begins");
    rest.split_once("\n]]").expect("a header ends").0
}

fn body(script: &Script) -> &str {
    script.source.split_once("\n]]\n").expect("a header ends").1
}

fn section<'a>(script: &'a Script, name: &str) -> Vec<&'a str> {
    let is_head = |line: &str| SECTIONS.iter().any(|head| line.starts_with(head));
    let mut lines = header(script)
        .lines()
        .skip_while(|line| !line.starts_with(name));
    let first = lines
        .next()
        .unwrap_or_else(|| panic!("{}: no {name}", script.name));
    std::iter::once(first)
        .chain(lines.take_while(|line| !is_head(line)))
        .collect()
}

/// Numbers of the fixed entries, and the one from which on they repeat.
fn numbers(script: &Script, name: &str) -> (Vec<usize>, Option<usize>) {
    let (mut fixed, mut repeated) = (Vec::new(), None);
    for line in section(script, name).iter().skip(1) {
        let Some(text) = line
            .strip_prefix("  ")
            .filter(|text| !text.starts_with(' '))
        else {
            continue;
        };
        let word = text.split(' ').next().unwrap_or_default();
        if let Some(number) = word.strip_suffix("..") {
            repeated = Some(number.parse().expect("a number"));
        } else {
            fixed.push(word.parse().expect("a number"));
        }
    }
    (fixed, repeated)
}

/// Upper-case words that begin the lines of RETURNS.
fn statuses(script: &Script) -> BTreeSet<String> {
    section(script, "RETURNS")
        .iter()
        .skip(1)
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|text| !text.starts_with(' '))
        })
        .map(|text| text.split(' ').next().unwrap_or_default().to_owned())
        .filter(|word| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()))
        .collect()
}

fn quoted(text: &str, open: &str, close: char) -> BTreeSet<String> {
    text.split(open)
        .skip(1)
        .filter_map(|rest| rest.split(close).next())
        .filter(|word| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_header_says_why_and_has_its_sections_in_order() {
    for script in ALL {
        let head = header(script);
        assert!(
            head.starts_with(&format!("{}: ", script.name)),
            "{}",
            script.name
        );
        assert!(head.contains("\n\nWhy one script: "), "{}", script.name);
        let at: Vec<usize> = SECTIONS
            .iter()
            .map(|name| {
                head.find(&format!("\n{name}"))
                    .unwrap_or_else(|| panic!("{}: no {name}", script.name))
            })
            .collect();
        assert!(at.is_sorted(), "{}: sections out of order", script.name);
    }
}

#[test]
fn only_what_takes_new_work_is_refused_by_a_full_redis() {
    let refused: Vec<&str> = ALL
        .iter()
        .filter(|script| script.source.starts_with("#!lua\n"))
        .map(|script| script.name)
        .collect();
    assert_eq!(refused, REFUSED_WHEN_FULL);
    for script in ALL {
        let first = script.source.lines().next().expect("a line");
        assert!(
            ["#!lua", "#!lua flags=allow-oom"].contains(&first),
            "{}",
            script.name
        );
    }
}

#[test]
fn fixed_keys_and_arguments_are_numbered_without_a_gap_and_all_used() {
    for script in ALL {
        for name in ["KEYS", "ARGV"] {
            let (fixed, repeated) = numbers(script, name);
            let expected: Vec<usize> = (1..=fixed.len()).collect();
            assert_eq!(fixed, expected, "{}: {name}", script.name);
            if let Some(from) = repeated {
                assert_eq!(from, fixed.len() + 1, "{}: {name} that repeat", script.name);
            }
            for number in fixed {
                let used = format!("{name}[{number}]");
                assert!(
                    body(script).contains(&used),
                    "{}: {used} is not used",
                    script.name
                );
            }
        }
    }
}

#[test]
fn every_status_of_a_body_is_documented_and_the_other_way_round() {
    for script in ALL {
        let mut written = quoted(body(script), "return { '", '\'');
        // Words that a variable carries.
        written.extend(quoted(body(script), "status = '", '\''));
        written.extend(quoted(body(script), "local status, attach = '", '\''));
        written.extend(quoted(body(script), "status = held, 0, '", '\''));
        written.extend(quoted(body(script), "+ 1, '", '\''));
        assert_eq!(written, statuses(script), "{}", script.name);
    }
}

#[test]
fn every_status_that_a_typed_call_reads_is_in_a_header() {
    let documented: BTreeSet<String> = ALL.iter().flat_map(|script| statuses(script)).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in [
        "control",
        "coordination",
        "fetch",
        "members",
        "publish",
        "settle",
        "streams",
        "sweep",
        "retention",
        "tasks",
    ] {
        let text = fs::read_to_string(source.join(file).with_extension("rs")).expect("a source");
        let words = text
            .lines()
            .filter(|line| line.contains("=>") || line.contains("== \""));
        for line in words {
            for word in quoted(line, "\"", '"') {
                assert!(documented.contains(&word), "{file}.rs reads `{word}`");
            }
        }
    }
}

#[test]
fn every_invariant_that_a_header_names_is_one_of_the_crate() {
    let crate_docs = include_str!("../src/lib.rs");
    for script in ALL {
        let text = section(script, "INVARIANTS").join(" ");
        let names: Vec<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| {
                let bytes = word.as_bytes();
                bytes.len() == 2 && bytes[0].is_ascii_uppercase() && bytes[1].is_ascii_digit()
            })
            .collect();
        assert!(!names.is_empty(), "{}: none named", script.name);
        for name in names {
            assert!(
                crate_docs.contains(&format!("**{name}**")),
                "{}: {name}",
                script.name
            );
        }
    }
}

#[test]
fn every_file_of_the_folder_is_a_script() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scripts");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "lua"))
        .map(|path| path.file_stem().expect("a name").display().to_string())
        .collect();
    let scripts: BTreeSet<String> = ALL.iter().map(|script| script.name.to_owned()).collect();
    assert_eq!(files, scripts);
}
