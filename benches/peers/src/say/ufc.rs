//! The flags as a UFC document.

use crate::doc::*;
use serde_json::{json, Map, Value};

pub fn render(doc: &Doc) -> String {
    let flags: Map<String, Value> = doc.flags.iter().map(|f| (f.name.clone(), flag(f, doc))).collect();
    json!({"createdAt": "2024-04-17T19:40:53.716Z", "format": "SERVER", "environment": {"name": "bench"}, "flags": flags, "bandits": {}})
            .to_string()
}

fn flag(f: &Flag, doc: &Doc) -> Value {
    let alloc =
        |rules: Value, splits: Value| json!([{"key": "a", "rules": rules, "splits": splits, "doLog": false}]);
    let on = json!([{"variationKey": "on", "shards": []}]);
    let mut v = json!({"key": f.name, "enabled": true, "variationType": "BOOLEAN", "totalShards": 10000,
        "variations": {"on": {"key": "on", "value": true}, "off": {"key": "off", "value": false}}});
    v["allocations"] = match &f.kind {
        Kind::On => alloc(json!([]), on),
        Kind::Rule3 { countries, min_version, age_gt } => alloc(
            json!([{"conditions": [
                {"attribute": "country", "operator": "ONE_OF", "value": countries},
                {"attribute": "appVersion", "operator": "GTE", "value": min_version},
                {"attribute": "age", "operator": "GT", "value": age_gt}]}]),
            on,
        ),
        Kind::Rollout { pct } => alloc(
            json!([]),
            json!([{"variationKey": "on", "shards": [{"salt": f.name, "ranges": [{"start": 0, "end": pct * 100}]}]},
                   {"variationKey": "off", "shards": [{"salt": f.name, "ranges": [{"start": pct * 100, "end": 10000}]}]}]),
        ),
        Kind::InSegment { segment } => {
            let ids = &doc.segments.iter().find(|s| &s.0 == segment).unwrap().1;
            alloc(json!([{"conditions": [{"attribute": "id", "operator": "ONE_OF", "value": ids}]}]), on)
        }
        Kind::Multi { variants } => {
            v["variationType"] = json!("STRING");
            let m: Map<String, Value> =
                variants.iter().map(|x| (x.0.clone(), json!({"key": x.0, "value": x.0}))).collect();
            v["variations"] = Value::Object(m);
            let mut at = 0;
            let splits: Vec<Value> = variants
                .iter()
                .map(|x| {
                    let s = at;
                    at += x.1 * 100;
                    json!({"variationKey": x.0, "shards": [{"salt": f.name, "ranges": [{"start": s, "end": at}]}]})
                })
                .collect();
            alloc(json!([]), json!(splits))
        }
        Kind::Requires { .. } => json!([]),
    };
    v
}
