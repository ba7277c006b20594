//! Holds JSON against the schemas of an OpenAPI document, as far as ours go.

use serde_json::Value;

/// What is wrong with the answer `body` to a call by the document; nothing for calls that are not
/// in it, which must then be refusals.
pub(crate) fn faults(
    document: &Value,
    method: &str,
    path: &str,
    status: u16,
    body: &Value,
) -> Vec<String> {
    if document.is_null() {
        return Vec::new();
    }
    let Some(operation) = operation(document, method, path) else {
        return match status {
            404 | 405 | 501 => Vec::new(),
            _ => vec![format!("{method} {path} answers and is not documented")],
        };
    };
    let responses = &operation["responses"];
    let response = responses.get(status.to_string());
    let Some(content) = response.and_then(|response| response["content"].as_object()) else {
        return vec![format!("the status {status} is not documented")];
    };
    let schema = &content.values().next().unwrap()["schema"];
    let mut faults = Vec::new();
    check(document, schema, body, "", &mut faults);
    faults
}

/// The documented operation that a path belongs to; fixed paths win.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let path = path.split('?').next().unwrap().trim_end_matches('/');
    let fits = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template
                .zip(path)
                .all(|(part, given)| part == given || part.starts_with('{'))
    };
    let paths = document["paths"].as_object()?;
    let mut fitting: Vec<&String> = paths.keys().filter(|template| fits(template)).collect();
    fitting.sort_by_key(|template| template.matches('{').count());
    paths[*fitting.first()?].get(method.to_ascii_lowercase())
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        let schema = document.pointer(pointer).unwrap();
        return check(document, schema, value, at, faults);
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let fitting = alternatives.iter().filter(|schema| {
            let mut inner = Vec::new();
            check(document, schema, value, at, &mut inner);
            inner.is_empty()
        });
        if fitting.count() != 1 {
            faults.push(format!("{at}: fits not exactly one of the alternatives"));
        }
        return;
    }
    if !has_type(&schema["type"], value) {
        faults.push(format!("{at}: {value} is no {}", schema["type"]));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        faults.push(format!("{at}: {value} is none of {words:?}"));
    }
    if let Some(number) = value.as_f64() {
        let is_low = schema["minimum"]
            .as_f64()
            .is_some_and(|minimum| number < minimum);
        let is_high = schema["maximum"]
            .as_f64()
            .is_some_and(|maximum| number > maximum);
        if is_low || is_high {
            faults.push(format!("{at}: {number} is out of range"));
        }
    }
    match value {
        Value::Object(_) => check_object(document, schema, value, at, faults),
        Value::Array(items) if schema.get("items").is_some() => {
            for (index, item) in items.iter().enumerate() {
                check(
                    document,
                    &schema["items"],
                    item,
                    &format!("{at}[{index}]"),
                    faults,
                );
            }
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {},
    }
}

fn check_object(
    document: &Value,
    schema: &Value,
    value: &Value,
    at: &str,
    faults: &mut Vec<String>,
) {
    for required in schema["required"].as_array().map_or(&[][..], |all| all) {
        let name = required.as_str().unwrap();
        if value.get(name).is_none() {
            faults.push(format!("{at}.{name}: is missing"));
        }
    }
    for (name, inner) in value.as_object().unwrap() {
        let at = format!("{at}.{name}");
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) | (None, schema @ Value::Object(_)) => {
                check(document, schema, inner, &at, faults);
            },
            (None, Value::Bool(false)) => faults.push(format!("{at}: is not documented")),
            (None, _) => {},
        }
    }
}

fn has_type(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| has_type(kind, value)),
        Value::String(kind) => match kind.as_str() {
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            _ => false,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    }
}
