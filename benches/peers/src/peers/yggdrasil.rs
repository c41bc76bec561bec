use crate::{doc::*, peer::*};
use serde_json::{json, Value};
use std::collections::HashMap;
use unleash_yggdrasil::{ClientFeatures, Context, EngineState, UpdateMessage};

pub struct Ygg(EngineState);

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

impl Peer for Ygg {
    type Ctx = Context;
    fn name() -> &'static str {
        "unleash-yggdrasil"
    }
    fn render(doc: &Doc) -> String {
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
    fn prepare(native: &str) -> Self {
        let cf: ClientFeatures = serde_json::from_str(native).unwrap();
        let e = EngineState::initial_state(chrono::Utc::now());
        let w = e.take_state(UpdateMessage::FullResponse(cf));
        assert!(w.is_none(), "{:?}", w.unwrap()[0].message);
        Ygg(e)
    }
    fn ctx(&self, u: &User) -> Context {
        Context {
            user_id: Some(u.id.clone()),
            properties: Some(HashMap::from([
                ("country".into(), u.country.clone()),
                ("appVersion".into(), u.version.clone()),
                ("age".into(), u.age.to_string()),
            ])),
            ..Default::default()
        }
    }
    fn eval(&self, flag: &str, ask: Ask, ctx: &Context) -> Answer {
        match ask {
            Ask::Bool => self.0.is_enabled(flag, ctx, &None) as u8,
            Ask::Variant => variant(&self.0.get_variant(flag, ctx, &None).name),
        }
    }
    fn update_one(&mut self, one: &str, _full: &str) -> &'static str {
        let mut v: Value = serde_json::from_str(one).unwrap();
        let f = v["features"][0].take();
        let d = json!({"events": [{"type": "feature-updated", "eventId": 2, "feature": f}]});
        self.0.take_state(UpdateMessage::PartialUpdate(serde_json::from_value(d).unwrap()));
        "delta (recompiles all)"
    }
}
