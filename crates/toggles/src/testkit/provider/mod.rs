//! Checks what [`Provider`] and its [`LifeCycle`] promise.
//!
//! The subject serves these flags to everybody:
//!
//! | key | value |
//! | --- | --- |
//! | `yes` | `true` |
//! | `text` | `"hello"` |
//! | `whole` | 7 |
//! | `half` | 0.5 |
//! | `shape` | `{"a": 1}` |
//! | `dark` | a bool that is switched off |
//!
//! ```
//! # use std::sync::Arc;
//! use flowline_toggles::{Value, provider::{Memory, MemoryFlag, Provider}, testkit::provider};
//! let flag = |value: Value| MemoryFlag::new().variant("it", value).default_variant("it");
//! let memory = Memory::new()
//!     .flag("yes", flag(true.into()))
//!     .flag("text", flag("hello".into()))
//!     .flag("whole", flag(7.into()))
//!     .flag("half", flag(0.5.into()))
//!     .flag("shape", flag(Value::object([("a", Value::from(1))])))
//!     .flag("dark", flag(true.into()).disabled());
//! # flowline_core::testkit::block_on(async {
//! provider::check(|| Arc::new(memory.clone()) as Arc<dyn Provider>).await.verdict()
//! # }).unwrap();
//! ```

#[cfg(test)]
mod flaws;

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use super::{Came, Not, Report, broken, same};
use crate::{
    client::{
        Api, ErrorCode, EvaluationContext, EvaluationError, Event, ProviderStatus, Reason, TrackingDetails,
        isolated,
    },
    provider::{LifeCycle, Provider, Resolved},
    value::Value,
};

pub(super) const VALUES: &str = "a flag is its value, of each type, with a reason";
pub(super) const UNKNOWN: &str = "a flag that is not there is FLAG_NOT_FOUND, of each type";
pub(super) const TYPES: &str = "a flag of another type is TYPE_MISMATCH";
pub(super) const NUMBERS: &str = "a whole number is fine as a float, and a fraction is no whole number";
pub(super) const DISABLED: &str =
    "a flag that is switched off is the default with the reason DISABLED and without error";
pub(super) const HOSTILE: &str =
    "whatever the key and the context, there is an answer or an error and no panic";
pub(super) const THREADS: &str = "many threads at once get the same answers";
pub(super) const NAME: &str = "its name is there and stays the same";
pub(super) const READY: &str = "once started it is ready, which it tells once and nothing else";
pub(super) const AGAIN: &str = "after a shutdown it can start again and answers as before";
pub(super) const TWICE: &str = "shutting down twice, and before any start, does no harm";

/// Checks all sentences, each on a provider of its own that `open` makes.
pub async fn check(open: impl Fn() -> Arc<dyn Provider>) -> Report {
    let mut report = Report::new("provider");
    for (sentence, case) in [
        (VALUES, values as fn(&dyn Provider) -> Came),
        (UNKNOWN, unknown),
        (TYPES, types),
        (NUMBERS, numbers),
        (DISABLED, disabled),
        (HOSTILE, hostile),
        (THREADS, threads),
        (NAME, name),
    ] {
        let provider = open();
        let (api, started) = bound(&provider).await;
        report.note(sentence, started.and_then(|()| case(&*provider)));
        api.shutdown();
    }
    report.note(READY, ready(open()).await);
    report.note(AGAIN, again(open()).await);
    report.note(TWICE, twice(open()).await);
    report
}

async fn bound(provider: &Arc<dyn Provider>) -> (Api, Came) {
    let api = isolated::api();
    let started = api.set_provider_and_wait(Arc::clone(provider)).await;
    let came = started.map_err(|error| Not::Held(format!("it does not start: {error}")));
    (api, came)
}

const NOBODY: EvaluationContext = EvaluationContext::EMPTY;

fn answers<T: PartialEq + Debug>(what: &str, found: Resolved<T>, expected: &T) -> Came {
    match found {
        Ok(resolution) if resolution.reason.is_none() => broken(format!("{what}: it gives no reason")),
        Ok(resolution) => same(what, &resolution.value, expected),
        Err(error) => broken(format!("{what}: {error}")),
    }
}

fn fails<T: Debug>(what: &str, found: Resolved<T>, expected: ErrorCode) -> Came {
    match found {
        Err(EvaluationError { code, .. }) => same(what, &code, &expected),
        Ok(resolution) => broken(format!("{what}: found {:?}, expected {expected:?}", resolution.value)),
    }
}

fn shape() -> Value {
    Value::object([("a", Value::from(1))])
}

fn values(provider: &dyn Provider) -> Came {
    answers("`yes`", provider.resolve_bool("yes", false, &NOBODY), &true)?;
    answers("`text`", provider.resolve_text("text", "", &NOBODY), &"hello".to_owned())?;
    answers("`whole`", provider.resolve_integer("whole", 0, &NOBODY), &7)?;
    answers("`half`", provider.resolve_float("half", 0.0, &NOBODY), &0.5)?;
    answers("`shape`", provider.resolve_structure("shape", &Value::Null, &NOBODY), &shape())
}

fn unknown(provider: &dyn Provider) -> Came {
    let code = ErrorCode::FlagNotFound;
    fails("as a bool", provider.resolve_bool("nowhere", true, &NOBODY), code)?;
    fails("as a text", provider.resolve_text("nowhere", "x", &NOBODY), code)?;
    fails("as a whole number", provider.resolve_integer("nowhere", 1, &NOBODY), code)?;
    fails("as a float", provider.resolve_float("nowhere", 1.0, &NOBODY), code)?;
    fails("as a structure", provider.resolve_structure("nowhere", &shape(), &NOBODY), code)
}

