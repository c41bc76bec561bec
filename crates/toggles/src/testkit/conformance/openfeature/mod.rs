//! OpenFeature's own cases: the Gherkin features of the specification, run against the [client](crate::client).
//!
//! The steps are defined for whatever the features say, not for the cases at hand. A step that is not known makes its case fail, not pass.

mod expression;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use flowline_core::error::BoxError;

use self::expression::Expression;
use super::{
    Report,
    gherkin::{self, Step, matched},
    read_json,
};
use crate::{
    client::{
        Api, Client, Details, ErrorCode, EvaluationContext, EvaluationError, Event, EventDetails, Field,
        FlagMetadata, FlagType, Hook, HookContext, HookHints, Initialization, MetadataValue, Options, Reason,
        Stages, ThreadPropagator, isolated,
    },
    provider::{LifeCycle, Memory, MemoryFlag, Provider, ProviderMetadata, Resolved, Start},
    value::Value,
};

/// Runs the features in `openfeature/gherkin` below `directory`; `None`: there is no such folder.
pub fn openfeature(directory: &Path) -> Option<Report> {
    let folder = directory.join("openfeature/gherkin");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "feature"))
        .collect();
    files.sort_unstable();
    let mut report = Report::default();
    let memory = match read_json(&folder.join("test-flags.json")).and_then(|flags| memory(&flags)) {
        Ok(memory) => memory,
        Err(problem) => {
            report.fail("test-flags.json", "a flag set", problem);
            return Some(report);
        }
    };
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read = fs::read_to_string(&file).map_err(|error| error.to_string());
        let cases = match read.and_then(|text| gherkin::read(&text)) {
            Ok(cases) => cases,
            Err(problem) => {
                report.fail(name, "a feature", problem);
                continue;
            }
        };
        for case in cases {
            let name = format!("{name}: {}", case.name);
            if case.tags.iter().any(|tag| tag.starts_with("@static-context")) {
                report.skip(name, "static-context paradigm only");
                continue;
            }
            let mut world = World::new(&memory);
            let outcome = case
                .steps
                .iter()
                .try_for_each(|step| world.step(step).map_err(|problem| (step.text.clone(), problem)));
            ThreadPropagator::clear();
            match outcome {
                Ok(()) => report.passed += 1,
                Err((step, problem)) => report.fail(name, step, problem),
            }
        }
    }
    Some(report)
}

/// The suite's flag set, served from memory.
fn memory(flags: &serde_json::Value) -> Result<Memory, String> {
    let flags = flags.as_object().ok_or("it is no object")?;
    let mut memory = Memory::new();
    for (key, flag) in flags {
        let mut made = MemoryFlag::new();
        for (name, value) in flag["variants"].as_object().into_iter().flatten() {
            made = made.variant(name, value);
        }
        if let Some(name) = flag["defaultVariant"].as_str() {
            made = made.default_variant(name);
        }
        if flag["disabled"] == true {
            made = made.disabled();
        }
        let metadata = Value::from(&flag["flagMetadata"]);
        if let Some(entries) = metadata.as_object() {
            let entries = entries.iter().map(|(name, value)| (&**name, value));
            made = made.metadata(FlagMetadata::of_values(entries));
        }
        if let Some(text) = flag["contextEvaluator"].as_str() {
            let expression = Expression::parse(text).map_err(|problem| format!("flag `{key}`: {problem}"))?;
            made = made.targeted(move |context| expression.evaluate(context).as_str().map(str::to_owned));
        }
        memory = memory.flag(key, made);
    }
    Ok(memory)
}

/// How the provider of a case starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    Ready,
    NotReady,
    Error,
    Fatal,
    Stale,
}

