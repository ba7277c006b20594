//! The files of the repository, in memory.

use std::{collections::BTreeMap, fmt, fs, path::Path, process::Command};

/// Files by their path from the root. Bytes that are no UTF-8 are replaced: rules read text.
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

/// One file.
pub(crate) struct File {
    pub(crate) bytes: usize,
    pub(crate) text: String,
}

/// What a rule found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: String,
    /// From 1; 0 when the whole file is meant.
    pub(crate) line: usize,
    pub(crate) rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

impl Tree {
    /// The files that git knows or would take.
    pub(crate) fn repository() -> Self {
        let root = root();
        let listed = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .expect("git lists the files of the repository");
        assert!(
            listed.status.success(),
            "git ls-files ended with {}",
            listed.status
        );
        let paths = String::from_utf8(listed.stdout).expect("paths are valid UTF-8");
        let mut files = BTreeMap::new();
        for path in paths.split_terminator('\0') {
            // A file that is deleted and not yet committed is listed and absent.
            if let Ok(content) = fs::read(root.join(path)) {
                let text = String::from_utf8_lossy(&content).into_owned();
                files.insert(
                    path.to_owned(),
                    File {
                        bytes: content.len(),
                        text,
                    },
                );
            }
        }
        assert!(
            files.contains_key("Cargo.toml"),
            "the repository has a root manifest"
        );
        Self { files }
    }

    /// A tree for a rule's test of itself.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |text: &str| File {
            bytes: text.len(),
            text: text.to_owned(),
        };
        Self {
            files: files
                .iter()
                .map(|&(path, text)| (path.to_owned(), file(text)))
                .collect(),
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|file| file.text.as_str())
    }

    /// Path and text of each file whose name ends so, for instance `.rs`.
    pub(crate) fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files().filter(move |(path, _)| path.ends_with(end));
        files.map(|(path, file)| (path, file.text.as_str()))
    }
}

/// Root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
}

/// A problem in one line.
pub(crate) fn problem(path: &str, line: usize, rule: impl Into<String>) -> Problem {
    Problem {
        path: path.to_owned(),
        line,
        rule: rule.into(),
    }
}

/// Lines with their numbers from 1.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Whether a file is test code: exempt from the rules about what production code may name.
pub(crate) fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Ends a test whose rule found anything.
pub(crate) fn assert_none(problems: &[Problem]) {
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        text.join("\n")
    );
}
