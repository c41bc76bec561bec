#![no_main]
//! UFC documents in both readings, and bandits.

use flowline_fuzz::{contexts, evaluate, fixed, parts};
use flowline_toggles::{
    Ruleset,
    format::{
        Format,
        ufc::{Bandits, Resolution, Ufc, context},
    },
    model::ValueType,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    let mut contexts = contexts(&value);
    contexts.push(context(Some("alice"), &value));
    for format in [Ufc::eppo(), Ufc::datadog()] {
        let Ok(set) = format.read(text) else { return };
        let ruleset = Ruleset::compile(set);
        evaluate(&ruleset, &contexts);
        for context in &contexts {
            for flag in ruleset.flags().iter().take(8) {
                Resolution::of(&ruleset, flag.key(), ValueType::Integer, context, &fixed());
            }
        }
    }
    drop(Bandits::read(text, text));
});
