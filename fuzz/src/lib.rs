//! What all targets do with an input: read it, evaluate every flag for some contexts, and demand that all ways to ask agree.
//!
//! An input is a document, then perhaps the byte 0xff (which no UTF-8 has) and a context as JSON. Text that is no JSON is a targeting key.

use flowline_toggles::{
    Context, Ruleset, Value,
    engine::Fixed,
    format::flowline::{Document, Flowline},
};

/// How many flags of a document are evaluated: more of them find nothing new.
const FLAGS: usize = 32;

/// Splits an input into document and context; `None` if the document is no UTF-8, which no reader gets to see.
pub fn parts(data: &[u8]) -> Option<(&str, Value)> {
    let (document, context) = match data.iter().rposition(|byte| *byte == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"{\"targetingKey\": \"user-1\", \"country\": \"NO\"}"[..]),
    };
    let context = String::from_utf8_lossy(context);
    let value = serde_json::from_str(&context).unwrap_or_else(|_| Value::from(&*context));
    Some((std::str::from_utf8(document).ok()?, value))
}

/// The contexts that a value may stand for.
pub fn contexts(value: &Value) -> Vec<Context> {
    vec![
        Context::anonymous(),
        Context::from_object(value),
        Context::new(value.clone()).with("x", value.clone()).with("id", value.clone()),
    ]
}

/// A time and a random number that no input decides.
pub fn fixed() -> Fixed {
    Fixed { now: "2026-06-01T00:00:00Z".parse().unwrap_or_default(), random: 77 }
}

/// Evaluates every flag for every context: what is told, what is explained and what is switched is the same.
pub fn evaluate(ruleset: &Ruleset, contexts: &[Context]) {
    let fixed = fixed();
    for warning in ruleset.warnings() {
        assert!(!warning.to_string().is_empty());
    }
    for flag in ruleset.flags().into_iter().take(FLAGS) {
        for context in contexts {
            let plain = ruleset.evaluate(flag.key(), context, &fixed);
            let (explained, trace) = ruleset.explain(flag.key(), context, &fixed);
            assert_eq!(plain.value, explained.value, "{} explained", flag.key());
            assert_eq!(
                (plain.on, plain.index, plain.reason),
                (explained.on, explained.index, explained.reason)
            );
            assert_eq!(plain.error.is_some(), explained.error.is_some());
            assert_eq!(plain.on, ruleset.is_on(flag.key(), context, &fixed), "{} switched", flag.key());
            drop(format!("{trace:?}"));
        }
    }
}

/// Our own document: it compiles like its own JSON, and that reads back as the same.
pub fn own(document: &Document, value: &Value) {
    let contexts = contexts(value);
    evaluate(&Ruleset::compile(document.flag_set(&[])), &contexts);
    let Ok(json) = serde_json::to_string(document) else { return };
    match Document::from_json(&json) {
        Ok(back) => assert_eq!(&back, document, "{json}"),
        Err(error) => panic!("{error} in {json}"),
    }
    match Flowline::default().ruleset(&json) {
        Ok(streamed) => evaluate(&streamed, &contexts),
        Err(error) => panic!("{error} in {json}"),
    }
}
