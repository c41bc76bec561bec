use crate::{doc::*, peer::*};
use flowline_toggles::{
    engine::Changes,
    format::{flowline::Flowline as Flowline_, Format},
    Context, Toggles,
};
use serde_json::{json, Map, Value};

pub struct Flowline(Toggles);

impl Peer for Flowline {
    type Ctx = Context;
    fn name() -> &'static str {
        "flowline"
    }
    fn render(doc: &Doc) -> String {
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
    fn prepare(native: &str) -> Self {
        let ruleset = Flowline_::default().ruleset(native).unwrap();
        assert!(ruleset.warnings().is_empty());
        Flowline(Toggles::new(ruleset))
    }
    fn ctx(&self, u: &User) -> Context {
        Context::new(u.id.as_str())
            .with("country", u.country.as_str())
            .with("appVersion", u.version.as_str())
            .with("age", u.age)
    }
    fn eval(&self, flag: &str, ask: Ask, ctx: &Context) -> Answer {
        match ask {
            Ask::Bool => self.0.is_on(flag, ctx) as u8,
            Ask::Variant => self.0.evaluate(flag, ctx, |it| it.variant.map_or(0, |v| variant(&v.name))),
        }
    }
    fn update_one(&mut self, one: &str, _full: &str) -> &'static str {
        let set = Flowline_::default().read(one).unwrap();
        self.0.update(Changes { flags: set.flags, ..Changes::default() });
        "one flag recompiled, visible to readers"
    }
}
