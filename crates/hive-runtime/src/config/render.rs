//! Shows a configuration: what holds now and who said so, and the reference file of a daemon.

use std::fmt::Write as _;

use super::key::{Rule, Spec};
use super::problems::Problems;
use super::value::Given;
use super::values::{Entry, Inputs, Values};
use super::{Settings, specs};

impl Values {
    /// The configuration as TOML, each key with its source; a key without a value is a comment.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for entry in self.entries() {
            if entry.spec.section() != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = entry.spec.section();
                push(&mut text, format_args!("{gap}[{section}]\n"));
            }
            let name = entry.spec.name();
            match shown(entry) {
                Some(value) => push(
                    &mut text,
                    format_args!("{name} = {value}  # {}\n", entry.source),
                ),
                None => push(&mut text, format_args!("# {name} is not set\n")),
            }
        }
        text
    }
}

/// A value as TOML writes it: numbers and switches bare, all else in quotes.
fn shown(entry: &Entry) -> Option<String> {
    let given = entry.given.as_ref()?;
    let text = given.shown();
    let bare = match (given, entry.spec.rule) {
        (Given::Toml(toml::Value::String(_)), _) => false,
        (Given::Toml(_), _) | (Given::Text(_), Rule::Flag | Rule::Count { .. }) => true,
        (
            Given::Text(_),
            Rule::Duration { .. }
            | Rule::Size { .. }
            | Rule::Text
            | Rule::Choice(_)
            | Rule::Address
            | Rule::Url(_)
            | Rule::Urls(_)
            | Rule::File,
        ) => false,
    };
    Some(if bare {
        text
    } else {
        toml::Value::from(text).to_string()
    })
}

/// The reference file of the daemon `name`: every key of `specs` with its default and its
/// documentation. A key without a default stands as a comment with an example.
#[must_use]
pub fn reference(name: &str, specs: &[Spec]) -> String {
    let mut text = format!(
        "# Configuration of {name}: every key with its default.\n\
         #\n\
         # A flag wins over the environment, the environment over this file, this file over the\n\
         # default. Durations are strings with a unit or integers, which are seconds.\n"
    );
    let mut section = "";
    for spec in specs {
        if spec.section() != section {
            section = spec.section();
            push(&mut text, format_args!("\n[{section}]\n"));
        } else {
            text.push('\n');
        }
        for line in wrap(spec.doc, 96) {
            push(&mut text, format_args!("# {line}\n"));
        }
        push(
            &mut text,
            format_args!("# Environment: {}\n", spec.variable()),
        );
        match spec.default.toml() {
            Some(value) => push(&mut text, format_args!("{} = {value}\n", spec.name())),
            None => push(
                &mut text,
                format_args!("# {} = {}\n", spec.name(), spec.example),
            ),
        }
    }
    text
}

/// Checks that `text` is the reference file of the daemon `name` with the settings `S`: equal to
/// what [`reference()`] gives, and setting every key that it sets to the key's default.
///
/// # Errors
/// What differs first.
pub fn check_reference<S: Settings>(
    name: &str,
    listen: &'static str,
    text: &str,
) -> Result<(), String> {
    let specs = specs::<S>(listen);
    let mut lines = text.lines();
    for (at, expected) in (1..).zip(reference(name, &specs).lines()) {
        let line = lines.next().unwrap_or_default();
        if line != expected {
            return Err(format!("line {at} is `{line}` and should be `{expected}`"));
        }
    }
    if let Some(line) = lines.next() {
        return Err(format!("`{line}` stands behind the end"));
    }
    let file = Some((name.to_owned(), text.to_owned()));
    let mut problems = Problems::default();
    let read = Values::resolve(
        &specs,
        &Inputs {
            file,
            ..Inputs::default()
        },
        &mut problems,
    );
    let defaults = Values::resolve(&specs, &Inputs::default(), &mut problems);
    if !problems.is_empty() {
        return Err(problems.to_string());
    }
    for (read, default) in read.entries().iter().zip(defaults.entries()) {
        if read.value != default.value {
            return Err(format!(
                "`{}` does not stand at its default",
                read.spec.path
            ));
        }
    }
    Ok(())
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part)
        .expect("writing to a string does not fail");
}

/// Breaks `text` between words into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            },
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
