#![no_main]
//! GrowthBook's payloads; the context is a user's attributes, and what else is known of the user.

use flowline_fuzz::{contexts, evaluate, fixed, parts};
use flowline_toggles::{
    Ruleset,
    format::{
        Format,
        growthbook::{FeatureResult, GrowthBook, User, context, sticky_keys},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    let Ok(set) = GrowthBook::new().with_key("Ns04T5n9+59rl2x3SlNHtQ==").read(text) else { return };
    let user = serde_json::from_str::<User>(&value.to_string()).unwrap_or_default().with_sticky(&value);
    let mut contexts = contexts(&value);
    contexts.push(context(&value, user));
    let ruleset = Ruleset::compile(set);
    evaluate(&ruleset, &contexts);
    for context in &contexts {
        for flag in ruleset.flags().iter().take(8) {
            FeatureResult::of(&ruleset, flag.key(), context, &fixed());
        }
        sticky_keys(&ruleset, context);
    }
});
