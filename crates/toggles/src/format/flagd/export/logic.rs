//! JSON logic, said as short as it means the same.

use serde_json::{Value as Json, json};

/// Whether an expression comes to one of some names; `or_none`: or to the caller's default.
pub(super) fn comes_to(decided: &Json, wanted: &[&str], or_none: bool) -> Json {
    match decided {
        Json::Null => or_none.into(),
        Json::String(name) => wanted.contains(&name.as_str()).into(),
        expression => {
            let named = (!wanted.is_empty()).then(|| json!({"in": [expression, wanted]}));
            let none = (or_none && has_none(expression)).then(|| json!({"===": [expression, null]}));
            any(named.into_iter().chain(none).collect())
        }
    }
}

/// The branches of an `if`.
pub(super) fn branches(expression: &Json) -> Option<&[Json]> {
    expression.get("if")?.as_array().map(Vec::as_slice)
}

/// Whether an expression may come to the caller's default.
pub(super) fn has_none(expression: &Json) -> bool {
    if expression.is_null() {
        return true;
    }
    let Some(parts) = branches(expression) else { return false };
    let odd = parts.len() % 2 == 1;
    parts.iter().skip(1).step_by(2).any(has_none) || !odd || parts.last().is_some_and(has_none)
}

/// The default variant and what is left of the targeting.
pub(super) fn split_default(expression: Json) -> (Json, Json) {
    if expression.is_null() || expression.is_string() {
        return (expression, Json::Null);
    }
    if has_none(&expression) {
        return (Json::Null, expression);
    }
    let Json::Object(mut operation) = expression else { return (Json::Null, expression) };
    let default = match operation.get_mut("if") {
        Some(Json::Array(parts)) if parts.last().is_some_and(Json::is_string) => parts.pop(),
        _ => None,
    };
    (default.unwrap_or_default(), operation.into())
}

pub(super) fn nodes(json: &Json) -> usize {
    1 + match json {
        Json::Array(list) => list.iter().map(nodes).sum(),
        Json::Object(entries) => entries.values().map(nodes).sum(),
        _ => 0,
    }
}

pub(super) fn all(parts: Vec<Json>) -> Json {
    group("and", parts, false)
}

pub(super) fn any(parts: Vec<Json>) -> Json {
    group("or", parts, true)
}

/// A group, without what decides nothing; `until` is what decides it alone.
pub(super) fn group(name: &str, parts: Vec<Json>, until: bool) -> Json {
    if parts.contains(&Json::Bool(until)) {
        return Json::Bool(until);
    }
    let mut parts: Vec<Json> = parts.into_iter().filter(|part| *part != Json::Bool(!until)).collect();
    match parts.len() {
        0 => Json::Bool(!until),
        1 => parts.remove(0),
        _ => json!({name: parts}),
    }
}

pub(super) fn not(part: Json) -> Json {
    match part {
        Json::Bool(yes) => Json::Bool(!yes),
        other => json!({"!": [other]}),
    }
}

/// `if`, without branches that are never taken; chains are one `if`.
pub(super) fn choose(when: Json, then: Json, otherwise: Json) -> Json {
    match when {
        Json::Bool(true) => return then,
        Json::Bool(false) => return otherwise,
        _ if then == otherwise => return then,
        _ => {}
    }
    let mut parts = vec![when, then];
    match branches(&otherwise) {
        Some(more) => parts.extend(more.iter().cloned()),
        None => parts.push(otherwise),
    }
    json!({"if": parts})
}

pub(super) fn member(value: &Json, of: impl Iterator<Item = Json>) -> Json {
    let of: Vec<Json> = of.collect();
    if of.is_empty() { Json::Bool(false) } else { json!({"in": [value, of]}) }
}

/// Whether a value is a list. JSON logic can't ask, but only lists have elements, and only the empty one is neither true nor any scalar.
pub(super) fn is_list(value: &Json) -> Json {
    let elements = json!({"some": [value, {"==": [1, 1]}]});
    let empty = json!({"and": [{"!": [value]}, {"!==": [value, null]}, {"!==": [value, false]}, {"!==": [value, 0]}, {"!==": [value, ""]}]});
    any(vec![elements, empty])
}
