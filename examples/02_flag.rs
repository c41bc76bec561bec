//! Release a feature to 10 % of the people, then to all, while the program runs: `cargo run --example 02_flag`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use flowline::{
    core::{clock::SystemClock, store::MemoryStore},
    prelude::*,
    toggles::{
        flags::{Author, Flags},
        format::flowline::{Definition, FlagKey, Percent},
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(SystemClock)).await?;
    let (production, preview) = ("production".parse()?, "pr-123".parse()?);
    let (checkout, ada) = (FlagKey::new("checkout")?, Author::new("ada", "first users"));
    flags.define(&checkout, Definition::default(), &ada).await?;
    flags.open_scope(&preview, Some(&production), &ada).await?;

    let exposed = |toggles: &Toggles| {
        (0..1000).filter(|n| toggles.is_on("checkout", &Context::new(format!("user-{n}")))).count()
    };
    let (users, testers) = (flags.toggles(&production), flags.toggles(&preview));
    for percent in [10.0, 20.0, 100.0] {
        flags.set_rollout(&production, &checkout, Percent::new(percent)?, &ada).await?;
        println!(
            "{percent:>3} %: {} of 1000 users; the preview inherits: {}",
            exposed(&users),
            exposed(&testers)
        );
    }
    flags.kill(&production, &checkout, &ada).await?;
    println!("killed: {} users", exposed(&users));
    Ok(())
}
