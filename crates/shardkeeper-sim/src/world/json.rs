//! Small helpers for JSON objects.

use serde_json::Value;

/// Returns the object without one of its fields.
pub(crate) fn without(mut object: Value, field: &str) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
    object
}

/// Adds the fields of `more` to an object, replacing those with the same name.
pub(crate) fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// Returns the object with the fields of `more` added.
pub(super) fn with(mut data: Value, more: Value) -> Value {
    extend(&mut data, more);
    data
}

/// The data, or null for an event that cannot happen now.
pub(super) fn or_null(data: Option<Value>) -> Value {
    data.unwrap_or_default()
}

/// The text of a value with the keys of each object in reverse order.
pub(crate) fn reversed(value: &Value) -> String {
    let (open, parts, close) = match value {
        Value::Array(values) => ('[', values.iter().map(reversed).collect::<Vec<_>>(), ']'),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                format!("{}:{}", Value::from(key.as_str()), reversed(value))
            };
            ('{', fields.iter().rev().map(field).collect(), '}')
        }
        value => return value.to_string(),
    };
    format!("{open}{}{close}", parts.join(","))
}
