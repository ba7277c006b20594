//! Reads the fields of a request one by one and notes every fault on the way.
//!
//! Not `serde` structs: these stop at the first fault, and a caller who mends a request wants all
//! of them. Values stay unparsed until they are asked for, so a payload keeps its numbers, the
//! order of its keys and everything else that a parser would smooth.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hive_domain::{
    name,
    time::Timestamp,
    violation::{Violations, path, quoted},
};
use hive_protocol::{limits::PRIORITY_MAX, message::priority_word, time};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{
    Number,
    value::{RawValue, to_raw_value},
};

use super::shape::{Field, Kind, Shape};

/// By how much a priority is raised where a caller says no more than that it is.
const BOOST: u32 = 2;

/// The fields of one object of a request, given and not read yet.
#[derive(Default)]
pub(crate) struct Given(Vec<(String, Box<RawValue>)>);

impl Given {
    /// The fields of the object that `json` is; none when it is no object.
    pub(crate) fn object(json: &RawValue) -> Option<Self> {
        serde_json::from_str(json.get()).ok()
    }

    /// One field alone.
    pub(crate) fn one(name: &str, json: &RawValue) -> Self {
        Self(vec![(name.to_owned(), json.to_owned())])
    }

    /// Query parameters as fields of `shape`: text where it has text, JSON elsewhere.
    pub(crate) fn query(pairs: Vec<(String, String)>, shape: &Shape) -> Self {
        let given = pairs.into_iter().filter_map(|(key, value)| {
            let json = query_value(shape.field(&key).map(|field| field.kind), value)?;
            Some((key, json))
        });
        Self(given.collect())
    }

