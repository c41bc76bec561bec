//! flowline, on its own documents and on those of each vendor: one engine, the hash of the format that the document is of.

use std::marker::PhantomData;

use crate::{doc::*, peer::*, say};
use flowline_toggles::{
    engine::Changes,
    format::{self, Format},
    Context, Ruleset, Toggles, Value,
};
use serde_json::json;

/// A format: how it says the flags, reads them, and what a user is in it.
pub trait Spoken: Send + Sync + 'static {
    const NAME: &'static str;
    const PREREQUISITES: bool = true;
    fn render(doc: &Doc) -> String;
    fn format() -> impl Format;
    fn ruleset(native: &str) -> Ruleset {
        Ruleset::compile(Self::format().read(native).unwrap())
    }
    fn context(user: &User) -> Context {
        plain(user)
    }
}

fn plain(u: &User) -> Context {
    Context::new(u.id.as_str())
        .with("country", u.country.as_str())
        .with("appVersion", u.version.as_str())
        .with("age", u.age)
}

pub struct Own;
impl Spoken for Own {
    const NAME: &'static str = "flowline";
    fn render(doc: &Doc) -> String {
        say::flowline::render(doc)
    }
    fn format() -> impl Format {
        format::flowline::Flowline::default()
    }
    fn ruleset(native: &str) -> Ruleset {
        format::flowline::Flowline::default().ruleset(native).unwrap()
    }
}

pub struct Unleash;
impl Spoken for Unleash {
    const NAME: &'static str = "flowline on unleash";
    fn render(doc: &Doc) -> String {
        say::unleash::render(doc)
    }
    fn format() -> impl Format {
        format::unleash::Unleash::new()
    }
    fn context(u: &User) -> Context {
        let properties = json!({"country": u.country, "appVersion": u.version, "age": u.age.to_string()});
        format::unleash::context(&Value::from(&json!({"userId": u.id, "properties": properties})))
    }
}

pub struct Flagd;
impl Spoken for Flagd {
    const NAME: &'static str = "flowline on flagd";
    const PREREQUISITES: bool = false;
    fn render(doc: &Doc) -> String {
        say::flagd::render(doc)
    }
    fn format() -> impl Format {
        format::flagd::Flagd::default()
    }
}

pub struct GrowthBook;
impl Spoken for GrowthBook {
    const NAME: &'static str = "flowline on growthbook";
    fn render(doc: &Doc) -> String {
        say::growthbook::render(doc)
    }
    fn format() -> impl Format {
        format::growthbook::GrowthBook::new()
    }
    fn context(u: &User) -> Context {
        let attributes = json!({"id": u.id, "country": u.country, "appVersion": u.version, "age": u.age});
        format::growthbook::context(&Value::from(&attributes), format::growthbook::User::default())
    }
}

pub struct LaunchDarkly;
impl Spoken for LaunchDarkly {
    const NAME: &'static str = "flowline on launchdarkly";
    fn render(doc: &Doc) -> String {
        say::launchdarkly::render(doc)
    }
    fn format() -> impl Format {
        format::launchdarkly::LaunchDarkly::new()
    }
    fn context(u: &User) -> Context {
        let user =
            json!({"kind": "user", "key": u.id, "country": u.country, "appVersion": u.version, "age": u.age});
        format::launchdarkly::context(&Value::from(&user))
    }
}

pub struct Ufc;
impl Spoken for Ufc {
    const NAME: &'static str = "flowline on ufc";
    const PREREQUISITES: bool = false;
    fn render(doc: &Doc) -> String {
        say::ufc::render(doc)
    }
    fn format() -> impl Format {
        format::ufc::Ufc::eppo()
    }
    fn context(u: &User) -> Context {
        let attributes = json!({"country": u.country, "appVersion": u.version, "age": u.age});
        format::ufc::context(Some(&u.id), &Value::from(&attributes))
    }
}

pub struct Ours<F>(pub Toggles, PhantomData<F>);

impl<F: Spoken> Peer for Ours<F> {
    type Ctx = Context;
    fn name() -> &'static str {
        F::NAME
    }
    fn unsupported(s: Scenario) -> Option<&'static str> {
        (s == Scenario::Prereq && !F::PREREQUISITES).then_some("no prerequisites in the format")
    }
    fn render(doc: &Doc) -> String {
        F::render(doc)
    }
    fn prepare(native: &str) -> Self {
        let ruleset = F::ruleset(native);
        Ours(Toggles::new(ruleset), PhantomData)
    }
    fn ctx(&self, u: &User) -> Context {
        F::context(u)
    }
    fn eval(&self, flag: &str, ask: Ask, ctx: &Context) -> Answer {
        match ask {
            Ask::Bool => self.0.is_on(flag, ctx) as u8,
            Ask::Variant => self.0.evaluate(flag, ctx, |it| {
                it.as_str().or(it.variant.map(|variant| &*variant.name)).map_or(0, variant)
            }),
        }
    }
    fn update_one(&mut self, one: &str, _full: &str) -> &'static str {
        let set = F::format().read(one).unwrap();
        self.0.update(Changes { flags: set.flags, ..Changes::default() });
        "one flag recompiled, visible to readers"
    }
    fn explain(&self, flag: &str, ctx: &Context) -> bool {
        !self.0.explain(flag, ctx).steps.is_empty()
    }
}
