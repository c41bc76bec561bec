//! flowline's own engine as a provider.

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;

use super::{LifeCycle, Provider, ProviderMetadata, Resolution, Resolved, Start, memory::structure};
use crate::{
    Toggles,
    client::{
        Emitter, ErrorCode, EvaluationContext, EvaluationError, Event, EventDetails, FlagMetadata, Reason,
    },
    engine::{Changes, Evaluation, Stage},
    value::Value,
};

/// Serves the flags of a [`Toggles`] handle, whatever keeps that up to date.
///
/// Ready as soon as it is bound, unless it was made [`waiting`](Self::waiting). Whoever changes the flags tells it with
/// [`notify`](Self::notify), as a [`Feed`](crate::source::Feed) and [`Flags`](crate::flags::Flags::provider) do, or changes them through
/// it.
///
/// The rules: a flag without a value for this context (switched off, or its document says so) is the caller's default, with the engine's
/// reason and without error; a value of another type is `TYPE_MISMATCH`; the engine's errors keep their codes, and the flag's metadata
/// comes along.
///
/// ```
/// use std::sync::Arc;
/// use flowline_toggles::{Ruleset, Toggles, client::isolated, model::{Flag, FlagSet, Outcome}, provider::TogglesProvider};
/// let mut flag = Flag::boolean("checkout");
/// flag.fallback = Outcome::Variant(flag.on_index());
/// let toggles = Toggles::new(Ruleset::compile(FlagSet { flags: vec![flag], ..FlagSet::new("example") }));
/// let api = isolated::api();
/// api.set_provider(Arc::new(TogglesProvider::new(toggles)))?;
/// let details = api.client().boolean_details("checkout", false, ());
/// assert!(details.value);
/// assert_eq!(details.variant.as_deref(), Some("on"));
/// # Ok::<(), flowline_toggles::client::BindError>(())
/// ```
#[derive(Debug)]
pub struct TogglesProvider {
    toggles: Toggles,
    name: Arc<str>,
    news: Mutex<News>,
}

/// What it has to tell, and to whom.
#[derive(Debug, Default)]
struct News {
    /// What it is fit for, as the event that said so; `None`: nobody said anything yet.
    status: Option<(Event, EventDetails)>,
    /// Where to tell while it is bound.
    events: Option<Emitter>,
    /// Counts starts and stops, so that what belongs to an earlier binding is known as such.
    binding: u64,
    /// What is still to be told, in order.
    queue: VecDeque<(Event, EventDetails)>,
    /// Whether somebody is telling. Handlers run without the lock, and in the order of the events all the same.
    telling: bool,
    /// What of the status was told since it was bound.
    told: Option<Result<(), EvaluationError>>,
    /// Who waits for the start.
    waiting: Vec<Waker>,
}

impl TogglesProvider {
    /// Serves `toggles`.
    pub fn new(toggles: Toggles) -> Self {
        let status = Some((Event::Ready, EventDetails::new()));
        Self { toggles, name: "flowline".into(), news: Mutex::new(News { status, ..News::default() }) }
    }