    /// Whether the field `name` is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

/// A value of a query in JSON. Nothing but memory can make it fail.
fn query_value(kind: Option<Kind>, value: String) -> Option<Box<RawValue>> {
    match kind {
        Some(Kind::Flag | Kind::Count(..) | Kind::Seconds(..) | Kind::Boost) => {
            let as_text = to_raw_value(&value).ok();
            RawValue::from_string(value).ok().or(as_text)
        },
        Some(Kind::Names(_) | Kind::Words(_)) => {
            let names: Vec<&str> = value.split(',').filter(|name| !name.is_empty()).collect();
            to_raw_value(&names).ok()
        },
        _ => to_raw_value(&value).ok(),
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Keeps every pair, also two of one name, which a map would hide.
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                let mut given = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    given.push(pair);
                }
                Ok(Given(given))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// A reader of one object by its shape. Each `take_…` hands out the value, or nothing when the
/// field is missing, null or at fault; faults gather for [`Fields::finish`].
pub(crate) struct Fields {
    shape: &'static Shape,
    prefix: String,
    given: BTreeMap<String, Box<RawValue>>,
    faults: Violations,
}

impl Fields {
    /// A reader of `given`, its fields named below `prefix`. Unknown, repeated and missing fields
    /// are noted at once.
    pub(crate) fn new(given: Given, shape: &'static Shape, prefix: &str) -> Self {
        let mut fields = Self {
            shape,
            prefix: prefix.to_owned(),
            given: BTreeMap::new(),
            faults: Violations::new(),
        };
        for (key, json) in given.0 {
            if shape.field(&key).is_none() {
                fields.refuse_unknown(&key);
            } else if fields.given.insert(key.clone(), json).is_some() {
                fields.fault(&key, "is given twice");
            }
        }
        for field in shape.fields().filter(|field| field.is_required) {
            let is_there = fields
                .given
                .get(field.name)
                .is_some_and(|json| json.get() != "null" || matches!(field.kind, Kind::Json));
            if !is_there {
                fields.given.remove(field.name);
                fields.fault(field.name, "must be set");
            }
        }
        fields
    }

    /// As [`Fields::new`] for the object that `json` is; that it is none is a fault.
    pub(crate) fn of(json: &RawValue, shape: &'static Shape, prefix: &str) -> Self {
        if let Some(given) = Given::object(json) {
            return Self::new(given, shape, prefix);
        }
        let mut faults = Violations::new();
        let place = if prefix.is_empty() { "body" } else { prefix };
        faults.push(place, format!("{} must be an object", quoted(json.get())));
        Self {
            shape,
            prefix: prefix.to_owned(),
            given: BTreeMap::new(),
            faults,
        }
    }

    fn refuse_unknown(&mut self, key: &str) {
        let shown = quoted(key);
        let elsewhere = self.shape.elsewhere.iter().find(|(name, _)| *name == key);
        let rule = elsewhere.map_or_else(
            || format!("is no field of `{}`", self.shape.name),
            |(_, why)| (*why).to_owned(),
        );
        self.fault(shown.trim_matches('`'), rule);
    }

    /// Notes that the field `name` breaks the rule that `description` names.
    pub(crate) fn fault(&mut self, name: &str, description: impl Into<String>) {
        self.faults.push(path(&self.prefix, name), description);
    }

    /// Notes those of `found` whose fields are not at fault already.
    pub(crate) fn add_missing(&mut self, found: Violations) {
        for violation in found {
            let is_known = self
                .faults
                .as_slice()
                .iter()
                .any(|known| known.field == violation.field);
            if !is_known {
                self.faults.push(violation.field, violation.description);
            }
        }
    }

    /// Whether anything is at fault so far.
    pub(crate) const fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Whether the field `name` is given and not read yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given
            .get(name)
            .is_some_and(|json| json.get() != "null" || matches!(self.kind(name), Kind::Json))
    }

    /// Success when nothing is at fault.
    ///
    /// # Errors
    /// Every fault.
    pub(crate) fn finish(self) -> Result<(), Violations> {
        #[cfg(test)]
        assert!(
            self.given.is_empty(),
            "declared and not read: {:?}",
            self.given.keys()
        );
        self.faults.into_result()
    }

    fn kind(&self, name: &str) -> Kind {
        let declared: Option<&Field> = self.shape.field(name);
        declared
            .expect("a field that is read is declared in its shape")
            .kind
    }

    /// The value of `name` and its kind; none when it is missing or null.
    fn take(&mut self, name: &str) -> Option<(Kind, Box<RawValue>)> {
        let kind = self.kind(name);
        let json = self.given.remove(name)?;
        (json.get() != "null" || matches!(kind, Kind::Json)).then_some((kind, json))
    }

    /// Notes that `json` is not what `name` must be.
    fn wrong<T>(&mut self, name: &str, json: &RawValue, rule: &str) -> Option<T> {
        self.fault(name, format!("{} must be {rule}", quoted(json.get())));
        None
    }

    /// The value of `name`, parsed; `rule` says what it must be.
    fn parse<T: DeserializeOwned>(&mut self, name: &str, rule: &str) -> Option<(Kind, T)> {
        let (kind, json) = self.take(name)?;
        match serde_json::from_str(json.get()) {
            Ok(value) => Some((kind, value)),
            Err(_) => self.wrong(name, &json, rule),
        }
    }

    /// Text or a name; empty when missing.
    pub(crate) fn take_text(&mut self, name: &str) -> String {
        let Some((kind, text)) = self.parse::<String>(name, "text") else {
            return String::new();
        };
        if let Kind::Text(bytes_max) = kind
            && text.len() > bytes_max
        {
            let bytes = text.len();
            let rule = format!("has `{bytes}` bytes and must have at most {bytes_max}");
            self.fault(name, rule);
        }
        if let Kind::Name = kind
            && let Err(violation) = name::check(name, &text)
        {
            self.fault(name, violation.description);
        }
        text
    }

    /// True or false.
    pub(crate) fn take_flag(&mut self, name: &str) -> Option<bool> {
        self.parse(name, "true or false").map(|(_, flag)| flag)
    }

    /// A whole number.
    pub(crate) fn take_count(&mut self, name: &str) -> Option<u64> {
        let (kind, json) = self.take(name)?;
        let Kind::Count(min, max) = kind else {
            return self.wrong(name, &json, "what its shape declares");
        };
        let number: Option<u64> = serde_json::from_str(json.get()).ok();
        let in_range = number.filter(|number| (min..=max).contains(number));
        in_range.or_else(|| {
            let rule = format!("a whole number between {min} and {max}");
            self.wrong(name, &json, &rule)
        })
    }

    /// A whole number whose declared bounds fit 32 bits.
    pub(crate) fn take_u32(&mut self, name: &str) -> Option<u32> {
        self.take_count(name)
            .and_then(|number| u32::try_from(number).ok())
    }

    /// Seconds, in milliseconds; a part of a millisecond counts as one.
    pub(crate) fn take_ms(&mut self, name: &str) -> Option<u64> {
        let (kind, json) = self.take(name)?;
        let Kind::Seconds(ms_min, ms_max) = kind else {
            return self.wrong(name, &json, "what its shape declares");
        };
        let number: Option<Number> = serde_json::from_str(json.get()).ok();
        let millis = number
            .and_then(|number| number.as_f64())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|time| u64::try_from(time.as_nanos().div_ceil(1_000_000)).ok())
            .filter(|millis| (ms_min..=ms_max).contains(millis));
        millis.or_else(|| {
            let (min, max) = (seconds(ms_min), seconds(ms_max));
            let rule = format!("a number of seconds between {min} and {max}");
            self.wrong(name, &json, &rule)
        })
    }

