//! flowline's toggles beside other engines: the same flags and users in one process, batches of all engines taken in turn, so that whatever
//! else the machine does hits all of them alike.
//!
//! To repeat the claim, on a machine that does nothing else: `cargo run --release` in this folder (three minutes; a word after `--`
//! limits it: `scenarios`, `formats`, `many`, `threads` or `explain`). Every engine is checked for the right answers before it is measured. It prints
//!
//! 1. `scenarios`: nanoseconds of one evaluation of flowline's own document, the best peer's, and the ratio;
//! 2. `formats`: the same flags from a document of each vendor, evaluated by flowline; in brackets the ratio to the best peer of all;
//! 3. `many`: what 10,000 flags cost: a random flag, loading, one change, memory;
//! 4. `threads`: how much more two threads on one engine do than one thread;
//! 5. `explain`: nanoseconds of an evaluation that tells everything it looked at.

mod doc;
mod measure;
mod peer;
mod peers;
mod say;

use doc::*;
use measure::{best, heap, in_turn, together, Ready};
use peer::*;
use peers::flowline::{Flagd, GrowthBook, LaunchDarkly, Ours, Own, Ufc, Unleash};
use std::hint::black_box;

macro_rules! ours {
    ($call:ident $(, $argument:expr)*) => {
        vec![
            $call::<Ours<Own>>($($argument),*),
            $call::<Ours<Unleash>>($($argument),*),
            $call::<Ours<Flagd>>($($argument),*),
            $call::<Ours<GrowthBook>>($($argument),*),
            $call::<Ours<LaunchDarkly>>($($argument),*),
            $call::<Ours<Ufc>>($($argument),*),
        ]
    };
}

macro_rules! theirs {
    ($call:ident $(, $argument:expr)*) => {
        vec![
            $call::<peers::yggdrasil::Ygg>($($argument),*),
            $call::<peers::feature_flag::Ff>($($argument),*),
            $call::<peers::eppo::Eppo>($($argument),*),
            $call::<peers::launchdarkly::Ld<false>>($($argument),*),
            $call::<peers::growthbook::Gb>($($argument),*),
            $call::<peers::flagd::FlagdEngine>($($argument),*),
        ]
    };
}

/// How many of the engines are ours: own documents, then those of five vendors.
const OURS: usize = 6;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only == part;
    println!("load average {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let mut rows = Vec::new();
    if wanted("scenarios") || wanted("formats") {
        for scenario in SCENARIOS {
            let ours: Vec<Option<Ready>> = ours!(ready, scenario);
            let theirs: Vec<Option<Ready>> = theirs!(ready, scenario);
            rows.push((format!("{scenario:?}"), measured(ours.into_iter().chain(theirs).collect())));
        }
    }
    let mut costs = Vec::new();
    if wanted("many") {
        let many: Vec<Many> = ours!(many).into_iter().chain(theirs!(many)).collect();
        let cost = |of: fn(&Many) -> f64| many.iter().map(|it| (it.name, Some(of(it)))).collect::<Vec<_>>();
        costs.push(("load, ms".to_owned(), cost(|it| it.load)));
        costs.push(("change of one, ms".to_owned(), cost(|it| it.change)));
        costs.push(("heap a flag, bytes".to_owned(), cost(|it| it.heap)));
        costs.insert(
            0,
            ("random flag, ns".to_owned(), measured(many.into_iter().map(|it| Some(it.ask)).collect())),
        );
    }
    if wanted("scenarios") {
        println!("\n## Scenarios, ns");
        best_beside(&rows);
    }
    if wanted("many") {
        println!("\n## 10,000 flags");
        best_beside(&costs);
    }
    if wanted("formats") {
        println!("\n## The same from each vendor's documents, ns (times the best peer)");
        formats(&rows);
    }
    if wanted("many") {
        println!("\n## 10,000 flags of each vendor (times the best peer)");
        formats(&costs);
    }
    if wanted("threads") {
        threads();
    }
    if wanted("explain") {
        explain();
    }
}

