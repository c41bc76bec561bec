use crate::{doc::*, peer::*, say};
use flagd_evaluation_engine::{FeatureFlag, FlagParser, Operator};
use open_feature::EvaluationContext;
use serde_json::Value;
use std::collections::HashMap;

fn ctx(u: &User) -> EvaluationContext {
    EvaluationContext::default()
        .with_targeting_key(u.id.clone())
        .with_custom_field("country", u.country.clone())
        .with_custom_field("appVersion", u.version.clone())
        .with_custom_field("age", u.age)
}
const NO_PREREQ: Option<&str> = Some("no prerequisites in the format");

/// The bare engine: what the provider does per call, without locks, async and context merging.
pub struct FlagdEngine {
    flags: HashMap<String, FeatureFlag>,
    op: Operator,
}
impl Peer for FlagdEngine {
    type Ctx = EvaluationContext;
    fn name() -> &'static str {
        "flagd-evaluation-engine"
    }
    fn unsupported(s: Scenario) -> Option<&'static str> {
        if s == Scenario::Prereq {
            NO_PREREQ
        } else {
            None
        }
    }
    fn render(doc: &Doc) -> String {
        say::flagd::render(doc)
    }
    fn prepare(native: &str) -> Self {
        FlagdEngine { flags: FlagParser::parse_string(native).unwrap().flags, op: Operator::new() }
    }
    fn ctx(&self, u: &User) -> EvaluationContext {
        ctx(u)
    }
    fn eval(&self, name: &str, ask: Ask, ctx: &EvaluationContext) -> Answer {
        let Some(f) = self.flags.get(name) else { return 255 };
        let t = f.get_targeting();
        let v = if t == "{}" {
            f.default_variant.clone()
        } else {
            match self.op.apply(name, &t, ctx) {
                Ok(Some(v)) => v,
                Ok(None) => f.default_variant.clone(),
                Err(_) => return 255,
            }
        };
        match (ask, f.variants.get(&v)) {
            (Ask::Bool, Some(Value::Bool(b))) => *b as u8,
            (Ask::Variant, Some(Value::String(s))) => variant(s),
            _ => 255,
        }
    }
    fn update_one(&mut self, _one: &str, full: &str) -> &'static str {
        self.flags = FlagParser::parse_string(full).unwrap().flags;
        "full reload"
    }
}
