//! All flags of an OFREP server for one context, held in memory: a source and a format for a [`Feed`](super::Feed), whose provider serves
//! them.

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;
use serde_json::{Value as Json, json};

use super::{FlagSource, Loaded, Ofrep, SourceError, Tag, ofrep::stated};
use crate::{
    client::{ErrorCode, EvaluationContext, TARGETING_KEY},
    format::{Format, FormatError},
    model::{
        Facts, Fault, FaultCode, Flag, FlagSet, Operator, Outcome, Reason, Rule, Subject, Test, ValueType,
        Variant, Warning,
    },
    value::{Name, Value},
};

/// What an OFREP server says of all flags for one context, by its bulk request, with entity tags: the protocol's static-context paradigm.
///
/// With the format [`OfrepFlags`] it makes a [`Feed`](super::Feed), and that a provider which evaluates from memory, goes on with the last
/// good answer while the server is down, and says which flags changed. The server evaluates for the context given here, which must be
/// whole: what an evaluation brings along besides does not count, and one for another targeting key is `INVALID_CONTEXT` with the caller's
/// default rather than somebody else's flags. [`set_context`](Self::set_context) changes it; a feed that runs asks at once, and serves what
/// it has until the answer is there.
///
/// ```no_run
/// # #[cfg(feature = "http")] {
/// use std::sync::Arc;
/// use flowline_core::clock::SystemClock;
/// use flowline_toggles::{client::EvaluationContext, source::{Feed, Ofrep, OfrepFlags, OfrepSource, PlainHttp}};
/// let server = Ofrep::new(Arc::new(PlainHttp), "http://localhost:8016");
/// let source = Arc::new(OfrepSource::new(server, EvaluationContext::targeting("device-7")));
/// let feed = Feed::new(source.clone(), OfrepFlags, Arc::new(SystemClock));
/// // Bind `feed.provider()`, drive `feed.run()`; when somebody signs in:
/// source.set_context(EvaluationContext::targeting("ada"));
/// # }
/// ```
#[derive(Debug)]
pub struct OfrepSource {
    ofrep: Ofrep,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    context: EvaluationContext,
    /// Counts the contexts.
    number: u64,
    /// The number of the context that was loaded, or tried, last.
    tried: u64,
    /// Of the one whose answer was handed out last, to which a tag belongs.
    answered: Option<u64>,
    waiting: Vec<Waker>,
}

impl OfrepSource {
    /// The flags of `ofrep` for `context`.
    pub fn new(ofrep: Ofrep, context: EvaluationContext) -> Self {
        Self { ofrep, asked: Mutex::new(Asked { context, ..Asked::default() }) }
    }

