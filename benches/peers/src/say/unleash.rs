//! The flags as a document of Unleash.

use crate::doc::*;
use serde_json::{json, Value};
use std::collections::HashMap;

pub fn render(doc: &Doc) -> String {
    let seg: HashMap<&str, i32> =
        doc.segments.iter().enumerate().map(|(i, s)| (s.0.as_str(), i as i32 + 1)).collect();
    let features: Vec<Value> = doc.flags.iter().map(|f| feature(f, &seg)).collect();
    let segments: Vec<Value> = doc
            .segments
            .iter()
            .map(|(n, ids)| json!({"id": seg[n.as_str()], "constraints": [{"contextName": "userId", "operator": "IN", "values": ids}]}))
            .collect();
    json!({"version": 2, "features": features, "segments": segments}).to_string()
}

fn feature(f: &Flag, seg: &HashMap<&str, i32>) -> Value {
    let mut v = json!({"name": f.name, "type": "release", "enabled": true, "project": "default",
        "strategies": [{"name": "default"}]});
    match &f.kind {
        Kind::On => {}
        Kind::Rule3 { countries, min_version, age_gt } => {
            v["strategies"] = json!([{"name": "default", "constraints": [
                {"contextName": "country", "operator": "IN", "values": countries},
                {"contextName": "appVersion", "operator": "SEMVER_GTE", "value": min_version},
                {"contextName": "age", "operator": "NUM_GT", "value": age_gt.to_string()}]}])
        }
        Kind::Rollout { pct } => {
            v["strategies"] = json!([{"name": "flexibleRollout",
                "parameters": {"rollout": pct.to_string(), "stickiness": "userId", "groupId": f.name}}])
        }
        Kind::InSegment { segment } => {
            v["strategies"] = json!([{"name": "default", "segments": [seg[segment.as_str()]]}])
        }
        Kind::Multi { variants } => v["variants"] = variants
            .iter()
            .map(|(n, w)| json!({"name": n, "weight": w * 10, "weightType": "fix", "stickiness": "userId"}))
            .collect(),
        Kind::Requires { parent } => v["dependencies"] = json!([{"feature": parent}]),
    }
    v
}