/// Serves the flag set, remembers the context, and answers from a cache what it has answered before.
#[derive(Debug)]
struct Cached {
    memory: Memory,
    starts: Starts,
    seen: Mutex<BTreeSet<(&'static str, String)>>,
    context: Mutex<EvaluationContext>,
}

impl Cached {
    fn answer<T>(
        &self,
        kind: &'static str,
        key: &str,
        context: &EvaluationContext,
        answer: Resolved<T>,
    ) -> Resolved<T> {
        context.clone_into(&mut self.context.lock().unwrap_or_else(PoisonError::into_inner));
        let mut answer = answer?;
        // Only what does not depend on the context may come from a cache that is keyed by flag.
        if answer.reason == Some(Reason::Static) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if !seen.insert((kind, key.to_owned())) {
                answer.reason = Some(Reason::Cached);
            }
        }
        Ok(answer)
    }
}

impl Provider for Cached {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new("the suite's provider")
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.answer("bool", key, context, self.memory.resolve_bool(key, default, context))
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.answer("text", key, context, self.memory.resolve_text(key, default, context))
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.answer("integer", key, context, self.memory.resolve_integer(key, default, context))
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.answer("float", key, context, self.memory.resolve_float(key, default, context))
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.answer("structure", key, context, self.memory.resolve_structure(key, default, context))
    }

    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        Some(self)
    }
}

#[async_trait]
impl LifeCycle for Cached {
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError> {
        let code = match self.starts {
            Starts::NotReady => std::future::pending().await,
            Starts::Ready | Starts::Stale => {
                start.events.emit(Event::Ready, EventDetails::new());
                if self.starts == Starts::Stale {
                    start.events.emit(Event::Stale, EventDetails::new());
                }
                return Ok(());
            }
            Starts::Error => ErrorCode::General,
            Starts::Fatal => ErrorCode::ProviderFatal,
        };
        start.events.emit(Event::Error, EventDetails::error(code, "as the case wants it"));
        Err(EvaluationError::new(code, "as the case wants it"))
    }

    fn shutdown(&self) {}
}

/// A hook that writes down its stages and what it was told; or adds a context before.
struct Spy {
    name: &'static str,
    calls: Arc<Mutex<Vec<Call>>>,
    adds: EvaluationContext,
}

/// One call of a [`Spy`].
struct Call {
    hook: &'static str,
    stage: &'static str,
    details: Option<Details<Value>>,
}

