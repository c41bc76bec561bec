use crate::{doc::*, peer::*, say};
use launchdarkly_server_sdk_evaluation::{
    evaluate, Context, ContextBuilder, Flag as LdFlag, FlagValue, Segment, Store,
};
use serde_json::Value;
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
        say::launchdarkly::render(doc)
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
