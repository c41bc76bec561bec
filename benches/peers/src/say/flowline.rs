//! The flags as a document of flowline's own.

use crate::doc::*;
use serde_json::{json, Map, Value};

pub fn render(doc: &Doc) -> String {
    let mut flags = Map::new();
    for f in &doc.flags {
        let mut v = json!({"state": {"on": true}});
        match &f.kind {
            Kind::On => {}
            Kind::Rule3 { countries, min_version, age_gt } => {
                v["audience"] = json!([
                        {"attribute": "country", "in": countries},
                        {"attribute": "appVersion", "version": format!(">= {min_version}")},
                        {"attribute": "age", "above": age_gt}])
            }
            Kind::Rollout { pct } => v["state"]["rollout"] = json!(pct),
            Kind::InSegment { segment } => v["audience"] = json!([{"segment": segment}]),
            Kind::Multi { variants } => {
                v["variants"] = variants.iter().map(|(n, _)| (n.clone(), json!(n))).collect();
                v["serve"] = variants.iter().map(|(n, w)| (n.clone(), json!(w))).collect();
            }
            Kind::Requires { parent } => v["requires"] = json!([parent]),
        }
        flags.insert(f.name.clone(), v);
    }
    let segments: Map<String, Value> =
        doc.segments.iter().map(|(n, ids)| (n.clone(), json!({"members": ids}))).collect();
    json!({"segments": segments, "flags": flags}).to_string()
}
