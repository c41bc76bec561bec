use crate::{doc::*, peer::*, say};
use serde_json::{json, Value};

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
        say::growthbook::render(doc)
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