fn types(provider: &dyn Provider) -> Came {
    let code = ErrorCode::TypeMismatch;
    for key in ["text", "whole", "half", "shape"] {
        fails(&format!("`{key}` as a bool"), provider.resolve_bool(key, true, &NOBODY), code)?;
    }
    for key in ["yes", "whole", "half", "shape"] {
        fails(&format!("`{key}` as a text"), provider.resolve_text(key, "x", &NOBODY), code)?;
    }
    for key in ["yes", "text", "shape"] {
        fails(&format!("`{key}` as a whole number"), provider.resolve_integer(key, 1, &NOBODY), code)?;
        fails(&format!("`{key}` as a float"), provider.resolve_float(key, 1.0, &NOBODY), code)?;
    }
    for key in ["yes", "text", "whole", "half"] {
        let found = provider.resolve_structure(key, &Value::Null, &NOBODY);
        fails(&format!("`{key}` as a structure"), found, code)?;
    }
    Ok(())
}

fn numbers(provider: &dyn Provider) -> Came {
    answers("`whole` as a float", provider.resolve_float("whole", 0.0, &NOBODY), &7.0)?;
    let found = provider.resolve_integer("half", 1, &NOBODY);
    fails("`half` as a whole number", found, ErrorCode::TypeMismatch)
}

fn disabled(provider: &dyn Provider) -> Came {
    for default in [true, false] {
        match provider.resolve_bool("dark", default, &NOBODY) {
            Ok(resolution) => {
                same("the value", &resolution.value, &default)?;
                same("the reason", &resolution.reason, &Some(Reason::Disabled))?;
            }
            Err(error) => return broken(error.to_string()),
        }
    }
    Ok(())
}

fn hostile(provider: &dyn Provider) -> Came {
    let long = "x".repeat(100_000);
    let keys = ["", " ", "\0", "yes\0", "ünïcödé", "../../etc/passwd", "a\nb", "%s%n", "$ref", long.as_str()];
    let deep = (0..64).fold(crate::client::Field::from(1), |field, _| crate::client::Field::list([field]));
    let contexts = [
        NOBODY,
        EvaluationContext::targeting(""),
        EvaluationContext::targeting(long.as_str()).with("", long.as_str()).with("n", f64::NAN),
        EvaluationContext::targeting("u").with("deep", deep).with("targetingKey", 7).with("i", f64::INFINITY),
    ];
    for context in &contexts {
        for key in keys.into_iter().chain(["yes", "text"]) {
            let asked = catch_unwind(AssertUnwindSafe(|| {
                let _any = provider.resolve_bool(key, false, context);
                let _any = provider.resolve_structure(key, &Value::Null, context);
                provider.track(key, context, &TrackingDetails::default());
            }));
            if asked.is_err() {
                let key: String = key.chars().take(20).collect();
                return broken(format!("it panics at the key {key:?}"));
            }
        }
    }
    answers("`yes` after that", provider.resolve_bool("yes", false, &NOBODY), &true)
}

fn threads(provider: &dyn Provider) -> Came {
    let rounds = |user: usize| {
        let context = EvaluationContext::targeting(format!("user-{user}"));
        (0..200).try_for_each(|_| {
            answers("`yes`", provider.resolve_bool("yes", false, &context), &true)?;
            answers("`text`", provider.resolve_text("text", "", &context), &"hello".to_owned())
        })
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|user| scope.spawn(move || rounds(user))).collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| broken("a thread panics")))
    })
}

fn name(provider: &dyn Provider) -> Came {
    let before = provider.metadata();
    if before.name().trim().is_empty() {
        return broken("it has none");
    }
    values(provider)?;
    same("the name", &provider.metadata(), &before)
}

/// An API that counts how often each event was told.
fn listening() -> (Api, Arc<Mutex<Vec<Event>>>) {
    let (api, told) = (isolated::api(), Arc::new(Mutex::new(Vec::new())));
    for event in [Event::Ready, Event::Error, Event::Stale, Event::ConfigurationChanged] {
        let told = Arc::clone(&told);
        api.add_handler(event, move |_| told.lock().unwrap_or_else(PoisonError::into_inner).push(event));
    }
    (api, told)
}

async fn ready(provider: Arc<dyn Provider>) -> Came {
    let (api, told) = listening();
    api.set_provider_and_wait(provider).await?;
    same("the status", &api.client().provider_status(), &ProviderStatus::Ready)?;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    same("the events", &told, &vec![Event::Ready])
}

async fn again(provider: Arc<dyn Provider>) -> Came {
    for _ in 0..3 {
        let (api, started) = bound(&provider).await;
        started?;
        values(&*provider)?;
        if !api.client().boolean("yes", false, ()) {
            return broken("a client does not get `yes`");
        }
        api.shutdown();
    }
    Ok(())
}

async fn twice(provider: Arc<dyn Provider>) -> Came {
    let stop = |provider: &Arc<dyn Provider>| {
        let life = provider.life_cycle();
        let stopped = catch_unwind(AssertUnwindSafe(|| life.into_iter().for_each(LifeCycle::shutdown)));
        stopped.map_err(|_| Not::Held("shutting down panics".to_owned()))
    };
    stop(&provider)?;
    let (api, started) = bound(&provider).await;
    started?;
    stop(&provider)?;
    api.shutdown();
    stop(&provider)?;
    let (_api, started) = bound(&provider).await;
    started?;
    values(&*provider)
}
