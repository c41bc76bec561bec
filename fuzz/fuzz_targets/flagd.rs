#![no_main]
//! flagd's documents, in all three generations of `fractional`.

use flowline_fuzz::{contexts, evaluate, fixed, parts};
use flowline_toggles::{
    Ruleset,
    format::{
        Format,
        flagd::{Flagd, Generation, Resolution},
    },
    model::ValueType,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    for generation in [Generation::V1, Generation::V2, Generation::V3] {
        let Ok(set) = Flagd::new(generation).with_supplied(value.clone()).read(text) else { return };
        let (ruleset, contexts) = (Ruleset::compile(set), contexts(&value));
        evaluate(&ruleset, &contexts);
        for (flag, context) in ruleset.flags().iter().zip(&contexts) {
            Resolution::of(&ruleset, flag.key(), ValueType::Integer, context, &fixed());
        }
    }
});
