//! The flags as a payload of GrowthBook.

use crate::doc::*;
use serde_json::{json, Map, Value};

pub fn render(doc: &Doc) -> String {
    let features: Map<String, Value> = doc.flags.iter().map(|f| (f.name.clone(), feature(f))).collect();
    let groups: Map<String, Value> = doc.segments.iter().map(|s| (s.0.clone(), json!(s.1))).collect();
    json!({"features": features, "savedGroups": groups}).to_string()
}

fn feature(f: &Flag) -> Value {
    match &f.kind {
        Kind::On => json!({"defaultValue": true}),
        Kind::Rule3 { countries, min_version, age_gt } => {
            json!({"defaultValue": false, "rules": [{"force": true, "condition": {
            "country": {"$in": countries}, "appVersion": {"$vgte": min_version}, "age": {"$gt": age_gt}}}]})
        }
        Kind::Rollout { pct } => {
            json!({"defaultValue": false, "rules": [{"force": true, "coverage": *pct as f64 / 100.0, "hashAttribute": "id"}]})
        }
        Kind::InSegment { segment } => {
            json!({"defaultValue": false, "rules": [{"force": true, "condition": {"id": {"$inGroup": segment}}}]})
        }
        Kind::Multi { variants } => {
            let names: Vec<&String> = variants.iter().map(|v| &v.0).collect();
            let w: Vec<f64> = variants.iter().map(|v| v.1 as f64 / 100.0).collect();
            json!({"defaultValue": "none", "rules": [{"key": f.name, "variations": names, "weights": w, "hashAttribute": "id"}]})
        }
        Kind::Requires { parent } => {
            json!({"defaultValue": true, "rules": [{"parentConditions": [{"id": parent, "condition": {"value": true}, "gate": true}]}]})
        }
    }
}
