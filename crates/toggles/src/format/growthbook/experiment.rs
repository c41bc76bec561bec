//! GrowthBook's experiments: the procedure that decides who takes part, with which variation.

use std::borrow::Cow;

use regex::Regex;

use super::{
    address::{UrlPattern, occurs, query_override, targeted},
    coercion,
    condition::{Cond, Reader, Root},
    placing::{Attribute, Filter, Namespace, Placing, Range, choose, ranges},
    user::{Override, User},
};
use crate::{
    context::Context,
    engine::{Cycle, Decide, Decision, Predicate, Situation},
    model::{FaultCode, Reason, Truth},
    value::{Entries, Value},
};

/// The name of the note that tells an experiment's result to whoever watches.
pub(super) const RESULT: &str = "growthbook.experiment";

/// An experiment, of a feature's rule or of its own.
#[derive(Debug)]
pub(super) struct Experiment {
    pub(super) key: Box<str>,
    /// It is asked for itself: who does not take part gets the first variation.
    pub(super) bare: bool,
    /// The index among the flag's variants of the first variation.
    pub(super) first: usize,
    /// The number of variations.
    pub(super) count: usize,
    pub(super) attribute: Attribute,
    pub(super) fallback: Option<Attribute>,
    /// The attribute whose sticky bucket counts where that of the hashed one says nothing: the fallback, else `id`.
    pub(super) remembers: Attribute,
    pub(super) sticky: bool,
    pub(super) bucket_version: i64,
    pub(super) min_bucket_version: i64,
    pub(super) placing: Placing,
    pub(super) ranges: Vec<Range>,
    /// Instead of the namespace.
    pub(super) filters: Option<Vec<Filter>>,
    pub(super) namespace: Option<Namespace>,
    pub(super) condition: Option<Cond>,
    pub(super) parents: Vec<Parent>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) url: Option<Regex>,
    pub(super) url_patterns: Option<Vec<UrlPattern>>,
    pub(super) status: Status,
    pub(super) force: Option<i64>,
    pub(super) meta: Vec<Meta>,
    pub(super) bandit: Option<Bandit>,
    /// The experiment as results repeat it.
    pub(super) echo: Value,
    /// The variations' values.
    pub(super) values: Vec<Value>,
}

/// How far an experiment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Nobody takes part but who is forced to.
    Draft,
    /// Whom the hash picks.
    Running,
    /// Over: nobody takes part but who is forced to, by `force` too.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Meta {
    pub(super) key: Box<str>,
    pub(super) name: Option<Box<str>>,
    pub(super) passthrough: bool,
}

/// Weights that depend on the context.
#[derive(Debug)]
pub(super) struct Bandit {
    pub(super) version: Value,
    pub(super) leaves: Vec<Leaf>,
    pub(super) otherwise: Leaf,
}

#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) condition: Option<Cond>,
    pub(super) id: Value,
    pub(super) weights: Vec<f64>,
    /// Whether results repeat the weights: not those that nobody gave.
    pub(super) echoed: bool,
    pub(super) ranges: Vec<Range>,
}

/// What an experiment came to.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The variation; `None`: does not take part.
    variation: Option<usize>,
    hash_used: bool,
    bucket: Option<f64>,
    sticky_used: bool,
}

