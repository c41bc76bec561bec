//! One way to write a JSON value: object keys in order, so that equal values have equal bytes whatever built them.

use serde_json::{Map, Value};

/// `value` with the keys of every object in order (by bytes).
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        // Whether a map keeps its keys in order is decided by the features of `serde_json` in the whole program; mostly it does.
        Value::Object(mut map) if map.keys().is_sorted() => {
            for value in map.values_mut().filter(|value| value.is_object() || value.is_array()) {
                *value = sorted(value.take());
            }
            Value::Object(map)
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}
