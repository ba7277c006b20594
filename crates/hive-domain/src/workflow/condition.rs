//! Whether a task is wanted: a CEL expression over the results of what it depends on.
//!
//! The one variable is `inputs`, a map from the id of a dependency to its result, e.g.
//! `inputs.review.score > 7 && has(inputs.build.url)`. No clock, no regular expressions, no
//! optional syntax.
//!
//! A condition comes from a user and runs in the router, so its cost is bounded before it runs:
//! length, depth of the tree, one level of loops (`all`, `exists`, `map` ...), and few values to
//! loop over. Evaluation has no step limit of its own that could be set.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cel::{
    Context, IdedExpr, Value,
    common::ast::{EntryExpr, Expr},
    objects::Map,
    parser::PrattParser,
    to_value,
};
use serde::Serialize;

/// Longest condition, in bytes.
pub const CONDITION_BYTES_MAX: usize = 2_048;

/// Deepest tree of a condition. Parsing, evaluation and dropping recurse over it: 64 levels fit
/// many times into the smallest stack of a thread, and no condition a person writes has 20.
const DEPTH_MAX: usize = 64;

/// Most values in all inputs together for a condition that loops: with the longest condition the
/// work stays within some hundred million steps.
const LOOPED_VALUES_MAX: usize = 1_000;

/// Longest reason in an error, in characters: an error of the evaluator quotes the value at fault.
const REASON_CHARS_MAX: usize = 256;

/// A condition that can be evaluated.
#[derive(Clone)]
pub struct Condition {
    tree: IdedExpr,
    has_loop: bool,
}

impl Condition {
    /// The condition that `text` says.
    ///
    /// # Errors
    /// Why it is none: too long, not CEL, too deep, or a loop within a loop.
    pub fn parse(text: &str) -> Result<Self, String> {
        let len = text.len();
        if len > CONDITION_BYTES_MAX {
            return Err(format!(
                "has {len} bytes and must have at most {CONDITION_BYTES_MAX}"
            ));
        }
        // The parser written by hand, not the generated one behind `Program::compile`: that one
        // took 20 ms for a chain of additions, this one less than 1 ms.
        let depth = u16::try_from(DEPTH_MAX).unwrap_or(u16::MAX);
        let parsed = PrattParser::new().max_recursion_depth(depth).parse(text);
        let tree = parsed.map_err(|faults| {
            let first = faults.errors.first();
            clip(first.map_or("is not CEL".to_owned(), |fault| {
                let (line, column) = fault.pos;
                format!("is not CEL: line {line}, column {column}: {}", fault.msg)
            }))
        })?;
        let has_loop = check(&tree)?;
        Ok(Self { tree, has_loop })
    }

    /// Whether the condition holds for `inputs`, results by the id of the dependency.
    ///
    /// # Errors
    /// Why there is no answer: the result is no boolean, a value is missing or of another type
    /// than the condition takes it for, or there are too many values to loop over.
    pub fn holds<V: Serialize>(&self, inputs: &BTreeMap<String, V>) -> Result<bool, String> {
        let value = to_value(inputs).map_err(|fault| clip(fault.to_string()))?;
        let mut count = 0;
        let value = signed(value, &mut count);
        if self.has_loop && count > LOOPED_VALUES_MAX {
            return Err(format!(
                "the inputs hold {count} values and a condition with a loop may see at most \
                 {LOOPED_VALUES_MAX}"
            ));
        }
        let mut context = Context::default();
        context.add_variable_from_value("inputs", value);
        match Value::resolve(&self.tree, &context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!(
                "the result must be a boolean and is of type {}",
                other.type_of()
            )),
            Err(fault) => Err(clip(fault.to_string())),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition")
            .field("has_loop", &self.has_loop)
            .finish_non_exhaustive()
    }
}

/// Whether the tree has a loop.
///
/// # Errors
/// When it is too deep, or has a loop within a loop: its cost would be a power of the inputs.
fn check(tree: &IdedExpr) -> Result<bool, String> {
    let mut has_loop = false;
    // A list, not recursion: the depth is what is looked for.
    let mut left: Vec<(&IdedExpr, usize, bool)> = vec![(tree, 1, false)];
    while let Some((node, depth, is_looped)) = left.pop() {
        if depth > DEPTH_MAX {
            return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
        }
        let below = depth.saturating_add(1);
        let mut add = |node, is_looped| left.push((node, below, is_looped));
        match &node.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {},
            Expr::Call(call) => {
                if let Some(target) = &call.target {
                    add(target, is_looped);
                }
                call.args.iter().for_each(|arg| add(arg, is_looped));
            },
            Expr::Comprehension(of) => {
                if is_looped {
                    return Err("has a loop within a loop".to_owned());
                }
                has_loop = true;
                add(&of.iter_range, false);
                add(&of.accu_init, true);
                add(&of.loop_cond, true);
                add(&of.loop_step, true);
                add(&of.result, true);
            },
            Expr::List(list) => list.elements.iter().for_each(|item| add(item, is_looped)),
            Expr::Select(select) => add(&select.operand, is_looped),
            Expr::Map(map) => {
                for entry in &map.entries {
                    each_of(&entry.expr, |node| add(node, is_looped));
                }
            },
            Expr::Struct(of) => {
                for entry in &of.entries {
                    each_of(&entry.expr, |node| add(node, is_looped));
                }
            },
        }
    }
    Ok(has_loop)
}

/// The expressions of an entry.
fn each_of<'a>(entry: &'a EntryExpr, mut add: impl FnMut(&'a IdedExpr)) {
    match entry {
        EntryExpr::StructField(field) => add(&field.value),
        EntryExpr::MapEntry(entry) => {
            add(&entry.key);
            add(&entry.value);
        },
    }
}

/// `value` with signed integers where they fit, and how many values it holds. JSON has one kind of
/// number; unsigned ones would make `inputs.a.count + 1` an error.
fn signed(value: Value, count: &mut usize) -> Value {
    *count = count.saturating_add(1);
    match value {
        Value::UInt(number) => i64::try_from(number).map_or(Value::UInt(number), Value::Int),
        Value::List(items) => {
            let items = items.iter().map(|item| signed(item.clone(), count));
            Value::List(Arc::new(items.collect()))
        },
        Value::Map(map) => {
            let entries = map.map.iter();
            let entries = entries.map(|(key, value)| (key.clone(), signed(value.clone(), count)));
            Value::Map(Map {
                map: Arc::new(entries.collect()),
            })
        },
        same @ (Value::Function(..)
        | Value::Int(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Bool(_)
        | Value::Opaque(_)
        | Value::Struct(_)
        | Value::Null) => same,
    }
}

/// `reason` in one line, cut after 256 characters.
fn clip(reason: String) -> String {
    let is_short = reason.len() <= REASON_CHARS_MAX && !reason.contains(char::is_control);
    if is_short {
        return reason;
    }
    let mut text: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_CHARS_MAX)
        .collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests;