impl Experiment {
    fn run<'a>(
        &'a self,
        context: &'a Context,
        user: Option<&'a User>,
        leaf: Option<&Leaf>,
        situation: &mut Situation<'a, '_>,
    ) -> Run {
        let out = Run::default();
        let with = |variation: usize| Run { variation: Some(variation), ..out };
        if self.count < 2 || user.is_some_and(|user| !user.enabled) {
            return out;
        }
        let url = user.and_then(|user| user.url.as_deref());
        let fits = |patterns: &Vec<UrlPattern>| targeted(url.unwrap_or_default(), patterns);
        if !self.url_patterns.as_ref().is_none_or(fits) {
            return out;
        }
        if let Some(index) = url.and_then(|url| query_override(&self.key, url, self.count)) {
            return with(index);
        }
        if let Some(index) = user.and_then(|user| user.forced_variations.get(&*self.key)) {
            return self.variation(*index).map_or(out, with);
        }
        let over = user.and_then(|user| user.overrides.get(&*self.key));
        let status = over.map_or(self.status, |over| match over.status.as_deref() {
            _ if over.active == Some(false) => Status::Draft,
            None if over.active.is_none() => self.status,
            Some("draft") => Status::Draft,
            Some("stopped") => Status::Stopped,
            _ => Status::Running,
        });
        if status == Status::Draft {
            return out;
        }
        let Some((attribute, value)) = self.hashed(context, user) else { return out };
        let (found, blocked) = self.stuck(attribute, value, context, user);
        if found.is_none() && !self.lets(context, user, over, value, situation) {
            return out;
        }
        let own = over.and_then(|over| over.url.as_deref());
        let own = own.map(|pattern| super::pattern::pattern(pattern, false).ok());
        let regex = own.as_ref().map_or(self.url.as_ref(), Option::as_ref);
        if regex.is_some_and(|regex| !url.is_some_and(|url| occurs(regex, url))) {
            return out;
        }
        let Some(bucket) = self.placing.of(value) else { return out };
        let own = over.and_then(|over| self.ranges_of(over));
        let ranges = own.as_ref().unwrap_or_else(|| leaf.map_or(&self.ranges, |leaf| &leaf.ranges));
        let variation = found.or_else(|| choose(bucket, ranges));
        if blocked {
            return Run { sticky_used: true, ..out };
        }
        let Some(variation) = variation else { return out };
        if let Some(force) = over.and_then(|over| over.force).or(self.force) {
            return self.variation(force).map_or(out, with);
        }
        if user.is_some_and(|user| user.qa_mode) || status == Status::Stopped {
            return out;
        }
        situation.placed_at(bucket);
        Run {
            variation: self.variation(i64::try_from(variation).unwrap_or(-1)),
            hash_used: true,
            bucket: Some(bucket),
            sticky_used: found.is_some(),
        }
    }

    /// The ranges by other weights or another coverage; none if neither is another, or the experiment has ranges of its own.
    fn ranges_of(&self, over: &Override) -> Option<Vec<Range>> {
        let explicit = self.echo.get("ranges").is_some();
        if explicit || (over.coverage.is_none() && over.weights.is_none()) {
            return None;
        }
        let coverage = over.coverage.or_else(|| self.echo.get("coverage")?.as_f64()).unwrap_or(1.0);
        let given = || self.echo.get("weights")?.as_list()?.iter().map(Value::as_f64).collect();
        let weights: Option<Vec<f64>> = over.weights.clone().or_else(given);
        Some(ranges(self.count, coverage, weights.as_deref()))
    }

    fn variation(&self, index: i64) -> Option<usize> {
        usize::try_from(index).ok().filter(|index| *index < self.count)
    }

    fn sticks(&self, user: Option<&User>) -> bool {
        self.sticky && user.is_some_and(|user| user.sticky.is_some())
    }

    /// The attribute that is hashed, and its value. The fallback counts only where buckets are sticky.
    fn hashed<'a>(&'a self, context: &'a Context, user: Option<&User>) -> Option<(&'a Attribute, &'a Value)> {
        if let Some(value) = self.attribute.value(context) {
            return Some((&self.attribute, value));
        }
        let fallback = self.fallback.as_ref().filter(|_| self.sticks(user))?;
        Some((fallback, fallback.value(context)?))
    }

    /// The variation in which the user is stuck, and whether an older version of the experiment keeps the user out.
    fn stuck(
        &self,
        attribute: &Attribute,
        value: &Value,
        context: &Context,
        user: Option<&User>,
    ) -> (Option<usize>, bool) {
        let Some(documents) = user.and_then(|user| user.sticky.as_ref()).filter(|_| self.sticky) else {
            return (None, false);
        };
        let own = documents.get(&sticky_key(attribute, value));
        let fallback = self.remembers.value(context);
        let fallback = fallback.and_then(|value| documents.get(&sticky_key(&self.remembers, value)));
        let assigned = |version: i64| {
            let id = format!("{}__{version}", self.key);
            own.and_then(|own| own.get(&id)).or_else(|| fallback.and_then(|fallback| fallback.get(&id)))
        };
        // A document is small, a version may be any number: walk the assignments, not the versions.
        let prefix = format!("{}__", self.key);
        let blocked = self.min_bucket_version > 0
            && own.into_iter().chain(fallback).flatten().any(|(id, _)| {
                let version = id.strip_prefix(&prefix).and_then(|version| version.parse::<i64>().ok());
                version.is_some_and(|version| (0..self.min_bucket_version).contains(&version))
            });
        if blocked {
            return (None, true);
        }
        let variation = assigned(self.bucket_version);
        (variation.and_then(|key| self.meta.iter().position(|meta| *meta.key == **key)), false)
    }

    fn lets<'a>(
        &'a self,
        context: &'a Context,
        user: Option<&User>,
        over: Option<&Override>,
        value: &Value,
        situation: &mut Situation<'a, '_>,
    ) -> bool {
        let namespace = over.and_then(|over| over.namespace.as_ref());
        let namespace = namespace.map(|(id, from, to)| Namespace::new(id, *from, *to));
        let placed = if let Some(filters) = &self.filters {
            filters.iter().all(|filter| filter.lets(context))
        } else {
            let namespace = namespace.as_ref().or(self.namespace.as_ref());
            namespace.is_none_or(|namespace| namespace.contains(value))
        };
        let condition = over.and_then(|over| over.condition.as_ref());
        let condition = condition.map(|condition| Reader::new(None).condition(condition));
        let groups = over.and_then(|over| over.groups.as_ref()).or(self.groups.as_ref());
        placed
            && condition
                .as_ref()
                .or(self.condition.as_ref())
                .is_none_or(|condition| condition.holds(Root::Context(context)))
            && self.parents.iter().all(|parent| parent.holds(situation) == Truth::True)
            && groups.is_none_or(|groups| {
                groups
                    .iter()
                    .any(|group| user.is_some_and(|user| user.groups.get(group).copied().unwrap_or_default()))
            })
    }

    /// The key of a variation: of its meta data, else its index.
    fn key_of(&self, variation: usize) -> String {
        let key = self.meta.get(variation).map(|meta| &*meta.key).filter(|key| !key.is_empty());
        key.map_or_else(|| variation.to_string(), str::to_owned)
    }

    /// The result, the experiment, and the sticky bucket to keep, as one value.
    fn told(
        &self,
        run: Run,
        leaf: Option<&Leaf>,
        context: &Context,
        user: Option<&User>,
        feature: &str,
    ) -> Value {
        let variation = run.variation.unwrap_or(0);
        let hashed = self.hashed(context, user);
        let attribute = hashed.map_or(&self.attribute, |(attribute, _)| attribute);
        let mut result = Entries::new();
        let mut put = |name: &str, value: Value| drop(result.insert(name.into(), value));
        put("key", self.key_of(variation).into());
        put("featureId", if self.bare { Value::Null } else { feature.into() });
        put("inExperiment", run.variation.is_some().into());
        put("hashUsed", run.hash_used.into());
        put("variationId", Value::from(i64::try_from(variation).unwrap_or(0)));
        put("value", self.values.get(variation).cloned().unwrap_or_default());
        put("hashAttribute", Value::from(&*attribute.text));
        put("hashValue", hashed.map_or_else(|| "".into(), |(_, value)| value.clone()));
        put("stickyBucketUsed", run.sticky_used.into());
        let meta = self.meta.get(variation);
        if let Some(name) = meta.and_then(|meta| meta.name.as_deref()) {
            put("name", name.into());
        }
        if let Some(bucket) = run.bucket {
            put("bucket", bucket.into());
        }
        if meta.is_some_and(|meta| meta.passthrough) {
            put("passthrough", true.into());
        }
        let mut echo = self.echo.as_object().cloned().unwrap_or_default();
        if let (Some(bandit), Some(leaf)) = (&self.bandit, leaf) {
            let weights = Value::list(leaf.weights.iter().copied().map(Value::from));
            if leaf.echoed {
                echo.insert("weights".into(), weights.clone());
            }
            if run.hash_used && run.variation.is_some() {
                let mut fields = Entries::new();
                fields.insert("leafId".into(), leaf.id.clone());
                fields.insert("variationWeights".into(), weights);
                if !bandit.version.is_null() {
                    fields.insert("banditVersion".into(), bandit.version.clone());
                }
                for (name, value) in &fields {
                    put(name, value.clone());
                }
                echo.insert("contextualBandit".into(), Value::object(fields));
            }
        }
        let sticky = match hashed {
            Some((attribute, value)) if run.hash_used && self.sticks(user) => {
                let documents = user.and_then(|user| user.sticky.as_ref());
                let kept = documents.and_then(|all| all.get(&sticky_key(attribute, value)));
                let mut assignments: Entries = kept
                    .into_iter()
                    .flatten()
                    .map(|(id, key)| (id.as_str().into(), Value::from(key.as_str())))
                    .collect();
                let id = format!("{}__{}", self.key, self.bucket_version);
                assignments.insert(id.into(), self.key_of(variation).into());
                Value::object([
                    ("attributeName", Value::from(&*attribute.text)),
                    ("attributeValue", Value::from(&*sticky_value(value))),
                    ("assignments", Value::object(assignments)),
                ])
            }
            _ => Value::Null,
        };
        Value::object([
            ("result", Value::object(result)),
            ("experiment", Value::object(echo)),
            ("sticky", sticky),
        ])
    }
}

