//! How many texts of failures are put into the right category.
//!
//! A corpus holds one JSON object a line: `text`, `error_type`, `given` where something gave one,
//! and the `category` that a person would choose. That of the repository was written along with the
//! rules; what the rules are worth shows on texts that nobody saw who wrote them.

use std::{collections::BTreeMap, path::Path};

use hive_domain::dead_letter::{Category, Failure, Rules};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Line {
    text: String,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    given: String,
    category: Category,
}

/// Reads a corpus: lines of JSON, or an array with one object a line.
fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("the corpus is there");
    text.lines()
        .map(|line| line.trim().trim_end_matches(','))
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("a line is an object of a corpus"))
        .collect()
}

/// Classifies all lines of a corpus and fails where fewer than `least` percent are right.
#[expect(
    clippy::print_stdout,
    reason = "the table is what one runs this test for"
)]
fn check(path: &str, lines_min: usize, least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path);
    let (lines, rules) = (read(&path), Rules::built_in());
    let mut table: BTreeMap<(Category, Category), usize> = BTreeMap::new();
    let mut right = 0_usize;
    for line in &lines {
        let found = rules.classify(&Failure {
            given: &line.given,
            error_type: &line.error_type,
            text: &line.text,
        });
        *table.entry((line.category, found.category)).or_default() += 1;
        right += usize::from(found.category == line.category);
        if found.category != line.category {
            let (wanted, text) = (line.category, &line.text);
            println!(
                "{wanted} <> {} by `{}`: {}: {text:?}",
                found.category, found.rule, line.error_type
            );
        }
    }
    for ((wanted, found), count) in &table {
        println!("{:20} {:20} {count:4}", wanted.as_str(), found.as_str());
    }
    println!("{right} of {} right", lines.len());
    assert!(lines.len() >= lines_min, "{} lines", lines.len());
    assert!(
        right * 100 >= lines.len() * least,
        "{right} of {} right",
        lines.len()
    );
}

#[test]
fn the_corpus_of_dead_letters_is_put_into_its_categories() {
    check("failures.json", 300, 95);
}

/// Written by somebody who had not seen the rules. No rule is made for a text of it: where one is
/// wrong, it stays wrong until a text of the corpus asks for a rule that puts it right.
#[test]
fn texts_that_nobody_saw_who_wrote_the_rules_are_put_into_their_categories() {
    check("held_out.json", 100, 85);
}
