//! Prints the JSON Schema of our own flag documents:
//! `cargo run -q -p flowline-toggles --features schema --example flags_schema > docs/schema/flags.schema.json`.
#![expect(clippy::print_stdout, reason = "this program's output")]

fn main() {
    print!("{}", flowline_toggles::format::flowline::flags_schema());
}
