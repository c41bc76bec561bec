//! The flags as a document of flagd.

use crate::doc::*;
use serde_json::{json, Map, Value};

pub fn render(doc: &Doc) -> String {
    let fs: Map<String, Value> = doc.flags.iter().map(|f| (f.name.clone(), flag(f))).collect();
    let ev: Map<String, Value> =
        doc.segments.iter().map(|s| (s.0.clone(), json!({"in": [{"var": "targetingKey"}, s.1]}))).collect();
    json!({"flags": fs, "$evaluators": ev}).to_string()
}

fn flag(f: &Flag) -> Value {
    let mut v = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"});
    let bucket = json!({"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]});
    match &f.kind {
        Kind::On => v["defaultVariant"] = json!("on"),
        Kind::Rule3 { countries, min_version, age_gt } => {
            v["targeting"] = json!({"if": [{"and": [
                {"in": [{"var": "country"}, countries]},
                {"sem_ver": [{"var": "appVersion"}, ">=", min_version]},
                {">": [{"var": "age"}, age_gt]}]}, "on", "off"]})
        }
        Kind::Rollout { pct } => {
            v["targeting"] = json!({"fractional": [bucket, ["on", pct], ["off", 100 - pct]]})
        }
        Kind::InSegment { segment } => v["targeting"] = json!({"if": [{"$ref": segment}, "on", "off"]}),
        Kind::Multi { variants } => {
            v["variants"] = Value::Object(variants.iter().map(|x| (x.0.clone(), json!(x.0))).collect());
            v["defaultVariant"] = json!(variants[0].0);
            let mut a = vec![bucket];
            a.extend(variants.iter().map(|x| json!([x.0, x.1])));
            v["targeting"] = json!({"fractional": a})
        }
        Kind::Requires { .. } => {}
    }
    v
}
