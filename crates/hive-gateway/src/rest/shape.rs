//! What bodies, queries and answers look like, as data.
//!
//! One table says which fields there are, what they hold and between which bounds: `fields` reads
//! requests by it, `openapi` prints it, and the tests hold every answer against it. A field that
//! is read and not declared, or declared and not read, is found by the tests of this module.

use std::sync::Arc;

use axum::routing::MethodRouter;

use crate::core::Gateway;

/// One call: a method at a path, and what it takes and answers.
pub(crate) struct Call {
    /// The method, in upper case.
    pub(crate) method: &'static str,
    /// The path below `/api/v1`, without a slash at the end; served with one, too.
    pub(crate) path: &'static str,
    /// Stable name of the call in the OpenAPI document.
    pub(crate) id: &'static str,
    /// What it does, in a sentence.
    pub(crate) about: &'static str,
    /// Its query parameters.
    pub(crate) query: &'static Shape,
    /// Its body.
    pub(crate) body: Body,
    /// Its answers, without refusals.
    pub(crate) answers: &'static [Answer],
    /// Statuses of its refusals, beside those that every call may answer.
    pub(crate) refusals: &'static [u16],
    /// The function behind it.
    pub(crate) route: fn() -> MethodRouter<Arc<Gateway>>,
}

/// One answer of a call.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// When it is answered.
    pub(crate) about: &'static str,
    /// What it holds.
    pub(crate) body: Body,
}

/// What a whole body holds.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// One object.
    One(&'static Shape),
    /// One object, or nothing at all.
    Maybe(&'static Shape),
    /// One of two objects.
    Either(&'static Shape, &'static Shape),
    /// A bare array of objects.
    List(&'static Shape),
    /// One object, or a bare array of others.
    OneOrList(&'static Shape, &'static Shape),
    /// A stream of server-sent events; the data of each is an object.
    Events(&'static Shape),
    /// Any object.
    AnyObject,
}

/// The fields of an object.
pub(crate) struct Shape {
    /// Its name in the OpenAPI document.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) about: &'static str,
    /// Its fields, in the order in which they are shown; in parts, because some are shared.
    pub(crate) parts: &'static [&'static [Field]],
    /// Fields that callers may look for here and that are refused with these words.
    pub(crate) elsewhere: &'static [(&'static str, &'static str)],
}

/// No fields at all.
pub(crate) static NOTHING: Shape = Shape::new("Nothing", "Nothing.", &[]);

impl Shape {
    /// An object without fields that need a word of their own when refused.
    pub(crate) const fn new(
        name: &'static str,
        about: &'static str,
        parts: &'static [&'static [Field]],
    ) -> Self {
        Self {
            name,
            about,
            parts,
            elsewhere: &[],
        }
    }

    /// All fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.parts.iter().copied().flatten()
    }

    /// The field `name`, if there is one.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }
}

/// One field of an object.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: Kind,
    /// What it means, with its unit and its default.
    pub(crate) about: &'static str,
    /// Whether it must be there; in an answer, whether it always is.
    pub(crate) is_required: bool,
}

/// A field that may be missing.
pub(crate) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field {
        name,
        kind,
        about,
        is_required: false,
    }
}

/// A field that must be there.
pub(crate) const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field {
        name,
        kind,
        about,
        is_required: true,
    }
}

/// The same fields in an answer, where each of them is always there.
pub(crate) const fn shown<const N: usize>(mut fields: [Field; N]) -> [Field; N] {
    let mut index = 0;
    while index < N {
        fields[index].is_required = true;
        index += 1;
    }
    fields
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Text by the rule of names.
    Name,
    /// Any text of at most so many bytes.
    Text(usize),
    /// True or false.
    Flag,
    /// A whole number within bounds, both included.
    Count(u64, u64),
    /// Any number; only in answers.
    Number,
    /// Seconds, fractions allowed, within bounds in milliseconds, both included.
    Seconds(u64, u64),
    /// A point in time by RFC 3339.
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or an array of them; with commas between in a query.
    Words(&'static [&'static str]),
    /// True for 2, false for none, or 0 to 9: by how much a priority is raised.
    Boost,
    /// 0 to 9, or a word for one of them.
    Priority,
    /// 1 to 10, or a word: a priority as the migration guide has them.
    GuidePriority,
    /// Any JSON, also `null`.
    Json,
    /// Bytes in base64, with padding.
    Base64,
    /// At most so many names.
    Names(usize),
    /// Texts of an answer: so many, each of so many bytes at most.
    Texts(usize, usize),
    /// An object of text values.
    Pairs,
    /// An object.
    One(&'static Shape),
    /// An array of 1 to 1,000 objects in requests, of any number in answers.
    Many(&'static Shape),
    /// An array of at most so many objects.
    UpTo(usize, &'static Shape),
    /// An object of whole numbers, by name.
    Counts,
    /// An object of objects, by name.
    ByName(&'static Shape),
    /// Text or null; only in answers.
    TextOrNull,
    /// A whole number or null; only in answers.
    CountOrNull,
    /// Any number or null; only in answers.
    NumberOrNull,
}
