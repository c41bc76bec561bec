//! The JSON Schema of our own documents, for editors and for whoever checks documents without us.
//!
//! Most of it follows from the types; what they read in a way of their own (clauses, keys, `serve`) is said here.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use super::{Clause, Document, FlagKey, Percent, Serve, Slices};
use crate::model::{Period, Share, VersionDialect};

/// The JSON Schema (draft 2020-12) of our own flag documents, as text: the same text every time.
///
/// A document that it accepts can be read; what needs more than its shape (a variant that is not there, flags in a circle) is found by
/// [`Document::checked`]. JSON documents name it under `$schema`, TOML ones in a comment `#:schema PATH`, YAML ones in
/// `# yaml-language-server: $schema=PATH`.
///
/// ```
/// let schema = flowline_toggles::format::flowline::flags_schema();
/// assert!(schema.starts_with("{\n"));
/// ```
pub fn flags_schema() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "flowline flags".into());
    let mut text = format!("{:#}", schema.to_value());
    text.push('\n');
    text
}

/// A moment, or the midnight (UTC) that a day begins with.
pub(crate) struct Moment;

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A day (its midnight in UTC), or a moment with an offset.",
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$",
            "examples": ["2026-11-25", "2026-11-25T08:00:00Z"],
        })
    }
}

/// A text, number or boolean.
pub(crate) struct Plain;

impl JsonSchema for Plain {
    fn schema_name() -> Cow<'static, str> {
        "Plain".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl JsonSchema for FlagKey {
    fn schema_name() -> Cow<'static, str> {
        "FlagKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The key of a flag.",
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        })
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A percentage, exact to a thousandth.",
            "type": "number", "minimum": 0, "maximum": 100,
        })
    }
}

impl JsonSchema for Serve {
    fn schema_name() -> Cow<'static, str> {
        "Serve".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let slices = generator.subschema_for::<Slices>();
        json_schema!({
            "description": "A variant, several with weights, or a split that is given outright.",
            "anyOf": [
                { "type": "string" },
                {
                    "description": "Variants by name, each with its weight among all.",
                    "type": "object",
                    "additionalProperties": { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                },
                slices,
            ],
        })
    }
}

impl JsonSchema for Clause {
    fn schema_name() -> Cow<'static, str> {
        "Clause".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let clause = generator.subschema_for::<Self>();
        let [share, during, versions, moment] = [
            generator.subschema_for::<Share>(),
            generator.subschema_for::<Period>(),
            generator.subschema_for::<VersionDialect>(),
            generator.subschema_for::<Moment>(),
        ];
        let texts = json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
        let number = json_schema!({ "type": "number" });
        let clauses = json_schema!({ "type": "array", "items": clause });
        let compare = [
            "in",
            "starts_with",
            "ends_with",
            "contains",
            "above",
            "at_least",
            "below",
            "at_most",
            "version",
            "after",
            "before",
            "matches",
            "network",
            "present",
        ];
        let compared: Vec<_> = compare.iter().map(|name| json_schema!({ "required": [name] })).collect();
        let mut goes_with: serde_json::Map<String, serde_json::Value> = compare
            .iter()
            .chain(&["kind"])
            .map(|name| ((*name).to_owned(), serde_json::json!(["attribute"])))
            .collect();
        goes_with.extend(["variant", "enabled"].map(|name| (name.to_owned(), serde_json::json!(["flag"]))));
        json_schema!({
            "description": "One condition: it asks about an attribute, a segment, a flag, a share, the time, or a group of conditions.",
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "attribute": { "type": "string", "description": "The attribute's name; `targetingKey` is the key, `a.b` enters objects, `/a.b/c` is for names with dots." },
                "kind": { "type": "string", "description": "Of the context's part of this kind." },
                "in": { "description": "It is one of these.", "not": { "type": ["null", "object"] } },
                "starts_with": texts, "ends_with": texts, "contains": texts,
                "ignore_case": { "type": "boolean", "description": "The case of letters does not count." },
                "coerce": { "type": "boolean", "description": "Numbers and booleans count as texts, texts as numbers, milliseconds as moments." },
                "above": number, "at_least": number, "below": number, "at_most": number,
                "version": { "type": "string", "description": "A version comparison such as `>= 2.1.0`." },
                "versions": versions,
                "after": moment, "before": moment,
                "matches": { "type": "string", "description": "A pattern that occurs in it." },
                "network": texts,
                "present": { "type": "boolean" },
                "segment": { "type": "string", "description": "The context is in this segment." },
                "flag": { "type": "string", "description": "This flag is on, or comes to one of the variants." },
                "variant": texts,
                "enabled": { "type": "boolean", "description": "The flag must be switched on, too." },
                "share": share,
                "during": during,
                "all": clauses, "any": clauses,
                "not": { "type": "boolean", "description": "The opposite." },
            },
            "oneOf": [
                { "required": ["attribute"], "anyOf": compared },
                { "required": ["segment"] },
                { "required": ["flag"] },
                { "required": ["share"] },
                { "required": ["during"] },
                { "required": ["all"] },
                { "required": ["any"] },
            ],
            "dependentRequired": goes_with,
        })
    }
}
