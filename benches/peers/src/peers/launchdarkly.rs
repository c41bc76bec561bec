use crate::{doc::*, peer::*};
use launchdarkly_server_sdk_evaluation::{
    evaluate, Context, ContextBuilder, Flag as LdFlag, FlagValue, Segment, Store,
};
use serde_json::{json, Map, Value};
use std::collections::HashMap;

struct MapStore {
    flags: HashMap<String, LdFlag>,
    segments: HashMap<String, Segment>,
}
impl Store for MapStore {
    fn flag(&self, k: &str) -> Option<LdFlag> {
        self.flags.get(k).cloned()
    }
    fn segment(&self, k: &str) -> Option<Segment> {
        self.segments.get(k).cloned()
    }
}
/// OWNED = take the top-level flag through `Store::flag` (a clone, as the crate's own trait asks);
/// otherwise borrow it from the map, the cheapest use of the crate.
pub struct Ld<const OWNED: bool>(MapStore);

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

impl<const OWNED: bool> Peer for Ld<OWNED> {
    type Ctx = Context;
    fn name() -> &'static str {
        if OWNED {
            "launchdarkly-eval (Store clone)"
        } else {
            "launchdarkly-eval (flag by ref)"
        }
    }
    fn render(doc: &Doc) -> String {
        let flags: Map<String, Value> = doc.flags.iter().map(|f| (f.name.clone(), flag(f))).collect();
        let segs: Map<String, Value> = doc
            .segments
            .iter()
            .map(|(n, ids)| (n.clone(), json!({"key": n, "version": 1, "included": ids, "excluded": [], "rules": [], "salt": "s"})))
            .collect();
        json!({"flags": flags, "segments": segs}).to_string()
    }
    fn prepare(native: &str) -> Self {
        #[derive(serde::Deserialize)]
        struct All {
            flags: HashMap<String, LdFlag>,
            segments: HashMap<String, Segment>,
        }
        let a: All = serde_json::from_str(native).unwrap();
        Ld(MapStore { flags: a.flags, segments: a.segments })
    }
    fn ctx(&self, u: &User) -> Context {
        ContextBuilder::new(u.id.clone())
            .set_string("country", u.country.clone())
            .set_string("appVersion", u.version.clone())
            .set_float("age", u.age as f64)
            .build()
            .unwrap()
    }
    fn eval(&self, name: &str, ask: Ask, ctx: &Context) -> Answer {
        let go = |f: &LdFlag| {
            let d = evaluate(&self.0, f, ctx, None);
            match (ask, d.value) {
                (Ask::Bool, Some(FlagValue::Bool(b))) => *b as u8,
                (Ask::Variant, Some(FlagValue::Str(s))) => variant(s),
                _ => 255,
            }
        };
        if OWNED {
            match self.0.flag(name) {
                Some(f) => go(&f),
                None => 255,
            }
        } else {
            match self.0.flags.get(name) {
                Some(f) => go(f),
                None => 255,
            }
        }
    }
    fn update_one(&mut self, one: &str, _full: &str) -> &'static str {
        let mut v: Value = serde_json::from_str(one).unwrap();
        let (_, f) = v["flags"].as_object_mut().unwrap().iter_mut().next().unwrap();
        let f: LdFlag = serde_json::from_value(f.take()).unwrap();
        self.0.flags.insert(f.key.clone(), f);
        "map insert (store is the caller's)"
    }
}
