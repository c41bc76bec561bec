//! The JSON Schemas of the files that people write.

/// What there is: a name, what it is for, and the schema, if there is one.
pub(super) const ALL: [(&str, &str, Option<&str>); 4] = [
    ("topology", "what is delivered: flowline.toml", Some(include_str!("topology.json"))),
    ("grants", "what it may touch: the owner's file", Some(include_str!("grants.json"))),
    ("plan", "a sealed plan: what `plan --out` writes", None),
    ("answer", "what `--json` prints", Some(include_str!("answer.json"))),
];
