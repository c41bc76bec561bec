#![no_main]
//! LaunchDarkly's server-side data.

use flowline_fuzz::{contexts, evaluate, fixed, parts};
use flowline_toggles::{
    Ruleset,
    format::{
        Format,
        launchdarkly::{Detail, LaunchDarkly, context},
    },
    model::ValueType,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    let Ok(set) = LaunchDarkly::new().read(text) else { return };
    let mut contexts = contexts(&value);
    contexts.push(context(&value));
    let ruleset = Ruleset::compile(set);
    evaluate(&ruleset, &contexts);
    for context in &contexts {
        for flag in ruleset.flags().iter().take(8) {
            Detail::of(&ruleset, flag.key(), ValueType::Integer, context, &fixed());
        }
    }
});