type Row = (String, Vec<(&'static str, Option<f64>)>);

/// The medians of those that are ready, in the order given.
fn measured(engines: Vec<Option<Ready>>) -> Vec<(&'static str, Option<f64>)> {
    let known: Vec<bool> = engines.iter().map(Option::is_some).collect();
    let mut times = in_turn(engines.into_iter().flatten().collect()).into_iter();
    let unknown = ("", None);
    known
        .into_iter()
        .map(
            |known| {
                if known {
                    times.next().map_or(unknown, |(name, time)| (name, Some(time)))
                } else {
                    unknown
                }
            },
        )
        .collect()
}

/// Makes an engine ready for a scenario; `None` if its format can't say it.
fn ready<P: Peer>(scenario: Scenario) -> Option<Ready> {
    if P::unsupported(scenario).is_some() {
        return None;
    }
    let (doc, flag, ask) = doc::scenario(scenario);
    let peer = P::prepare(&P::render(&doc));
    let contexts: Vec<P::Ctx> = ring().iter().map(|user| peer.ctx(user)).collect();
    check(scenario, P::name(), contexts.iter().map(|context| peer.eval(&flag, ask, context)));
    let mut turn = 0;
    Some(Ready::new(P::name(), move |times| {
        for _ in 0..times {
            black_box(peer.eval(black_box(&flag), ask, black_box(&contexts[turn % RING])));
            turn += 1;
        }
    }))
}

/// A fast engine that is wrong has not won.
fn check(scenario: Scenario, name: &str, answers: impl Iterator<Item = Answer>) {
    let mut counts = [0_usize; 256];
    answers.for_each(|answer| counts[usize::from(answer)] += 1);
    let right = match scenario {
        Scenario::On | Scenario::Match3 | Scenario::Prereq => counts[1] == RING,
        Scenario::NoMatch3 => counts[0] == RING,
        Scenario::Rollout50 => (90..166).contains(&counts[1]) && counts[0] + counts[1] == RING,
        Scenario::Segment10k => counts[1] == RING / 2 && counts[0] == RING / 2,
        Scenario::Multi3 => {
            counts[1] + counts[2] + counts[3] == RING && counts[1..4].iter().all(|count| *count > 20)
        }
    };
    assert!(right, "{name} answers {scenario:?} wrongly: {:?}", &counts[..4]);
}

/// What 10,000 flags cost.
struct Many {
    name: &'static str,
    load: f64,
    change: f64,
    heap: f64,
    ask: Ready,
}

/// The best of seven loads and of five changes of one flag, what the engine holds, and a random flag.
fn many<P: Peer>() -> Many {
    const FLAGS: usize = 10_000;
    let mut document = big(FLAGS);
    let native = P::render(&document);
    let load = best(7, || drop(black_box(P::prepare(&native))));
    let before = heap();
    let mut peer = P::prepare(&native);
    let heap = heap().saturating_sub(before) as f64 / FLAGS as f64;
    // Written beforehand: what writing them frees, the allocator tidies up in the first change, and the best of them counts.
    let documents: Vec<(String, String)> = (0..5)
        .map(|round| {
            let flag = 17 + round * 911;
            if let Kind::Rule3 { age_gt, .. } = &mut document.flags[flag].kind {
                *age_gt = 3;
            }
            let one = Doc { flags: vec![document.flags[flag].clone()], segments: vec![] };
            (P::render(&one), P::render(&document))
        })
        .collect();
    let changes = documents.iter().map(|(one, full)| {
        best(1, || {
            black_box(peer.update_one(one, full));
        })
    });
    let change = changes.fold(f64::MAX, f64::min);
    let contexts: Vec<P::Ctx> = ring().iter().map(|user| peer.ctx(user)).collect();
    let mut numbers = Rng(99);
    let names: Vec<String> = (0..8_192).map(|_| big_name((numbers.next() % FLAGS as u64) as usize)).collect();
    assert!(names.iter().take(RING).zip(&contexts).all(|(name, context)| peer.eval(
        name,
        Ask::Bool,
        context
    ) == 1));
    let mut turn = 0;
    let ask = Ready::new(P::name(), move |times| {
        for _ in 0..times {
            let name = &names[turn % names.len()];
            black_box(peer.eval(black_box(name), Ask::Bool, black_box(&contexts[turn % RING])));
            turn += 1;
        }
    });
    Many { name: P::name(), load, change, heap, ask }
}

/// How much more two threads on one engine do than one.
fn threads() {
    println!("\n## Two threads on one engine: times one thread\n| engine | On | Match3 |\n|---|---|---|");
    let rows: Vec<[(&'static str, f64); 2]> =
        vec![scaling::<Ours<Own>>()].into_iter().chain(theirs!(scaling)).collect();
    for [on, match3] in &rows {
        println!("| {} | {:.2} | {:.2} |", on.0, on.1, match3.1);
    }
}

fn scaling<P: Peer>() -> [(&'static str, f64); 2] {
    [Scenario::On, Scenario::Match3].map(|scenario| {
        let (doc, flag, ask) = doc::scenario(scenario);
        let peer = P::prepare(&P::render(&doc));
        let contexts: Vec<P::Ctx> = ring().iter().map(|user| peer.ctx(user)).collect();
        let work = |times: usize| {
            for turn in 0..times {
                black_box(peer.eval(black_box(&flag), ask, black_box(&contexts[turn % RING])));
            }
        };
        (P::name(), together(&work))
    })
}

/// What telling everything costs.
fn explain() {
    println!("\n## Explaining, ns\n| scenario | evaluate | explain |\n|---|---|---|");
    for scenario in SCENARIOS {
        let (doc, flag, _) = doc::scenario(scenario);
        let peer = Ours::<Own>::prepare(&Ours::<Own>::render(&doc));
        let contexts: Vec<_> = ring().iter().map(|user| peer.ctx(user)).collect();
        let plain = ready::<Ours<Own>>(scenario);
        let mut turn = 0;
        let told = Ready::new("explain", move |times| {
            for _ in 0..times {
                assert!(peer.explain(black_box(&flag), black_box(&contexts[turn % RING])));
                turn += 1;
            }
        });
        let times = in_turn(plain.into_iter().chain([told]).collect());
        if let [(_, plain), (_, told)] = times[..] {
            println!("| {scenario:?} | {plain:.1} | {told:.0} |");
        }
    }
}

/// Ours on our own documents, the best peer, and what ours takes of its time.
fn best_beside(rows: &[Row]) {
    println!("| | flowline | best peer | ratio | the other peers |\n|---|---|---|---|---|");
    for (what, times) in rows {
        let (Some(ours), Some((best, least))) = (times.first().and_then(|it| it.1), best_of(times)) else {
            continue;
        };
        let others = times.iter().skip(OURS).filter(|(name, _)| *name != best);
        let others: Vec<_> =
            others.filter_map(|(name, time)| time.map(|time| format!("{name} {}", short(time)))).collect();
        println!(
            "| {what} | {} | {} ({best}) | **{:.2}** | {} |",
            short(ours),
            short(least),
            ours / least,
            others.join(", ")
        );
    }
}

/// Ours on each vendor's documents.
fn formats(rows: &[Row]) {
    println!("| | own | unleash | flagd | growthbook | launchdarkly | ufc | best peer |\n|---|---|---|---|---|---|---|---|");
    for (what, times) in rows {
        let Some((name, least)) = best_of(times) else { continue };
        let cells: Vec<_> = times
            .iter()
            .take(OURS)
            .map(|(_, time)| {
                time.map_or("n/a".to_owned(), |time| format!("{} ({:.2})", short(time), time / least))
            })
            .collect();
        println!("| {what} | {} | {} ({name}) |", cells.join(" | "), short(least));
    }
}

fn best_of(times: &[(&'static str, Option<f64>)]) -> Option<(&'static str, f64)> {
    let known = times.iter().skip(OURS).filter_map(|(name, time)| time.map(|time| (*name, time)));
    known.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn short(number: f64) -> String {
    if number < 1.0 {
        format!("{number:.3}")
    } else if number < 1_000.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}