    /// The same, not ready before somebody [says so](Self::notify): until then its clients' status is `NOT_READY`, evaluations are their
    /// default with `PROVIDER_NOT_READY`, and [`Api::set_provider_and_wait`](crate::client::Api::set_provider_and_wait) waits. Whoever
    /// drops what [`Api::set_provider`](crate::client::Api::set_provider) returns changes nothing by it.
    pub fn waiting(toggles: Toggles) -> Self {
        Self { toggles, name: "flowline".into(), news: Mutex::default() }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The handle that it serves.
    pub fn toggles(&self) -> &Toggles {
        &self.toggles
    }

    /// Changes some flags, and tells the clients which.
    pub fn update(&self, changes: Changes) {
        let keys = changes.flags.iter().map(|flag| &*flag.key);
        let keys: BTreeSet<Arc<str>> =
            keys.chain(changes.removed_flags.iter().map(String::as_str)).map(Arc::from).collect();
        self.toggles.update(changes);
        self.notify(Event::ConfigurationChanged, EventDetails::changed(keys));
    }

    /// Tells the clients what happened to the flags. What changes the status is remembered for when the provider is bound later.
    ///
    /// Handlers run on this thread, in the order of the events; while another thread is telling, that one tells this as well.
    pub fn notify(&self, event: Event, details: EventDetails) {
        {
            let mut news = self.news();
            if event != Event::ConfigurationChanged {
                news.status = Some((event, details.clone()));
            }
            if news.events.is_some() {
                news.queue.push_back((event, details));
            }
        }
        self.tell();
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what is in the queue, unless somebody does already.
    fn tell(&self) {
        let mut news = self.news();
        if mem::replace(&mut news.telling, true) {
            return;
        }
        while let Some((event, details)) = news.queue.pop_front() {
            let (binding, events) = (news.binding, news.events.clone());
            drop(news);
            let told = started(event, &details);
            if let Some(events) = events {
                events.emit(event, details);
            }
            let waiting = {
                let mut news = self.news();
                if news.binding == binding && told.is_some() {
                    news.told = told;
                    mem::take(&mut news.waiting)
                } else {
                    Vec::new()
                }
            };
            waiting.into_iter().for_each(Waker::wake);
            news = self.news();
        }
        news.telling = false;
    }

    fn resolve<T>(
        &self,
        key: &str,
        default: impl FnOnce() -> T,
        context: &EvaluationContext,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Resolved<T> {
        self.toggles.evaluate(key, context.engine(), |evaluation| resolution(key, &evaluation, default, read))
    }
}

/// What an event means for a start; `None`: nothing.
fn started(event: Event, details: &EventDetails) -> Option<Result<(), EvaluationError>> {
    match event {
        Event::Ready | Event::Stale => Some(Ok(())),
        Event::Error => {
            let code = details.error_code.unwrap_or(ErrorCode::General);
            let message = details.message.clone().unwrap_or_else(|| "the flags are not ready".into());
            Some(Err(EvaluationError::new(code, message)))
        }
        Event::ConfigurationChanged => None,
    }
}

/// What an evaluation of the engine is to OpenFeature.
pub(crate) fn resolution<T>(
    key: &str,
    evaluation: &Evaluation<'_>,
    default: impl FnOnce() -> T,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Resolved<T> {
    let metadata = || {
        let facts = evaluation.facts();
        FlagMetadata::of_values(
            facts
                .into_iter()
                .flat_map(|facts| facts.metadata.iter().map(|(name, value)| (name.as_str(), value))),
        )
    };
    let fail = |code, message: String| {
        Err(EvaluationError { metadata: metadata(), ..EvaluationError::new(code, message) })
    };
    if let Some(failure) = evaluation.error {
        let message = match evaluation.stage {
            Stage::Unknown => format!("there is no flag `{key}`"),
            _ => format!("flag `{key}`: {}", failure.message),
        };
        return fail(failure.code, message);
    }
    let reason = Reason::from(evaluation.reason);
    let Some(value) = evaluation.value.filter(|value| !value.is_null()) else {
        return Ok(Resolution::new(default()).because(reason).with_metadata(metadata()));
    };
    let Some(read) = read(value) else {
        return fail(ErrorCode::TypeMismatch, format!("flag `{key}` is a {}", value.kind()));
    };
    let mut resolution = Resolution::new(read).because(reason).with_metadata(metadata());
    resolution.variant =
        evaluation.variant.filter(|variant| !variant.name.is_empty()).map(|variant| (&*variant.name).into());
    Ok(resolution)
}

impl Provider for TogglesProvider {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new(Arc::clone(&self.name))
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.resolve(key, || default, context, Value::as_bool)
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.resolve(key, || default.to_owned(), context, |value| value.as_str().map(str::to_owned))
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.resolve(key, || default, context, Value::as_i64)
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.resolve(key, || default, context, Value::as_f64)
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.resolve(key, || default.clone(), context, |value| structure(value).cloned())
    }

    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        Some(self)
    }
}

#[async_trait]
impl LifeCycle for TogglesProvider {
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError> {
        let binding = {
            let mut news = self.news();
            news.binding += 1;
            news.events = Some(start.events);
            news.queue = news.status.clone().into_iter().collect();
            news.told = None;
            news.binding
        };
        self.tell();
        poll_fn(|context| {
            let mut news = self.news();
            if news.binding != binding {
                let message = "the provider was shut down before its flags were ready";
                return Poll::Ready(Err(EvaluationError::new(ErrorCode::ProviderNotReady, message)));
            }
            if let Some(told) = &news.told {
                return Poll::Ready(told.clone());
            }
            if !news.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                news.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn shutdown(&self) {
        let waiting = {
            let mut news = self.news();
            news.binding += 1;
            news.events = None;
            news.queue.clear();
            mem::take(&mut news.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whoever changes the flags says when they are ready, whether or not anybody waits for it.
    fn goes_on_unawaited(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Ruleset,
        client::{ProviderStatus, isolated},
        model::{Facts, Flag, FlagSet, Outcome, Switch, ValueType, Variant},
    };

    fn toggles() -> Toggles {
        let mut on = Flag::boolean("on");
        on.fallback = Outcome::Variant(on.on_index());
        on.facts = Some(Arc::new(Facts {
            metadata: [("team".to_owned(), Value::from("shop")), ("list".to_owned(), Value::list([]))].into(),
            ..Facts::default()
        }));
        let mut off = Flag::new("off", ValueType::Integer, [Variant::new("seven", 7)]);
        off.switch = Switch::Off;
        let mut size = Flag::new("size", ValueType::Integer, [Variant::new("seven", 7)]);
        size.fallback = Outcome::Variant(0);
        let mut broken = Flag::boolean("broken");
        broken.fallback = Outcome::Variant(9);
        Toggles::new(Ruleset::compile(FlagSet { flags: vec![on, off, size, broken], ..FlagSet::new("test") }))
    }

    #[test]
    fn values_defaults_reasons_and_errors_are_openfeatures() {
        let api = isolated::api();
        drop(api.set_provider(Arc::new(TogglesProvider::new(toggles()))).unwrap());
        let client = api.client();
        let on = client.boolean_details("on", false, ());
        assert_eq!((on.value, on.variant.as_deref(), on.reason), (true, Some("on"), Some(Reason::Static)));
        assert_eq!(on.metadata.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["team"]);
        let off = client.integer_details("off", 3, ());
        assert_eq!((off.value, off.reason, off.error), (3, Some(Reason::Disabled), None));
        assert!((client.float("size", 0.0, ()) - 7.0).abs() < f64::EPSILON);
        let code = |key: &str| client.text_details(key, "", ()).error_code();
        assert_eq!(code("size"), Some(ErrorCode::TypeMismatch));
        assert_eq!(code("missing"), Some(ErrorCode::FlagNotFound));
        assert!(code("broken").is_some());
    }

    #[test]
    fn clients_hear_what_is_changed_through_it() {
        let provider = Arc::new(TogglesProvider::new(toggles()));
        let (api, told) = (isolated::api(), Arc::new(Mutex::new(Vec::new())));
        let tell = Arc::clone(&told);
        api.add_handler(Event::ConfigurationChanged, move |details| {
            tell.lock().unwrap().push(details.flags_changed.join(" "));
        });
        drop(api.set_provider(Arc::clone(&provider) as Arc<dyn Provider>).unwrap());
        let flags = vec![Flag::boolean("new"), Flag::boolean("on")];
        provider.update(Changes { flags, removed_flags: vec!["off".to_owned()], ..Changes::default() });
        assert_eq!(*told.lock().unwrap(), ["new off on"]);
        assert!(!api.client().boolean("on", true, ()));
    }

    #[test]
    fn what_is_told_before_it_is_bound_counts() {
        let provider = Arc::new(TogglesProvider::new(toggles()));
        provider.notify(Event::Stale, EventDetails::message("from yesterday"));
        let api = isolated::api();
        drop(api.set_provider(Arc::clone(&provider) as Arc<dyn Provider>).unwrap());
        assert_eq!(api.client().provider_status(), ProviderStatus::Stale);
        provider.notify(Event::Ready, EventDetails::new());
        assert_eq!(api.client().provider_status(), ProviderStatus::Ready);
    }

    #[tokio::test]
    async fn one_that_waits_is_not_ready_until_somebody_says_so() {
        let provider = Arc::new(TogglesProvider::waiting(toggles()));
        let (api, told) = (isolated::api(), Arc::new(Mutex::new(Vec::new())));
        for event in [Event::Ready, Event::Error] {
            let tell = Arc::clone(&told);
            api.add_handler(event, move |_| tell.lock().unwrap().push(event));
        }
        drop(api.set_provider(Arc::clone(&provider) as Arc<dyn Provider>).unwrap());
        assert_eq!(api.client().provider_status(), ProviderStatus::NotReady);
        let details = api.client().boolean_details("on", false, ());
        assert_eq!((details.value, details.error_code()), (false, Some(ErrorCode::ProviderNotReady)));
        assert!(told.lock().unwrap().is_empty());
        provider.notify(Event::Ready, EventDetails::new());
        assert_eq!(*told.lock().unwrap(), [Event::Ready], "once");
        assert!(api.client().boolean("on", false, ()));

        // Waiting for it ends with what is said first, or with the end of the binding.
        let provider = Arc::new(TogglesProvider::waiting(toggles()));
        let mut starting = api.set_provider(Arc::clone(&provider) as Arc<dyn Provider>).unwrap();
        assert!(starting.outcome().is_none());
        provider.notify(Event::Error, EventDetails::error(ErrorCode::General, "gone"));
        assert_eq!((&mut starting).await.unwrap_err().to_string(), "GENERAL: gone");
        let provider = Arc::new(TogglesProvider::waiting(toggles()));
        let starting = api.set_provider(provider).unwrap();
        api.shutdown();
        assert_eq!(starting.await.unwrap_err().code, ErrorCode::ProviderNotReady);
        assert_eq!(api.client().provider_status(), ProviderStatus::NotReady);
    }

    #[test]
    fn what_handlers_tell_in_turn_is_told_after_what_they_were_told() {
        let provider = Arc::new(TogglesProvider::new(toggles()));
        let (api, told) = (isolated::api(), Arc::new(Mutex::new(Vec::new())));
        drop(api.set_provider(Arc::clone(&provider) as Arc<dyn Provider>).unwrap());
        let again = Arc::clone(&provider);
        api.add_handler(Event::Stale, move |_| again.notify(Event::Ready, EventDetails::message("back")));
        for event in [Event::Stale, Event::Ready] {
            let tell = Arc::clone(&told);
            api.add_handler(event, move |details| {
                tell.lock().unwrap().push((event, details.message.clone()));
            });
        }
        told.lock().unwrap().clear();
        provider.notify(Event::Stale, EventDetails::new());
        assert_eq!(*told.lock().unwrap(), [(Event::Stale, None), (Event::Ready, Some("back".into()))]);
        assert_eq!(api.client().provider_status(), ProviderStatus::Ready);
    }
}
