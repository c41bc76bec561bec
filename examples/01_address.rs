//! Where will a pull request's preview be? Known before anything is deployed: `cargo run --example 01_address`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use flowline::envs::address::{Address, Style, label};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let preview = label::environment_of_pull_request(123)?;
    for base in ["https://app.awesome.com", "https://api.awesome.com/cool"] {
        let base: Address = base.parse()?;
        println!("{base} -> {}", base.in_environment(&preview, Style::Auto)?);
    }
    // Input from outside is checked once, here, and says what to do instead.
    for bad in ["https://größe.example", "https://app.awesome.com/../admin", "app.awesome.com"] {
        if let Err(error) = bad.parse::<Address>() {
            println!("refused: {error}");
        }
    }
    Ok(())
}
