//! Holds a document to a JSON Schema, as far as the schemas of this crate need it. A keyword that it does not know fails the test.

use serde_json::Value;

/// What is wrong with `value`, by the schema `at` within `root`; nothing if it is valid.
pub(super) fn problems(root: &Value, at: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let wrong = |what: String| vec![format!("{path}: {what}")];
    for (keyword, asked) in at.as_object().into_iter().flatten() {
        found.extend(match keyword.as_str() {
            "$ref" => {
                let pointer = asked.as_str().unwrap().trim_start_matches('#');
                problems(root, root.pointer(pointer).unwrap(), value, path)
            }
            "const" if value != asked => wrong(format!("{value} is not {asked}")),
            "enum" if !asked.as_array().unwrap().contains(value) => {
                wrong(format!("{value} is none of {asked}"))
            }
            "type" if !is_of(asked, value) => wrong(format!("{value} is no {asked}")),
            "pattern" => match (value.as_str(), pattern(asked.as_str().unwrap())) {
                (Some(text), fits) if !fits(text) => wrong(format!("{text} does not fit {asked}")),
                _ => Vec::new(),
            },
            "minimum" if value.as_f64() < asked.as_f64() => wrong(format!("{value} is below {asked}")),
            "minLength"
                if value.as_str().is_some_and(|text| (text.len() as u64) < asked.as_u64().unwrap()) =>
            {
                wrong("too short".to_owned())
            }
            "maxLength"
                if value.as_str().is_some_and(|text| (text.len() as u64) > asked.as_u64().unwrap()) =>
            {
                wrong("too long".to_owned())
            }
            // These say nothing of a value, and what those ask for is kept.
            "$schema" | "title" | "description" | "$defs" | "const" | "enum" | "type" | "minimum"
            | "minLength" | "maxLength" => Vec::new(),
            "required" => {
                let names = asked.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                missing.flat_map(|name| wrong(format!("`{name}` is missing"))).collect()
            }
            "properties" => {
                let declared = asked.as_object().unwrap().iter();
                let there = declared.filter_map(|(name, schema)| Some((name, schema, value.get(name)?)));
                there
                    .flat_map(|(name, schema, value)| {
                        problems(root, schema, value, &format!("{path}/{name}"))
                    })
                    .collect()
            }
            "additionalProperties" => {
                let declared = at.get("properties").and_then(Value::as_object);
                let others = value.as_object().into_iter().flatten();
                let others =
                    others.filter(|(name, _)| declared.is_none_or(|declared| !declared.contains_key(*name)));
                others
                    .flat_map(|(name, value)| match asked {
                        Value::Bool(false) => wrong(format!("`{name}` is not declared")),
                        schema => problems(root, schema, value, &format!("{path}/{name}")),
                    })
                    .collect()
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                items
                    .flat_map(|(index, item)| problems(root, asked, item, &format!("{path}/{index}")))
                    .collect()
            }
            "oneOf" => {
                let tried =
                    asked.as_array().unwrap().iter().map(|schema| problems(root, schema, value, path));
                let tried: Vec<_> = tried.collect();
                match tried.iter().filter(|problems| problems.is_empty()).count() {
                    1 => Vec::new(),
                    fitting => wrong(format!("{fitting} alternatives fit: {tried:?}")),
                }
            }
            other => panic!("{path}: this test does not know the keyword `{other}`"),
        });
    }
    found
}

fn is_of(asked: &Value, value: &Value) -> bool {
    let one = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("there is no type `{other}`"),
    };
    asked.as_array().map_or_else(|| one(asked), |several| several.iter().any(one))
}

/// The few patterns of these schemas.
fn pattern(pattern: &str) -> fn(&str) -> bool {
    match pattern {
        "^sha256:[0-9a-f]{64}$" => |text| {
            let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
        },
        "@[0-9]+$" => |text| {
            let version = text.rsplit('@').next().unwrap_or_default();
            text.contains('@') && !version.is_empty() && version.bytes().all(|digit| digit.is_ascii_digit())
        },
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" => |text| text.parse::<flowline_core::name::AppName>().is_ok(),
        other => panic!("this test does not know the pattern `{other}`"),
    }
}
