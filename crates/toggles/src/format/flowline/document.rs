//! Documents of our own flags, and what they are in one scope.

use flowline_core::id::ScopeId;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Clause, Definition, Effective, FlagKey, compile};
use crate::{
    format::{Format, FormatError},
    model::{self, Condition, FlagSet, Operator, Subject, Test, Truth, Warning},
    value::Name,
};

/// A document: flags and segments by name, in TOML, YAML or JSON.
///
/// ```toml
/// [segments.beta]
/// members = ["user-1", "user-2"]
///
/// [flags.checkout]
/// owner = "ada"
/// audience = [{ attribute = "country", in = ["NO", "SE"] }]
/// rules = [{ id = "testers", when = [{ segment = "beta" }] }]
/// state = { on = true, rollout = 10 }
/// scopes.preview = { rollout = 100 }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// Groups that clauses ask for.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub segments: IndexMap<String, Segment>,
    /// The flags.
    pub flags: IndexMap<FlagKey, Definition>,
}

/// A group of contexts: those whose targeting key is listed, and those for whom all clauses hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segment {
    /// Targeting keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Box<str>>,
    /// All of these hold; none at all: only the members are in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Clause>,
}

impl Document {
    /// Reads JSON: the fast way, for documents that programs write.
    ///
    /// # Errors
    /// What does not fit, with line and column.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        serde_json::from_str(text).map_err(|error| FormatError::json("flowline", error))
    }

    /// The flags as they are in a scope, by what the document declares: `line` is the scope and its bases, nearest first; empty:
    /// wherever nothing is said for a scope.
    pub fn flag_set(&self, line: &[&ScopeId]) -> FlagSet {
        let mut set = FlagSet::new("flowline");
        set.flags.reserve(self.flags.len());
        for (key, definition) in &self.flags {
            let state = Effective::declared(definition, line);
            set.flags.push(compile(key.as_str(), definition, &state, &mut set.warnings));
        }
        set.segments =
            self.segments.iter().map(|(name, segment)| segment.compile(name, &mut set.warnings)).collect();
        set
    }
}

impl Segment {
    pub(crate) fn compile(&self, name: &str, warnings: &mut Vec<Warning>) -> model::Segment {
        let mut any: Vec<Condition> = Vec::with_capacity(2);
        if !self.members.is_empty() {
            any.push(Test::new(Subject::Key, Operator::one_of(self.members.iter().cloned())).into());
        }
        if !self.when.is_empty() {
            let all = self.when.iter().enumerate().map(|(index, clause)| {
                clause.condition().unwrap_or_else(|problem| {
                    let at = format!("segments/{name}/clause {}", index + 1);
                    warnings
                        .push(Warning::general(at, problem + "; nobody is in the segment by its clauses"));
                    Condition::Constant(Truth::Broken)
                })
            });
            any.push(Condition::All(all.collect()));
        }
        model::Segment { name: Name::new(name), condition: Condition::Any(any) }
    }
}

/// Reads documents of our own flags, for one scope.
#[derive(Debug, Clone, Default)]
pub struct Flowline {
    /// The scope and its bases, nearest first.
    pub line: Vec<ScopeId>,
}

impl Format for Flowline {
    fn name(&self) -> &'static str {
        "flowline"
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let line: Vec<&ScopeId> = self.line.iter().collect();
        Ok(Document::from_json(text)?.flag_set(&line))
    }
}
