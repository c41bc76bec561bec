//! Unleash's activation strategies as conditions.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug};

use super::{
    compile::Compiler,
    constraint::{one_of, subject},
};
use crate::{
    format::reading::At,
    model::{
        Bucketing, Condition, Hash, Input, MissingInput, Operator, Range, Scale, Share, Subject, Test, Truth,
    },
};

/// The parameters of a custom strategy: texts by name.
pub type CustomParameters = BTreeMap<String, String>;

/// A custom strategy: what its parameters ask of a context.
///
/// Called once for each use of the strategy in a document, never during an evaluation; for what the model has no words for, return
/// [`Condition::Custom`]. Closures are strategies:
///
/// ```
/// use flowline_toggles::{
///     context::Context,
///     engine::{Fixed, Ruleset},
///     format::{Format, unleash::{CustomParameters, Unleash}},
///     model::{Condition, Operator, Subject, Test},
/// };
/// let unleash = Unleash::new().with_strategy("tenant", |parameters: &CustomParameters| {
///     let tenants = parameters.get("tenants").map(String::as_str).unwrap_or_default();
///     Condition::from(Test::new(Subject::attribute("tenant"), Operator::one_of(tenants.split(';'))))
/// });
/// let set = unleash.read(r#"{"features": [{"name": "f", "enabled": true,
///     "strategies": [{"name": "tenant", "parameters": {"tenants": "a;b"}}]}]}"#)?;
/// let ruleset = Ruleset::compile(set);
/// assert!(ruleset.is_on("f", &Context::new("u").with("tenant", "b"), &Fixed::default()));
/// assert!(!ruleset.is_on("f", &Context::new("u").with("tenant", "c"), &Fixed::default()));
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
pub trait Strategy: Send + Sync {
    /// When it is satisfied.
    fn condition(&self, parameters: &CustomParameters) -> Condition;
}

impl<F: Fn(&CustomParameters) -> Condition + Send + Sync> Strategy for F {
    fn condition(&self, parameters: &CustomParameters) -> Condition {
        self(parameters)
    }
}

impl Debug for dyn Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Strategy")
    }
}

/// A strategy's parameters as the document has them, of a name that stands twice the last.
#[derive(Debug, Default)]
pub(super) struct Parameters<'a>(pub(super) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Parameters<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(there, _)| *there == name).map(|(_, text)| &**text)
    }

    fn to_map(&self) -> CustomParameters {
        self.0.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }
}

/// A strategy's own test.
pub(super) fn compile(
    name: &str,
    parameters: &Parameters<'_>,
    at: &At<'_>,
    compiler: &mut Compiler<'_>,
) -> Condition {
    match name {
        "default" => Condition::ALWAYS,
        "userWithId" => {
            Test::new(Subject::Key, one_of(entries(parameters, "userIds").map(Into::into))).into()
        }
        "flexibleRollout" => {
            let stickiness = Stickiness::of(parameters.get("stickiness"));
            rollout("rollout", &stickiness, parameters, at, compiler)
        }
        "gradualRolloutUserId" => {
            rollout("percentage", &Stickiness::Field("userId"), parameters, at, compiler)
        }
        "gradualRolloutSessionId" => {
            rollout("percentage", &Stickiness::Field("sessionId"), parameters, at, compiler)
        }
        "gradualRolloutRandom" => rollout("percentage", &Stickiness::Random, parameters, at, compiler),
        "remoteAddress" => {
            let any_of = entries(parameters, "IPs").map(Into::into).collect();
            Test::new(Subject::attribute("remoteAddress"), Operator::Network { any_of }).into()
        }
        "applicationHostname" => {
            let Some(hostname) = &compiler.front.hostname else {
                compiler.warn(at, "the name of this host was not told; the strategy is never satisfied");
                return Condition::NEVER;
            };
            let hostname = hostname.to_lowercase();
            let listed = entries(parameters, "hostNames").any(|entry| entry.to_lowercase() == hostname);
            Condition::Constant(Truth::from(listed))
        }
        custom => {
            if let Some(strategy) = compiler.front.strategies.get(custom) {
                return strategy.condition(&parameters.to_map());
            }
            compiler.warn(at, format!("no strategy `{custom}` is registered; it is never satisfied"));
            Condition::NEVER
        }
    }
}

fn entries<'p>(parameters: &'p Parameters<'_>, name: &str) -> impl Iterator<Item = &'p str> {
    let list = parameters.get(name).unwrap_or_default();
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// What a place is bound to.
#[derive(Debug)]
pub(super) enum Stickiness<'a> {
    /// The user, else the session, else nothing.
    Default,
    /// Nothing.
    Random,
    /// A field of the context.
    Field(&'a str),
}

impl<'a> Stickiness<'a> {
    pub(super) fn of(name: Option<&'a str>) -> Self {
        match name {
            None | Some("" | "default") => Self::Default,
            Some("random") => Self::Random,
            Some(field) => Self::Field(field),
        }
    }

    /// The point of `group:value`, from 1 to `of`.
    pub(super) fn bucketing(
        &self,
        group: &str,
        seed: u32,
        of: u32,
        field_missing: MissingInput,
    ) -> Bucketing {
        let (first_of, missing) = match self {
            Self::Default => (vec![subject("userId"), Subject::attribute("sessionId")], MissingInput::Random),
            Self::Random => (Vec::new(), MissingInput::Random),
            Self::Field(field) => (vec![subject(field)], field_missing),
        };
        Bucketing {
            input: vec![
                Input::Literal(format!("{group}:").into()),
                Input::Of { first_of, scalars: true, skip_empty: false },
            ],
            hash: Hash::Murmur3 { seed },
            scale: Scale::Modulo { of, plus: 1 },
            missing,
        }
    }
}

fn rollout(
    percent: &str,
    stickiness: &Stickiness<'_>,
    parameters: &Parameters<'_>,
    at: &At<'_>,
    compiler: &mut Compiler<'_>,
) -> Condition {
    let text = parameters.get(percent).unwrap_or_default();
    let Ok(percent) = text.parse::<u32>() else {
        let text: String = text.chars().take(80).collect();
        compiler.warn(at, format!("`{percent}` is `{text}`, no whole percentage; it is never satisfied"));
        return Condition::NEVER;
    };
    match percent {
        0 => Condition::NEVER,
        // Everybody, whatever their point; a field that is missing has none.
        100.. if !matches!(stickiness, Stickiness::Field(_)) => Condition::ALWAYS,
        _ => {
            let group = parameters.get("groupId").unwrap_or(compiler.flag);
            Condition::Share(Share {
                bucketing: stickiness.bucketing(group, 0, 100, MissingInput::NoPoint),
                ranges: vec![Range::up_to_and_with(f64::from(percent))],
            })
        }
    }
}
