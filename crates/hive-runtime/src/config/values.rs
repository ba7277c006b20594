//! Lays flag, environment, file and default over each other, key by key, and keeps where each
//! value came from.
//!
//! A key that nobody declared is refused when it stands in the file, because there it can only be a
//! mistake. An undeclared `HIVE_` variable is a warning: other programs of the project read
//! variables with the same prefix.

use std::collections::BTreeMap;
use std::fmt;

use super::key::{FromValue, Key, Spec, variable_of};
use super::problems::{Problem, Problems};
use super::value::{Given, Value, masked, parse};

/// Variables that start like one of our sections and belong to the command line client.
const FOREIGN: [&str; 1] = ["HIVE_REDIS_SERVER"];

/// Where settings are read from. Collected once, so that everything behind it is a function.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Name and text of the configuration file.
    pub file: Option<(String, String)>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Paths of keys that have a flag, with what the flag said.
    pub flags: Vec<(&'static str, String)>,
}

/// Who gave a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody did.
    Default,
    /// The configuration file.
    File(String),
    /// The environment variable of this name.
    Env(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Every declared key with its value and who gave it.
#[derive(Debug, Clone, Default)]
pub struct Values {
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

/// One key with what was given for it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) spec: Spec,
    pub(super) given: Option<Given>,
    pub(super) source: Source,
    /// The value under the rule; the default's where what was given broke the rule.
    pub(super) value: Option<Value>,
}

impl Values {
    /// Gives each of `specs` its value; what breaks a rule goes to `problems`, all of it.
    pub fn resolve(specs: &[Spec], inputs: &Inputs, problems: &mut Problems) -> Self {
        let mut file = read_file(inputs, problems);
        let mut entries = Vec::with_capacity(specs.len());
        for spec in specs {
            entries.push(resolve_one(spec, inputs, &mut file, problems));
        }
        for path in file.into_keys() {
            problems.push(unknown_key(&path, specs));
        }
        Self {
            entries,
            warnings: warnings(specs, inputs),
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get<T: FromValue>(&self, key: &Key<T>) -> T {
        self.entries
            .iter()
            .find(|entry| entry.spec.path == key.path())
            .and_then(|entry| T::from_value(entry.value.as_ref()))
            .expect(
                "settings read only keys of their table, and a key's constructor fixes its type",
            )
    }

    /// Refuses the value of `key` for a `rule` that no key can state alone.
    pub fn refuse<T>(&self, key: &Key<T>, rule: impl Into<String>, problems: &mut Problems) {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.spec.path == key.path());
        problems.push(Problem {
            key: key.path().to_owned(),
            given: entry.and_then(Entry::given_by),
            rule: rule.into(),
            example: entry
                .map(|entry| entry.spec.example.to_owned())
                .unwrap_or_default(),
        });
    }

    /// What looks like a mistake and is none for sure, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl Entry {
    fn given_by(&self) -> Option<String> {
        self.given
            .as_ref()
            .map(|given| format!("`{}` ({})", given.shown(), self.source))
    }
}

fn resolve_one(
    spec: &Spec,
    inputs: &Inputs,
    file: &mut BTreeMap<String, toml::Value>,
    problems: &mut Problems,
) -> Entry {
    let variable = spec.variable();
    let flag = inputs
        .flags
        .iter()
        .find(|(path, _)| *path == spec.path)
        .map(|(_, text)| text);
    // An empty variable is one that a template left empty, which means: not given.
    let env = inputs.env.get(&variable).filter(|text| !text.is_empty());
    // Taken out even when it loses, so that what stays in `file` is unknown.
    let in_file = file.remove(spec.path);
    let (given, source) = match (flag, env, in_file) {
        (Some(text), _, _) => (Some(Given::Text(text.clone())), Source::Flag),
        (None, Some(text), _) => (Some(Given::Text(text.clone())), Source::Env(variable)),
        (None, None, Some(value)) => {
            let name = inputs
                .file
                .as_ref()
                .map(|(name, _)| name.clone())
                .unwrap_or_default();
            (Some(Given::Toml(value)), Source::File(name))
        },
        (None, None, None) => (spec.default.into(), Source::Default),
    };
    let mut entry = Entry {
        spec: *spec,
        given,
        source,
        value: None,
    };
    match entry
        .given
        .as_ref()
        .map(|given| parse(spec.rule, given))
        .transpose()
    {
        Ok(value) => entry.value = value,
        Err(rule) => {
            problems.push(Problem {
                key: spec.path.to_owned(),
                given: entry.given_by(),
                rule,
                example: spec.example.to_owned(),
            });
            let default: Option<Given> = spec.default.into();
            entry.value = default.and_then(|given| parse(spec.rule, &given).ok());
        },
    }
    entry
}

/// The file as `section.name` -> value.
fn read_file(inputs: &Inputs, problems: &mut Problems) -> BTreeMap<String, toml::Value> {
    let mut flat = BTreeMap::new();
    let Some((name, text)) = &inputs.file else {
        return flat;
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let rule = format!("is not TOML: {}", error.to_string().trim_end());
            problems.push(Problem {
                key: name.clone(),
                given: None,
                rule,
                example: String::new(),
            });
            return flat;
        },
    };
    for (section, value) in table {
        match value {
            toml::Value::Table(keys) => {
                for (key, value) in keys {
                    flat.insert(format!("{section}.{key}"), value);
                }
            },
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => {
                flat.insert(section, value);
            },
        }
    }
    flat
}

fn unknown_key(path: &str, specs: &[Spec]) -> Problem {
    let name = path.rsplit('.').next().unwrap_or(path);
    let near = specs.iter().find(|spec| spec.name() == name);
    let section = path.split_once('.').map_or(path, |(section, _)| section);
    let names: Vec<_> = specs
        .iter()
        .filter(|spec| spec.section() == section)
        .map(Spec::name)
        .collect();
    let rule = match near {
        Some(spec) => format!("is not a key; `{}` is", spec.path),
        None if names.is_empty() => {
            let mut sections: Vec<_> = specs.iter().map(Spec::section).collect();
            sections.dedup();
            format!("is not a key; the sections are {}", sections.join(", "))
        },
        None => format!("is not a key; section `{section}` has {}", names.join(", ")),
    };
    Problem {
        key: path.to_owned(),
        given: None,
        rule,
        example: String::new(),
    }
}

fn warnings(specs: &[Spec], inputs: &Inputs) -> Vec<String> {
    let known: Vec<_> = specs.iter().map(Spec::variable).collect();
    let sections: Vec<_> = specs
        .iter()
        .map(|spec| format!("{}_", variable_of(spec.section())))
        .collect();
    inputs
        .env
        .iter()
        .filter(|(name, _)| {
            sections
                .iter()
                .any(|section| name.starts_with(section.as_str()))
        })
        .filter(|(name, _)| !known.contains(name) && !FOREIGN.contains(&name.as_str()))
        .map(|(name, value)| {
            format!(
                "environment variable `{name}` = `{}` sets no key",
                masked(value)
            )
        })
        .collect()
}
