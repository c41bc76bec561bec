use crate::{doc::*, peer::*};
use serde_json::{json, Map, Value};

fn feature(f: &Flag, groups: Option<&Doc>) -> Value {
    match &f.kind {
        Kind::On => json!({"defaultValue": true}),
        Kind::Rule3 { countries, min_version, age_gt } => {
            json!({"defaultValue": false, "rules": [{"force": true, "condition": {
            "country": {"$in": countries}, "appVersion": {"$vgte": min_version}, "age": {"$gt": age_gt}}}]})
        }
        Kind::Rollout { pct } => {
            json!({"defaultValue": false, "rules": [{"force": true, "coverage": *pct as f64 / 100.0, "hashAttribute": "id"}]})
        }
        Kind::InSegment { segment } => match groups {
            None => {
                json!({"defaultValue": false, "rules": [{"force": true, "condition": {"id": {"$inGroup": segment}}}]})
            }
            Some(d) => {
                let ids = &d.segments.iter().find(|s| &s.0 == segment).unwrap().1;
                json!({"defaultValue": false, "rules": [{"force": true, "condition": {"id": {"$in": ids}}}]})
            }
        },
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
fn render(doc: &Doc, inline_groups: bool) -> String {
    let fs: Map<String, Value> =
        doc.flags.iter().map(|f| (f.name.clone(), feature(f, inline_groups.then_some(doc)))).collect();
    let gs: Map<String, Value> = if inline_groups {
        Map::new()
    } else {
        doc.segments.iter().map(|s| (s.0.clone(), json!(s.1))).collect()
    };
    json!({"features": fs, "savedGroups": gs}).to_string()
}
fn attrs(u: &User) -> Value {
    json!({"id": u.id, "country": u.country, "appVersion": u.version, "age": u.age})
}

macro_rules! gb_eval {
    ($res:expr, $ask:expr) => {{
        let r = $res;
        match $ask {
            Ask::Bool => r.on as u8,
            Ask::Variant => r.value.as_str().map(variant).unwrap_or(255),
        }
    }};
}

/// The official crate.
pub struct Gb(growthbook_rust::growthbook::GrowthBook);
impl Peer for Gb {
    type Ctx = Option<Vec<growthbook_rust::model_public::GrowthBookAttribute>>;
    fn name() -> &'static str {
        "growthbook-rust (official)"
    }
    fn render(doc: &Doc) -> String {
        render(doc, false)
    }
    fn prepare(native: &str) -> Self {
        let r: growthbook_rust::dto::GrowthBookResponse = serde_json::from_str(native).unwrap();
        let saved = r.saved_groups.as_ref().and_then(Value::as_object).map(|m| {
            m.iter().map(|(k, v)| (k.clone(), growthbook_rust::model_public::SavedGroup::from(v))).collect()
        });
        Gb(growthbook_rust::growthbook::GrowthBook {
            forced_variations: None,
            features: r.features.unwrap(),
            attributes: None,
            sticky_bucket_service: None,
            saved_groups: saved.unwrap_or_default(),
        })
    }
    fn ctx(&self, u: &User) -> Self::Ctx {
        Some(growthbook_rust::model_public::GrowthBookAttribute::from(attrs(u)).unwrap())
    }
    fn eval(&self, name: &str, ask: Ask, ctx: &Self::Ctx) -> Answer {
        gb_eval!(self.0.check(name, ctx), ask)
    }
    fn update_one(&mut self, _one: &str, full: &str) -> &'static str {
        *self = Self::prepare(full);
        "full reload"
    }
}
