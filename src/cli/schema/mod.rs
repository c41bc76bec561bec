//! The JSON Schemas of what is read and written.

/// What there is: a name, what it is for, and the schema.
pub(super) const ALL: [(&str, &str, &str); 5] = [
    ("topology", "what is delivered: flowline.toml", include_str!("topology.json")),
    ("grants", "what it may touch: the owner's file", include_str!("grants.json")),
    (
        "flags",
        "flags in flowline's own format, a document of their own",
        include_str!("../../../docs/schema/flags.schema.json"),
    ),
    ("plan", "a sealed plan: what `plan --out` writes", include_str!("plan.json")),
    ("answer", "what `--json` prints", include_str!("answer.json")),
];