    /// Asks for another context from now on.
    pub fn set_context(&self, context: EvaluationContext) {
        let waiting = {
            let mut asked = self.asked();
            if asked.context == context {
                return;
            }
            asked.context = context;
            asked.number += 1;
            mem::take(&mut asked.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FlagSource for OfrepSource {
    fn place(&self) -> String {
        self.ofrep.place("")
    }

    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError> {
        loop {
            let (context, number, answered) = {
                let mut asked = self.asked();
                asked.tried = asked.number;
                (asked.context.clone(), asked.number, asked.answered)
            };
            let known = known.filter(|_| answered == Some(number));
            let answer = self.ofrep.bulk(&context, known).await?;
            {
                let mut asked = self.asked();
                if asked.number != number {
                    // It is for somebody who is gone.
                    continue;
                }
                asked.answered = Some(number);
            }
            let Some((flags, tag)) = answer else { return Ok(Loaded::Same) };
            let text = json!({ TARGETING_KEY: context.targeting_key(), "flags": flags }).to_string();
            return Ok(Loaded::New { text, tag });
        }
    }

    /// Returns as soon as the context is another than at the last load.
    async fn watch(&self) {
        poll_fn(|polled| {
            let mut asked = self.asked();
            if asked.tried != asked.number {
                return Poll::Ready(());
            }
            if !asked.waiting.iter().any(|waker| waker.will_wake(polled.waker())) {
                asked.waiting.push(polled.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Reads what an [`OfrepSource`] hands out: the bulk answer's `flags`, and under `targetingKey` for whom they are. Each flag is what the
/// server said, with its variant, reason and metadata; one that the server could not evaluate is an error with the server's code.
#[derive(Debug, Clone, Copy, Default)]
pub struct OfrepFlags;

impl Format for OfrepFlags {
    fn name(&self) -> &'static str {
        "ofrep"
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let document: Json =
            serde_json::from_str(text).map_err(|error| FormatError::json(self.name(), error))?;
        let Some(flags) = document["flags"].as_array() else {
            return Err(FormatError::new(self.name(), "there is no list `flags`"));
        };
        let stranger = document[TARGETING_KEY].as_str().map(stranger);
        let mut set = FlagSet::new(self.name());
        for (index, flag) in flags.iter().enumerate() {
            match flag["key"].as_str() {
                Some(key) => set.flags.push(read(key, flag, stranger.as_ref())),
                None => set
                    .warnings
                    .push(Warning::general(format!("flags/{index}"), "it has no key; it is left out")),
            }
        }
        Ok(set)
    }
}

/// The rule that refuses whoever is not `key`.
fn stranger(key: &str) -> Rule {
    let other = Test::new(Subject::Key, Operator::OneOf(vec![Name::new(key)])).negated();
    let message = "the flags were evaluated for another targeting key; set that of the source first";
    Rule::new(other.into(), Outcome::Fault(Fault::new(FaultCode::InvalidContext, message)))
}

fn read(key: &str, flag: &Json, stranger: Option<&Rule>) -> Flag {
    let metadata = flag["metadata"].as_object().into_iter().flatten();
    let metadata = metadata.map(|(name, value)| (name.clone(), Value::from(value))).collect();
    let facts = Some(Arc::new(Facts { metadata, ..Facts::default() }));
    if flag["errorCode"].is_string() {
        let error = stated(flag);
        let code = match error.code {
            ErrorCode::ParseError => FaultCode::ParseError,
            ErrorCode::TargetingKeyMissing => FaultCode::TargetingKeyMissing,
            ErrorCode::InvalidContext => FaultCode::InvalidContext,
            ErrorCode::FlagNotFound => FaultCode::FlagNotFound,
            ErrorCode::TypeMismatch => FaultCode::TypeMismatch,
            _ => FaultCode::General,
        };
        let fault = Fault::new(code, error.message.unwrap_or_default());
        return Flag { facts, ..Flag::faulty(key, fault) };
    }
    let value = Value::from(&flag["value"]);
    let value_type = match &value {
        Value::Null => ValueType::Any,
        Value::Bool(_) => ValueType::Boolean,
        Value::Text(_) => ValueType::String,
        Value::Number(number) if number.as_i64().is_some() => ValueType::Integer,
        Value::Number(_) => ValueType::Number,
        Value::List(_) | Value::Object(_) => ValueType::Object,
    };
    let variant = Variant::new(flag["variant"].as_str().unwrap_or_default(), value);
    Flag {
        rules: stranger.cloned().into_iter().collect(),
        fallback: Outcome::Variant(0),
        fallback_reason: Some(reason(flag["reason"].as_str())),
        facts,
        ..Flag::new(key, value_type, [variant])
    }
}

/// What the engine has a word for; anything else is unknown.
fn reason(text: Option<&str>) -> Reason {
    use Reason::{Cached, Default, Disabled, Error, Split, Stale, Static, TargetingMatch, Unknown};
    [Static, Default, TargetingMatch, Split, Disabled, Cached, Stale, Error]
        .into_iter()
        .find(|reason| Some(reason.as_str()) == text)
        .unwrap_or(Unknown)
}
