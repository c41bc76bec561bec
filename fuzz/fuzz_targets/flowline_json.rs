#![no_main]
//! flowline's own format, in JSON.

use flowline_fuzz::{contexts, evaluate, own, parts};
use flowline_toggles::format::flowline::{Document, Flowline};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    let (whole, streamed) = (Document::from_json(text), Flowline::default().ruleset(text));
    if let Ok(document) = &whole {
        own(document, &value);
    }
    if let Ok(ruleset) = &streamed {
        evaluate(ruleset, &contexts(&value));
    }
});