/// The key under which a document of sticky buckets is kept.
pub(super) fn sticky_key(attribute: &Attribute, value: &Value) -> String {
    format!("{}||{}", attribute.text, sticky_value(value))
}

/// The value of an attribute as documents of sticky buckets have it: lists and objects as JSON.
fn sticky_value(value: &Value) -> Cow<'_, str> {
    match value {
        Value::List(_) | Value::Object(_) => Cow::Owned(value.to_string()),
        other => coercion::text(other),
    }
}

impl Decide for Experiment {
    fn decide<'a>(&'a self, situation: &mut Situation<'a, '_>) -> Decision<'a> {
        let context = situation.context();
        let user = context.extension::<User>();
        let leaf = self.bandit.as_ref().map(|bandit| {
            let holds = |leaf: &&Leaf| {
                leaf.condition.as_ref().is_none_or(|condition| condition.holds(Root::Context(context)))
            };
            bandit.leaves.iter().find(holds).unwrap_or(&bandit.otherwise)
        });
        let run = self.run(context, user, leaf, situation);
        if situation.recording() {
            let told = self.told(run, leaf, context, user, situation.flag());
            situation.note(RESULT, told);
        }
        let index = match run.variation {
            Some(variation) => {
                if !self.bare && self.meta.get(variation).is_some_and(|meta| meta.passthrough) {
                    return Decision::GoOn;
                }
                situation.in_experiment(true);
                variation
            }
            None if self.bare => 0,
            None => return Decision::GoOn,
        };
        let reason = if run.hash_used { Reason::Split } else { Reason::TargetingMatch };
        Decision::Variant { index: self.first + index, reason: Some(reason) }
    }

    fn describe(&self) -> String {
        format!("experiment `{}` among {} variations", self.key, self.count)
    }
}

