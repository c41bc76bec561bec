use crate::{doc::*, peer::*, say};
use eppo_core::{
    configuration_store::ConfigurationStore,
    eval::{Evaluator, EvaluatorConfig},
    ufc::{AssignmentValue, UniversalFlagConfig, VariationType},
    AttributeValue, Attributes, Configuration, SdkMetadata, Str,
};
use std::sync::Arc;

pub struct Eppo {
    ev: Evaluator,
    store: Arc<ConfigurationStore>,
}
const META: SdkMetadata = SdkMetadata { name: "bench", version: "0" };

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
        say::ufc::render(doc)
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
