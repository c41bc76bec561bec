//! An application configures awesome.com and can never touch fun.com: `cargo run --example 04_grant`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use flowline::core::{
    grant::{Authority, Grant, Grants, Pattern},
    id::ResourceId,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Usually read from a file that belongs to the owner of the hosts, never from the application's repository.
    let grant = |resource| -> Result<Grant, Box<dyn std::error::Error>> {
        Ok(Grant {
            app: "storefront".parse()?,
            resource: Pattern::new(resource)?,
            because: "its own".to_owned(),
        })
    };
    let grants = Grants { grants: vec![grant("host:app.awesome.com")?, grant("host:*-app.awesome.com")?] };
    let authority = Authority::new("storefront".parse()?, &grants);
    for host in ["app.awesome.com", "pr-123-app.awesome.com", "fun.com", "notapp.awesome.com"] {
        match authority.grant(&ResourceId::of("host", host)?) {
            Ok(granted) => println!("{host}: yes, by {}", granted.by()),
            Err(denied) => println!("{host}: no; {denied}"),
        }
    }
    Ok(())
}