/// Another feature's value satisfies a condition.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) feature: Box<str>,
    pub(super) condition: Cond,
    /// Whether not satisfying it is what is asked for.
    pub(super) negate: bool,
}

impl Parent {
    /// Broken if the feature depends on the one that asks.
    fn holds(&self, situation: &mut Situation<'_, '_>) -> Truth {
        let user = situation.context().extension::<User>();
        let forced = user.and_then(|user| user.forced_feature_values.get(&*self.feature));
        let value = match forced {
            Some(value) => Some(value),
            None => match situation.evaluate(&self.feature) {
                Err(Cycle) => return Truth::Broken,
                Ok(Some(parent)) => {
                    if parent.error.is_some_and(|failure| failure.code == FaultCode::General) {
                        return Truth::Broken;
                    }
                    parent.value
                }
                Ok(None) => None,
            },
        };
        Truth::from(self.condition.holds(Root::Parent(value.unwrap_or(&Value::Null)))).negated_if(self.negate)
    }
}

impl Predicate for Parent {
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth {
        self.holds(situation)
    }

    fn describe(&self) -> String {
        let not = if self.negate { "not " } else { "" };
        format!("feature `{}` does {not}satisfy {:?}", self.feature, self.condition)
    }
}

/// Who a forced value is for, by share.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) attribute: Attribute,
    pub(super) fallback: Option<Attribute>,
    pub(super) placing: Placing,
    pub(super) range: Option<Range>,
    pub(super) coverage: f64,
}

impl Predicate for Rollout {
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth {
        let context = situation.context();
        let value = self.attribute.value(context).or_else(|| {
            let sticks = context.extension::<User>().is_some_and(|user| user.sticky.is_some());
            self.fallback.as_ref().filter(|_| sticks)?.value(context)
        });
        let Some(point) = value.and_then(|value| self.placing.of(value)) else { return Truth::False };
        situation.placed_at(point);
        match self.range {
            Some(range) => super::placing::within(point, range).into(),
            None => (self.coverage > 0.0 && point <= self.coverage).into(),
        }
    }

    fn describe(&self) -> String {
        match self.range {
            Some((from, to)) => format!("the hash of {} is from {from} below {to}", self.attribute.text),
            None => format!("the hash of {} is up to and with {}", self.attribute.text, self.coverage),
        }
    }
}

impl Predicate for Filter {
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth {
        self.lets(situation.context()).into()
    }

    fn describe(&self) -> String {
        format!("the hash of {} is in one of {:?}", self.attribute.text, self.ranges)
    }
}

/// A gate that does not hold: no value at all.
#[derive(Debug)]
pub(super) struct Gate;

impl Decide for Gate {
    fn decide<'a>(&'a self, _: &mut Situation<'a, '_>) -> Decision<'a> {
        Decision::Caller { reason: Reason::Disabled }
    }

    fn describe(&self) -> String {
        "a prerequisite does not hold".to_owned()
    }
}