impl Spy {
    fn note(&self, stage: &'static str, details: Option<&Details<Value>>) {
        let call = Call { hook: self.name, stage, details: details.cloned() };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl Hook for Spy {
    fn stages(&self) -> Stages {
        Stages::ALL
    }

    fn before(&self, _: &mut HookContext<'_>, _: &HookHints) -> Result<Option<EvaluationContext>, BoxError> {
        self.note("before", None);
        Ok(Some(self.adds.clone()))
    }

    fn after(
        &self,
        _: &mut HookContext<'_>,
        details: &Details<Value>,
        _: &HookHints,
    ) -> Result<(), BoxError> {
        self.note("after", Some(details));
        Ok(())
    }

    fn error(&self, _: &mut HookContext<'_>, _: &EvaluationError, _: &HookHints) -> Result<(), BoxError> {
        self.note("error", None);
        Ok(())
    }

    fn finally(
        &self,
        _: &mut HookContext<'_>,
        details: &Details<Value>,
        _: &HookHints,
    ) -> Result<(), BoxError> {
        self.note("finally", Some(details));
        Ok(())
    }
}

/// A flag to be asked for.
#[derive(Debug, Clone)]
struct Asked {
    kind: String,
    key: String,
    default: String,
}

/// One case at work.
struct World {
    memory: Memory,
    api: Api,
    client: Client,
    provider: Option<Arc<Cached>>,
    /// Kept so that a provider that is not ready stays so.
    starting: Option<Initialization>,
    asked: Option<Asked>,
    contexts: BTreeMap<String, EvaluationContext>,
    levels: Vec<String>,
    calls: Arc<Mutex<Vec<Call>>>,
    hooks: Vec<&'static str>,
    details: Option<Details<Value>>,
    original: Option<EvaluationContext>,
    at_first_poll: Option<bool>,
}

type Outcome = Result<(), String>;

fn same(what: &str, expected: &str, got: &str) -> Outcome {
    if expected == got { Ok(()) } else { Err(format!("{what} is `{got}`, not `{expected}`")) }
}

impl World {
    fn new(memory: &Memory) -> Self {
        let api = isolated::api();
        api.set_transaction_propagator(Arc::new(ThreadPropagator));
        Self {
            memory: memory.clone(),
            client: api.client(),
            api,
            provider: None,
            starting: None,
            asked: None,
            contexts: BTreeMap::new(),
            levels: Vec::new(),
            calls: Arc::default(),
            hooks: Vec::new(),
            details: None,
            original: None,
            at_first_poll: None,
        }
    }

    fn step(&mut self, step: &Step) -> Outcome {
        let text = step.text.as_str();
        let gaps = |pattern: &str| {
            matched(pattern, text).map(|gaps| gaps.iter().map(|gap| unescaped(gap)).collect::<Vec<_>>())
        };
        macro_rules! when {
            ($($pattern:literal, [$($gap:ident),*] => $run:expr;)*) => {
                $(if let Some(gaps) = gaps($pattern) && let [$($gap),*] = &gaps[..] {
                    return $run;
                })*
            };
        }
        when! {
            // Providers.
            "a stable provider with retrievable context is registered", [] => self.bind(Starts::Ready);
            "a provider is registered{}", [_options] => self.bind(Starts::Ready);
            "a {} provider", [status] => self.bind_as(status);
            "the provider status should be \"{}\"", [status] =>
                same("the status", status, self.client.provider_status().as_str());
            // Flags.
            "a non-existent {} flag with key \"{}\" is evaluated with details and a default value \"{}\"", [kind, key, default] =>
                self.ask_and_evaluate(kind, key, default);
            "a {} flag with key \"{}\" is evaluated as an integer, with details and a default value {}", [_kind, key, default] =>
                self.ask_and_evaluate("integer", key, default);
            "{} flag with key \"{}\" is evaluated with details and a null default value", [kind, key] =>
                self.ask_and_evaluate(kind, key, "null");
            "{} flag with key \"{}\" is evaluated with a null default value", [kind, key] =>
                self.ask_and_evaluate(kind, key, "null");
            "{} flag with key \"{}\" is evaluated with details and default value {}", [kind, key, default] =>
                self.ask_and_evaluate(kind, key, default);
            "a flag with key \"{}\" is evaluated with default value {}", [key, default] =>
                self.ask_and_evaluate("string", key, default);
            "{} flag with key \"{}\" is evaluated with default value {}", [kind, key, default] =>
                self.ask_and_evaluate(kind, key, default);
            "a {}-flag with key \"{}\" and a fallback value \"{}\"", [kind, key, default] => self.ask(kind, key, default);
            "a {}-flag with key \"{}\" and a default value \"{}\"", [kind, key, default] => self.ask(kind, key, default);
            "the flag was evaluated with details", [] => self.evaluate();
            "the flag was evaluated with details using the evaluation options", [] => self.evaluate();
            "the flag was evaluated with details asynchronously", [] => self.evaluate_in_a_task();
            "Some flag was evaluated", [] => self.ask_and_evaluate("Boolean", "boolean-flag", "false");
            // Contexts.
            "A context entry with key \"{}\" and value \"{}\" is added to the \"{}\" level", [key, value, level] =>
                self.add(level, key, value.as_str());
            "A table with levels of increasing precedence", [] => {
                self.levels = step.table.iter().filter_map(|row| row.first().cloned()).collect();
                Ok(())
            };
            "Context entries for each level from API level down to the \"{}\" level, with key \"{}\" and value \"{}\"", [last, key, value] =>
                self.add_down_to(last, key, value);
            "The merged context contains an entry with key \"{}\" and value \"{}\"", [key, value] => self.merged_has(key, value);
            "a context containing a key \"{}\", with type \"{}\" and with value \"{}\"", [key, kind, value] =>
                field(kind, value).and_then(|field| self.add("Invocation", key, field));
            "a context containing a key \"{}\" with null value", [key] => self.add("Invocation", key, Field::Null);
            "a context containing a nested property with outer key \"{}\" and inner key \"{}\", with value \"{}\"", [outer, inner, value] =>
                self.add("Invocation", outer, Field::structure([(inner.as_str(), value.as_str())]));
            "a context containing a targeting key with value \"{}\"", [key] => self.add("Invocation", "targetingKey", key.as_str());
            "context contains keys {} with values {}", [keys, values] => self.add_all(keys, values);
            "an evaluation context with modifiable data", [] => {
                self.add("Invocation", "role", "admin")?;
                self.add("Invocation", "nested", Field::structure([("a", 1)]))?;
                self.original = self.contexts.get("Invocation").cloned();
                Ok(())
            };
            "the original evaluation context should remain unmodified", [] => self.context_is_as_it_was();
            // Results.
            "the resolved details value should be \"{}\"", [value] => self.value_is(value);
            "the resolved {} details value should be {}, the variant should be \"{}\", and the reason should be \"{}\"", [_kind, value, variant, reason] => {
                self.value_is(unquoted(value))?;
                self.variant_is(variant)?;
                self.reason_is(reason)
            };
            "the resolved object {}should be contain fields \"{}\", \"{}\", and \"{}\", with values \"{}\", \"{}\" and {}, respectively", [_what, a, b, c, x, y, z] =>
                [(a, x), (b, y), (c, z)].into_iter().try_for_each(|(field, value)| self.field_is(field, value));
            "the resolved string response should be \"{}\"", [value] => self.value_is(value);
            "the resolved flag value is \"{}\" when the context is empty", [value] => {
                self.contexts.clear();
                self.evaluate()?;
                self.value_is(value)
            };
            "the resolved {} value should be {}", [_kind, value] => self.value_is(unquoted(value));
            "the default {} value should be returned", [_kind] => {
                let default = self.asked()?.default.clone();
                self.value_is(&default)
            };
            "the reason should indicate an error and the error code should indicate {} with \"{}\"", [_what, code] => {
                self.reason_is("ERROR")?;
                self.code_is(code)
            };
            "the variant should be \"{}\", and the reason should be \"{}\"", [variant, reason] => {
                self.variant_is(variant)?;
                self.reason_is(reason)
            };
            "the variant should be \"{}\"", [variant] => self.variant_is(variant);
            "the reason should be \"{}\"", [reason] => self.reason_is(reason);
            "the error-code should be \"{}\"", [code] => self.code_is(code);
            "the error message should contain \"{}\"", [part] => {
                let message = self.details()?.error_message().unwrap_or_default();
                if message.contains(part.as_str()) { Ok(()) } else { Err(format!("the message is `{message}`")) }
            };
            "the flag key should be \"{}\"", [key] => same("the key", key, &self.details()?.key);
            "the resolved metadata is empty", [] => same("metadata", "{}", &format!("{:?}", self.details()?.metadata));
            "the resolved metadata should contain", [] => self.metadata_has(&step.table);
            "the evaluation details should be immutable", [] => self.details_are_values();
            "the evaluation should complete without blocking", [] =>
                same("done at the first poll", "Some(true)", &format!("{:?}", self.at_first_poll));
            // Hooks.
            "evaluation options containing specific hooks", [] => {
                self.hooks = vec!["first", "second"];
                Ok(())
            };
            "a client with added hook", [] => {
                let hook = self.spy("client", EvaluationContext::EMPTY);
                self.client.add_hooks([hook]);
                Ok(())
            };
            "the specified hooks should execute during evaluation", [] => {
                let ran = self.stages_of("first") && self.stages_of("second");
                if ran { Ok(()) } else { Err("not all of them ran".to_owned()) }
            };
            "the hook order should be maintained", [] => self.hooks_in_order();
            "the \"{}\" hook should have been executed", [stage] => {
                let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
                if calls.iter().any(|call| call.stage == stage) { Ok(()) } else { Err("it was not".to_owned()) }
            };
            "the \"{}\" hooks should be called with evaluation details", [stages] => self.hooks_heard(stages, &step.table);
        }
        Err("this step is not known".to_owned())
    }

    fn bind_as(&mut self, status: &str) -> Outcome {
        self.bind(match status {
            "stable" | "ready" => Starts::Ready,
            "not ready" => Starts::NotReady,
            "error" => Starts::Error,
            "fatal" => Starts::Fatal,
            "stale" => Starts::Stale,
            other => return Err(format!("no provider is {other}")),
        })
    }

    fn bind(&mut self, starts: Starts) -> Outcome {
        let provider = Arc::new(Cached {
            memory: self.memory.clone(),
            starts,
            seen: Mutex::default(),
            context: Mutex::default(),
        });
        let bound = self.api.set_provider(Arc::clone(&provider) as Arc<dyn Provider>);
        self.starting = Some(bound.map_err(|error| error.to_string())?);
        self.provider = Some(provider);
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is a step")]
    fn ask(&mut self, kind: &str, key: &str, default: &str) -> Outcome {
        let kind = kind.trim_start_matches("an ").trim_start_matches("a ").to_lowercase();
        self.asked = Some(Asked { kind, key: key.to_owned(), default: unquoted(default).to_owned() });
        Ok(())
    }

    fn ask_and_evaluate(&mut self, kind: &str, key: &str, default: &str) -> Outcome {
        self.ask(kind, key, default)?;
        self.evaluate()
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is a step")]
    fn add(&mut self, level: &str, key: &str, value: impl Into<Field>) -> Outcome {
        let context = self.contexts.remove(level).unwrap_or_default();
        self.contexts.insert(level.to_owned(), context.with(key, value));
        Ok(())
    }

    /// Each level gets its own name as the value, the last one the given value.
    fn add_down_to(&mut self, last: &str, key: &str, value: &str) -> Outcome {
        for level in self.levels.clone() {
            if level == last {
                return self.add(&level, key, value);
            }
            self.add(&level, key, level.as_str())?;
        }
        Err(format!("there is no level {last}"))
    }

    fn add_all(&mut self, keys: &str, values: &str) -> Outcome {
        for (key, value) in keys.split(", ").zip(values.split(", ")) {
            let field: Field = match unquoted(value) {
                "true" => true.into(),
                "false" => false.into(),
                text if text == value => text.parse::<i64>().map_err(|error| error.to_string())?.into(),
                text => text.into(),
            };
            self.add("Invocation", unquoted(key), field)?;
        }
        Ok(())
    }

    fn level(&self, level: &str) -> EvaluationContext {
        self.contexts.get(level).cloned().unwrap_or_default()
    }

    fn spy(&self, name: &'static str, adds: EvaluationContext) -> Arc<dyn Hook> {
        Arc::new(Spy { name, calls: Arc::clone(&self.calls), adds })
    }

    fn evaluate(&mut self) -> Outcome {
        let Asked { kind, key, default } = self.asked()?.clone();
        self.api.set_context(self.level("API"));
        self.api.set_transaction_context(self.level("Transaction"));
        self.client.set_context(self.level("Client"));
        let mut options = Options::new().context(self.level("Invocation"));
        for hook in &self.hooks {
            options = options.hook(self.spy(hook, EvaluationContext::EMPTY));
        }
        if self.contexts.contains_key("Before Hooks") {
            options = options.hook(self.spy("before", self.level("Before Hooks")));
        }
        let wrong = |what: &str| format!("`{default}` is no {what}");
        self.details = Some(match kind.as_str() {
            "boolean" => {
                let default = default.parse::<bool>().map_err(|_| wrong("bool"))?;
                described(self.client.boolean_details(&key, default, &options))
            }
            "string" => described(self.client.text_details(&key, &default, &options)),
            "integer" => {
                let default = default.parse::<i64>().map_err(|_| wrong("integer"))?;
                described(self.client.integer_details(&key, default, &options))
            }
            "float" => {
                let default = default.parse::<f64>().map_err(|_| wrong("float"))?;
                described(self.client.float_details(&key, default, &options))
            }
            "object" => {
                let default = serde_json::from_str::<Value>(&default).map_err(|_| wrong("JSON"))?;
                described(self.client.structure_details(&key, default, &options))
            }
            other => return Err(format!("there are no flags of type {other}")),
        });
        Ok(())
    }

    fn evaluate_in_a_task(&mut self) -> Outcome {
        let polled = {
            let mut task = Box::pin(async { self.evaluate() });
            task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        self.at_first_poll = Some(polled.is_ready());
        match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }

    fn asked(&self) -> Result<&Asked, String> {
        self.asked.as_ref().ok_or_else(|| "no flag was named".to_owned())
    }

    fn details(&self) -> Result<&Details<Value>, String> {
        self.details.as_ref().ok_or_else(|| "no flag was evaluated".to_owned())
    }

    fn value_is(&self, expected: &str) -> Outcome {
        let value = &self.details()?.value;
        let expected = if self.asked()?.kind == "string" {
            Value::from(expected)
        } else {
            serde_json::from_str::<Value>(expected).map_err(|error| format!("`{expected}`: {error}"))?
        };
        if *value == expected { Ok(()) } else { Err(format!("the value is `{value}`, not `{expected}`")) }
    }

    fn field_is(&self, name: &str, expected: &str) -> Outcome {
        let value = self.details()?.value.get(name).cloned().unwrap_or_default();
        same(name, unquoted(expected), &value.scalar_text().unwrap_or_default())
    }

    fn variant_is(&self, expected: &str) -> Outcome {
        same("the variant", expected, self.details()?.variant.as_deref().unwrap_or("null"))
    }

    fn reason_is(&self, expected: &str) -> Outcome {
        same("the reason", expected, self.details()?.reason.as_ref().map_or("null", Reason::as_str))
    }

    fn code_is(&self, expected: &str) -> Outcome {
        same("the error code", expected, self.details()?.error_code().map_or("", ErrorCode::as_str))
    }

    fn merged_has(&self, key: &str, value: &str) -> Outcome {
        let provider = self.provider.as_ref().ok_or("no provider is bound")?;
        let context = provider.context.lock().unwrap_or_else(PoisonError::into_inner);
        same(key, value, context.get(key).and_then(Field::as_text).unwrap_or("not there"))
    }

    fn context_is_as_it_was(&self) -> Outcome {
        let now = self.contexts.get("Invocation").cloned();
        if now.is_some() && now == self.original { Ok(()) } else { Err(format!("it is {now:?}")) }
    }

    /// Details are owned values: what one holder does to its copy, no other holder sees.
    fn details_are_values(&self) -> Outcome {
        let details = self.details()?;
        let mut copy = details.clone();
        copy.metadata = FlagMetadata::from_iter([("more", true)]);
        copy.value = Value::Null;
        if details.metadata == copy.metadata || details.value.is_null() {
            return Err("a copy shares what it changes".to_owned());
        }
        Ok(())
    }

    fn metadata_has(&self, table: &[Vec<String>]) -> Outcome {
        let metadata = &self.details()?.metadata;
        for row in table.iter().skip(1) {
            let [key, kind, value] = &row[..] else { return Err(format!("{row:?} is no row")) };
            let (found, text) = match metadata.get(key) {
                Some(MetadataValue::Bool(yes)) => ("Boolean", yes.to_string()),
                Some(MetadataValue::Integer(number)) => ("Integer", number.to_string()),
                Some(MetadataValue::Float(number)) => ("Float", number.to_string()),
                Some(MetadataValue::Text(text)) => ("String", text.to_string()),
                _ => return Err(format!("there is no {key}")),
            };
            same(&format!("the type of {key}"), kind, found)?;
            same(key, value, &text)?;
        }
        Ok(())
    }

    fn stages_of(&self, hook: &str) -> bool {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let stages: Vec<_> = calls.iter().filter(|call| call.hook == hook).map(|call| call.stage).collect();
        stages == ["before", "after", "finally"]
    }

    /// Before in the order of adding, everything later in reverse.
    fn hooks_in_order(&self) -> Outcome {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        for (stage, reversed) in [("before", false), ("after", true), ("finally", true)] {
            let mut order: Vec<_> =
                calls.iter().filter(|call| call.stage == stage).map(|call| call.hook).collect();
            if reversed {
                order.reverse();
            }
            if order != self.hooks {
                return Err(format!("{stage} ran in the order {order:?}"));
            }
        }
        Ok(())
    }

    fn hooks_heard(&self, stages: &str, table: &[Vec<String>]) -> Outcome {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in stages.split(',').map(str::trim) {
            let heard = calls.iter().find(|call| call.stage == stage).and_then(|call| call.details.as_ref());
            let details = heard.ok_or_else(|| format!("{stage} heard nothing"))?;
            for row in table.iter().skip(1) {
                let [_, key, value] = &row[..] else { return Err(format!("{row:?} is no row")) };
                let text = match key.as_str() {
                    "flag_key" => details.key.to_string(),
                    "value" => {
                        details.value.scalar_text().map_or_else(|| details.value.to_string(), String::from)
                    }
                    "variant" => details.variant.as_deref().unwrap_or("null").to_owned(),
                    "reason" => details.reason.as_ref().map_or("null", Reason::as_str).to_owned(),
                    "error_code" => details.error_code().map_or("null", ErrorCode::as_str).to_owned(),
                    other => return Err(format!("details have no {other}")),
                };
                same(&format!("{key} in {stage}"), value, &text)?;
            }
        }
        Ok(())
    }
}

fn described<T: FlagType>(details: Details<T>) -> Details<Value> {
    let Details { key, value, variant, reason, error, metadata } = details;
    Details { key, value: value.to_value(), variant, reason, error, metadata }
}

fn field(kind: &str, value: &str) -> Result<Field, String> {
    let wrong = || format!("`{value}` is no {kind}");
    Ok(match kind {
        "String" => value.into(),
        "Boolean" => value.parse::<bool>().map_err(|_| wrong())?.into(),
        "Integer" => value.parse::<i64>().map_err(|_| wrong())?.into(),
        "Float" | "Double" => value.parse::<f64>().map_err(|_| wrong())?.into(),
        "Object" => Field::from(&serde_json::from_str::<Value>(value).map_err(|_| wrong())?),
        other => return Err(format!("contexts have no fields of type {other}")),
    })
}

fn unescaped(text: &str) -> String {
    text.replace("\\\"", "\"")
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Resolution;

    #[test]
    fn every_visible_case_passes() {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let Some(report) =
            folders.map(|folder| folder.join("shared/conformance")).find_map(|path| openfeature(&path))
        else {
            return;
        };
        assert_eq!(report.failed, []);
        assert_eq!(report.skipped, []);
        assert_eq!(report.passed, 87);
    }

    #[test]
    fn a_case_fails_when_the_client_does_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let gherkin = folder.path().join("openfeature/gherkin");
        fs::create_dir_all(&gherkin).unwrap();
        fs::write(
            gherkin.join("test-flags.json"),
            r#"{"f": {"variants": {"on": true}, "defaultVariant": "on"}}"#,
        )
        .unwrap();
        let text = "Feature: x\n  Background:\n    Given a stable provider\n  Scenario: wrong\n    Given a Boolean-flag with key \"f\" and a fallback value \"false\"\n    When the flag was evaluated with details\n    Then the resolved details value should be \"false\"\n  Scenario: unknown\n    Given a moon\n  Scenario: right\n    Given a Boolean-flag with key \"f\" and a fallback value \"false\"\n    When the flag was evaluated with details\n    Then the variant should be \"on\"\n";
        fs::write(gherkin.join("x.feature"), text).unwrap();
        let report = openfeature(folder.path()).unwrap();
        assert_eq!(report.passed, 1);
        let failed: Vec<_> =
            report.failed.iter().map(|failed| format!("{} {}", failed.name, failed.got)).collect();
        assert_eq!(
            failed,
            ["x: wrong the value is `true`, not `false`", "x: unknown this step is not known"]
        );
    }

    #[test]
    fn a_resolution_from_the_cache_says_so() {
        let answer = Resolution::new(true).because(Reason::Static);
        let cached = Cached {
            memory: Memory::new(),
            starts: Starts::Ready,
            seen: Mutex::default(),
            context: Mutex::default(),
        };
        let ask =
            || cached.answer("bool", "f", &EvaluationContext::EMPTY, Ok(answer.clone())).unwrap().reason;
        assert_eq!((ask(), ask()), (Some(Reason::Static), Some(Reason::Cached)));
    }
}
