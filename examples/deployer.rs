//! A whole deployer: `cargo run --features cli --example deployer -- --help`.
//!
//! The finished command line does the work; this file says what it delivers, and adds one command of its own. From an empty folder:
//!
//! ```console
//! deployer init shop && cd shop && git init -q -b main && git add -A && git commit -qm "Open"
//! deployer plan && deployer apply && deployer status
//! ```

use std::process::ExitCode;

use flowline::{
    cli::{Answer, Cli, clap},
    prelude::*,
};

#[tokio::main]
async fn main() -> ExitCode {
    let addresses = clap::Command::new("addresses").about("Say where every component is found");
    Cli::new()
        .about("Delivers the application in this folder")
        .version(env!("CARGO_PKG_VERSION"))
        .command(addresses, async |session, _| {
            let delivery = session.delivery()?;
            let mut answer = Answer::text("");
            for environment in delivery.topology().environments.keys() {
                for component in delivery.topology().components.keys() {
                    let url = delivery.url(environment, component).await?;
                    session.say(format!("{environment} {component}: {url}"));
                    answer = answer.with(&format!("{environment}/{component}"), url);
                }
            }
            Ok(answer)
        })
        .run(Setup::new("flowline.toml", "../grants.toml", ".flowline"))
        .await
}
