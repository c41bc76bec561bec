use crate::{doc::*, peer::*};
use eppo_core::{
    configuration_store::ConfigurationStore,
    eval::{Evaluator, EvaluatorConfig},
    ufc::{AssignmentValue, UniversalFlagConfig, VariationType},
    AttributeValue, Attributes, Configuration, SdkMetadata, Str,
};
use serde_json::{json, Map, Value};
use std::sync::Arc;

pub struct Eppo {
    ev: Evaluator,
    store: Arc<ConfigurationStore>,
}
const META: SdkMetadata = SdkMetadata { name: "bench", version: "0" };

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
fn config(native: &str) -> Arc<Configuration> {
    let ufc = UniversalFlagConfig::from_json(META, native.as_bytes().to_vec()).unwrap();
    Arc::new(Configuration::from_server_response(ufc, None))
}

impl Peer for Eppo {
    type Ctx = (Str, Arc<Attributes>);
    fn name() -> &'static str {
        "eppo_core"
    }
    fn unsupported(s: Scenario) -> Option<&'static str> {
        (s == Scenario::Prereq).then_some("no prerequisites in the format")
    }
    fn render(doc: &Doc) -> String {
        let flags: Map<String, Value> = doc.flags.iter().map(|f| (f.name.clone(), flag(f, doc))).collect();
        json!({"createdAt": "2024-04-17T19:40:53.716Z", "format": "SERVER", "environment": {"name": "bench"}, "flags": flags, "bandits": {}})
            .to_string()
    }
    fn prepare(native: &str) -> Self {
        let store = Arc::new(ConfigurationStore::new());
        store.set_configuration(config(native));
        Eppo {
            ev: Evaluator::new(EvaluatorConfig { configuration_store: store.clone(), sdk_metadata: META }),
            store,
        }
    }
    fn ctx(&self, u: &User) -> Self::Ctx {
        let mut a = Attributes::new();
        a.insert(Str::new("country"), AttributeValue::categorical(u.country.as_str()));
        a.insert(Str::new("appVersion"), AttributeValue::categorical(u.version.as_str()));
        a.insert(Str::new("age"), AttributeValue::numeric(u.age as f64));
        (Str::new(&u.id), Arc::new(a))
    }
    fn eval(&self, name: &str, ask: Ask, ctx: &Self::Ctx) -> Answer {
        let ty = if ask == Ask::Bool { VariationType::Boolean } else { VariationType::String };
        match self.ev.get_assignment(name, &ctx.0, &ctx.1, Some(ty)) {
            Ok(Some(a)) => match a.value {
                AssignmentValue::Boolean(b) => b as u8,
                AssignmentValue::String(s) => variant(s.as_str()),
                _ => 255,
            },
            Ok(None) => 0,
            Err(_) => 255,
        }
    }
    fn update_one(&mut self, _one: &str, full: &str) -> &'static str {
        self.store.set_configuration(config(full));
        "full reload"
    }
}
