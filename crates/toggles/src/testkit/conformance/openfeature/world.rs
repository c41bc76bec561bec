//! One case at work: what each step does. A step that is not known makes its case fail.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    super::gherkin::{Step, matched},
    cast::{Cached, Call, Spy, Starts},
    checks::unquoted,
};
use crate::{
    client::{
        Api, Client, Details, EvaluationContext, Field, FlagType, Hook, Initialization, Options,
        ThreadPropagator, isolated,
    },
    provider::{Memory, Provider},
    value::Value,
};

/// A flag to be asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) kind: String,
    pub(super) key: String,
    pub(super) default: String,
}

/// One case at work.
pub(super) struct World {
    pub(super) memory: Memory,
    pub(super) api: Api,
    pub(super) client: Client,
    pub(super) provider: Option<Arc<Cached>>,
    /// Kept so that a provider that is not ready stays so.
    pub(super) starting: Option<Initialization>,
    pub(super) asked: Option<Asked>,
    pub(super) contexts: BTreeMap<String, EvaluationContext>,
    pub(super) levels: Vec<String>,
    pub(super) calls: Arc<Mutex<Vec<Call>>>,
    pub(super) hooks: Vec<&'static str>,
    pub(super) details: Option<Details<Value>>,
    pub(super) original: Option<EvaluationContext>,
    pub(super) at_first_poll: Option<bool>,
}

pub(super) type Outcome = Result<(), String>;

pub(super) fn same(what: &str, expected: &str, got: &str) -> Outcome {
    if expected == got { Ok(()) } else { Err(format!("{what} is `{got}`, not `{expected}`")) }
}

impl World {
    pub(super) fn new(memory: &Memory) -> Self {
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

    pub(super) fn step(&mut self, step: &Step) -> Outcome {
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
