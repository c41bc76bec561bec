#![no_main]
//! flowline's own format, in YAML.

use flowline_core::config;
use flowline_fuzz::{own, parts};
use flowline_toggles::format::flowline::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((text, value)) = parts(data) else { return };
    let file = config::Document::new("flags.yaml", text);
    match file.read::<Document>() {
        Ok(document) => own(&document, &value),
        Err(error) => assert!(error.to_string().starts_with("flags.yaml")),
    }
    if let Err(error) = Document::checked(&file) {
        assert!(error.to_string().starts_with("flags.yaml"), "{error}");
    }
});