    /// Seconds, as the wire has them.
    pub(crate) fn take_seconds(&mut self, name: &str) -> Option<prost_types::Duration> {
        self.take_ms(name).map(time::to_duration)
    }

    /// A point in time, from 1970 on.
    pub(crate) fn take_time(&mut self, name: &str) -> Option<Timestamp> {
        let rule = "a time by RFC 3339 such as `2026-01-31T12:00:00Z`";
        let (_, json) = self.take(name)?;
        let text: Option<String> = serde_json::from_str(json.get()).ok();
        let millis = text
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .and_then(|time| u64::try_from(time.as_millisecond()).ok());
        match millis {
            Some(millis) => Some(Timestamp(millis)),
            None => self.wrong(name, &json, rule),
        }
    }

    /// One of the declared words.
    pub(crate) fn take_word(&mut self, name: &str) -> Option<&'static str> {
        let (kind, json) = self.take(name)?;
        let Kind::Word(words) = kind else {
            return self.wrong(name, &json, "what its shape declares");
        };
        let text: Option<String> = serde_json::from_str(json.get()).ok();
        let found = text.and_then(|text| words.iter().copied().find(|word| *word == text));
        found.or_else(|| {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            self.wrong(name, &json, &format!("one of {}", words.join(", ")))
        })
    }

    /// Some of the declared words; none when missing.
    pub(crate) fn take_words(&mut self, name: &str) -> Vec<&'static str> {
        let Some((kind, json)) = self.take(name) else {
            return Vec::new();
        };
        let one: Option<String> = serde_json::from_str(json.get()).ok();
        let many: Option<Vec<String>> = serde_json::from_str(json.get()).ok();
        let (Kind::Words(words), Some(given)) = (kind, many.or(one.map(|one| vec![one]))) else {
            return self
                .wrong(name, &json, "a word or an array of words")
                .unwrap_or_default();
        };
        let find = |text: &String| words.iter().copied().find(|word| word == text);
        let found: Option<Vec<&'static str>> = given.iter().map(find).collect();
        found.unwrap_or_else(|| {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            self.wrong(name, &json, &format!("some of {}", words.join(", ")))
                .unwrap_or_default()
        })
    }

    /// By how much a priority is raised: true is 2.
    pub(crate) fn take_boost(&mut self, name: &str) -> Option<u32> {
        let (_, json) = self.take(name)?;
        let number: Option<u32> = serde_json::from_str(json.get()).ok();
        let flag: Option<bool> = serde_json::from_str(json.get()).ok();
        let boost = number
            .filter(|number| *number <= u32::from(PRIORITY_MAX))
            .or_else(|| flag.map(|is_raised| if is_raised { BOOST } else { 0 }));
        boost.or_else(|| self.wrong(name, &json, "true, false or a whole number from 0 to 9"))
    }

    /// A priority, by number or by word.
    pub(crate) fn take_priority(&mut self, name: &str) -> Option<u32> {
        let (_, json) = self.take(name)?;
        let number: Option<u32> = serde_json::from_str(json.get()).ok();
        let word: Option<String> = serde_json::from_str(json.get()).ok();
        let priority = number
            .filter(|number| *number <= u32::from(PRIORITY_MAX))
            .or_else(|| word.and_then(|word| priority_word(&word)).map(u32::from));
        let rule = "a whole number between 0 and 9, or one of `low`, `normal`, `high`, `urgent`, \
                    `critical`";
        priority.or_else(|| self.wrong(name, &json, rule))
    }

    /// A priority as the migration guide has them: 1 to 10, stored as one less, or a word.
    pub(crate) fn take_guide_priority(&mut self, name: &str) -> Option<u32> {
        let (_, json) = self.take(name)?;
        let number: Option<u32> = serde_json::from_str(json.get()).ok();
        let word: Option<String> = serde_json::from_str(json.get()).ok();
        let priority = number
            .and_then(|number| number.checked_sub(1))
            .filter(|number| *number <= u32::from(PRIORITY_MAX))
            .or_else(|| word.and_then(|word| priority_word(&word)).map(u32::from));
        let rule = "a whole number between 1 and 10, or one of `low`, `normal`, `high`, \
                    `urgent`, `critical`";
        priority.or_else(|| self.wrong(name, &json, rule))
    }

    /// A text or a whole number, as text; empty when missing.
    pub(crate) fn take_text_or_number(&mut self, name: &str) -> String {
        let Some((_, json)) = self.take(name) else {
            return String::new();
        };
        let text: Option<String> = serde_json::from_str(json.get()).ok();
        let number: Option<u64> = serde_json::from_str(json.get()).ok();
        let found = text.or_else(|| number.map(|number| number.to_string()));
        found
            .or_else(|| self.wrong(name, &json, "text or a whole number"))
            .unwrap_or_default()
    }

    /// Any JSON, without the spaces between its parts.
    pub(crate) fn take_json(&mut self, name: &str) -> Option<Bytes> {
        let (_, json) = self.take(name)?;
        Some(compact(json.get()))
    }

    /// Bytes, from base64.
    pub(crate) fn take_base64(&mut self, name: &str) -> Option<Bytes> {
        let (_, json) = self.take(name)?;
        let text: Option<String> = serde_json::from_str(json.get()).ok();
        match text.and_then(|text| STANDARD.decode(text).ok()) {
            Some(bytes) => Some(bytes.into()),
            None => self.wrong(name, &json, "base64 with padding"),
        }
    }

    /// Names; empty when missing.
    pub(crate) fn take_names(&mut self, name: &str) -> Vec<String> {
        let Some((kind, names)) = self.parse::<Vec<String>>(name, "an array of names") else {
            return Vec::new();
        };
        if let Kind::Names(max) = kind
            && names.len() > max
        {
            let len = names.len();
            self.fault(
                name,
                format!("has `{len}` names and must have at most {max}"),
            );
        }
        for (index, one) in names.iter().enumerate() {
            if let Err(violation) = name::check(name, one) {
                self.fault(&format!("{name}[{index}]"), violation.description);
            }
        }
        names
    }

    /// Text by key; empty when missing.
    pub(crate) fn take_pairs(&mut self, name: &str) -> BTreeMap<String, String> {
        self.parse(name, "an object of text values")
            .map(|(_, pairs)| pairs)
            .unwrap_or_default()
    }

    /// The reader of the object `name`; hand it back to [`Fields::close`].
    pub(crate) fn take_object(&mut self, name: &str) -> Option<Self> {
        let (kind, json) = self.take(name)?;
        let Kind::One(shape) = kind else {
            return self.wrong(name, &json, "what its shape declares");
        };
        Some(Self::of(&json, shape, &path(&self.prefix, name)))
    }

    /// Takes over the faults of an object that was read.
    pub(crate) fn close(&mut self, inner: Self) {
        if let Err(faults) = inner.finish() {
            self.faults.nest("", faults);
        }
    }

    /// The items of the array `name`, unread; empty when missing.
    pub(crate) fn take_items(&mut self, name: &str) -> Vec<Box<RawValue>> {
        self.parse(name, "an array")
            .map(|(_, items)| items)
            .unwrap_or_default()
    }
}

/// Milliseconds in seconds, for people.
fn seconds(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// JSON without the spaces between its parts; everything else stays as it is.
fn compact(json: &str) -> Bytes {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        if in_text {
            in_text = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_text = byte == b'"';
        }
        out.push(byte);
    }
    out.into()
}

#[cfg(test)]
mod tests;
