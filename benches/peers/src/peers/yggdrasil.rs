use crate::{doc::*, peer::*, say};
use serde_json::{json, Value};
use std::collections::HashMap;
use unleash_yggdrasil::{ClientFeatures, Context, EngineState, UpdateMessage};

pub struct Ygg(EngineState);

impl Peer for Ygg {
    type Ctx = Context;
    fn name() -> &'static str {
        "unleash-yggdrasil"
    }
    fn render(doc: &Doc) -> String {
        say::unleash::render(doc)
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
