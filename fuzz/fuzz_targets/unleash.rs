#![no_main]
//! Unleash's documents, full and delta.

use flowline_fuzz::{contexts, evaluate, parts};
use flowline_toggles::{
    Ruleset,
    format::{
        Format,
        unleash::{Unleash, context},
    },
    model::FlagSet,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    let format = Unleash::new().with_hostname("host-1");
    let Ok(set) = format.read(text) else { return };
    let mut contexts = contexts(&value);
    contexts.push(context(&value));
    let ruleset = Ruleset::compile(set);
    evaluate(&ruleset, &contexts);
    // A delta on top of what is there, and on top of nothing.
    for before in [ruleset, Ruleset::compile(FlagSet::new("unleash"))] {
        if let Ok(after) = format.update(&before, text) {
            evaluate(&after, &contexts);
        }
    }
});
