//! What may go to production, and if not, why not yet: `cargo run --example 05_promotion`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use flowline::{
    core::{
        Timestamp,
        verdict::{Outcome, Verdict},
    },
    envs::promotion::{Facts, PromotionGraph, evaluate},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let production = "production".parse()?;
    let graph = PromotionGraph::new([
        ("staging".parse()?, ["preview".parse()?].into()),
        ("production".parse()?, ["staging".parse()?].into()),
    ])?;
    let now: Timestamp = "2026-11-25T09:00:00Z".parse()?;
    let mut facts = Facts { closed_until: Some("2026-11-25T10:00:00Z".parse()?), ..Facts::default() };
    println!("{}", evaluate(&graph, &production, &facts, now));
    facts.merged = true;
    facts.verdicts.insert("staging".parse()?, Verdict::of(Outcome::Fail, "GET /checkout", "status 500"));
    println!("{}", evaluate(&graph, &production, &facts, now));
    facts.verdicts.insert("staging".parse()?, Verdict::of(Outcome::Pass, "GET /checkout", "status 200"));
    facts.closed_until = None;
    println!("{}", evaluate(&graph, &production, &facts, now));

    let circle =
        PromotionGraph::new([("a".parse()?, ["b".parse()?].into()), ("b".parse()?, ["a".parse()?].into())]);
    if let Err(error) = circle {
        println!("{error}");
    }
    Ok(())
}
