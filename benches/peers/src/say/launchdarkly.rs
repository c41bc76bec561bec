//! The flags as LaunchDarkly's server data.

use crate::doc::*;
use serde_json::{json, Map, Value};

pub fn render(doc: &Doc) -> String {
    let flags: Map<String, Value> = doc.flags.iter().map(|f| (f.name.clone(), flag(f))).collect();
    let segs: Map<String, Value> = doc
        .segments
        .iter()
        .map(|(n, ids)| {
            (
                n.clone(),
                json!({"key": n, "version": 1, "included": ids, "excluded": [], "rules": [], "salt": "s"}),
            )
        })
        .collect();
    json!({"flags": flags, "segments": segs}).to_string()
}

fn flag(f: &Flag) -> Value {
    let mut v = json!({"key": f.name, "version": 1, "on": true, "targets": [], "rules": [], "prerequisites": [],
        "fallthrough": {"variation": 0}, "offVariation": 0, "variations": [false, true], "salt": "s", "clientSide": false});
    match &f.kind {
        Kind::On => v["fallthrough"] = json!({"variation": 1}),
        Kind::Rule3 { countries, min_version, age_gt } => {
            v["rules"] = json!([{"id": "r", "variation": 1, "trackEvents": false, "clauses": [
                {"contextKind": "user", "attribute": "country", "op": "in", "values": countries, "negate": false},
                {"contextKind": "user", "attribute": "appVersion", "op": "semVerLessThan", "values": [min_version], "negate": true},
                {"contextKind": "user", "attribute": "age", "op": "greaterThan", "values": [age_gt], "negate": false}]}])
        }
        Kind::Rollout { pct } => {
            v["fallthrough"] = json!({"rollout": {"contextKind": "user", "variations": [
                {"variation": 1, "weight": pct * 1000}, {"variation": 0, "weight": (100 - pct) * 1000}]}})
        }
        Kind::InSegment { segment } => {
            v["rules"] = json!([{"id": "r", "variation": 1, "trackEvents": false, "clauses": [
                {"contextKind": "user", "attribute": "key", "op": "segmentMatch", "values": [segment], "negate": false}]}])
        }
        Kind::Multi { variants } => {
            v["variations"] = variants.iter().map(|x| json!(x.0)).collect();
            let w: Vec<Value> = variants
                .iter()
                .enumerate()
                .map(|(i, x)| json!({"variation": i, "weight": x.1 * 1000}))
                .collect();
            v["fallthrough"] = json!({"rollout": {"contextKind": "user", "variations": w}})
        }
        Kind::Requires { parent } => {
            v["prerequisites"] = json!([{"key": parent, "variation": 1}]);
            v["fallthrough"] = json!({"variation": 1})
        }
    }
    v
}
