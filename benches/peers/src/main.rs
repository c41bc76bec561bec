//! flowline's toggles beside other engines: the same flags and users in one process, batches of all engines taken in turn, so that whatever
//! else the machine does hits all of them alike.
//!
//! `cargo run --release` in this folder prints two tables: nanoseconds of an evaluation (median of the batches), and what 10,000 flags cost.

mod doc;
mod peer;
mod peers;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use doc::*;
use peer::*;

/// Many short batches: one that is interrupted by other work does not move the median.
const ROUNDS: usize = 151;
const BATCH: Duration = Duration::from_micros(300);

/// An engine that is ready for one question: asks it that many times.
struct Ready {
    name: &'static str,
    ask: Box<dyn FnMut(usize)>,
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
    let ask = move |times| {
        for _ in 0..times {
            black_box(peer.eval(black_box(&flag), ask, black_box(&contexts[turn % RING])));
            turn += 1;
        }
    };
    Some(Ready { name: P::name(), ask: Box::new(ask) })
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

/// The median nanoseconds of one question for each engine, batches taken in turn.
fn in_turn(mut engines: Vec<Ready>) -> Vec<(&'static str, f64)> {
    let mut sizes = Vec::new();
    for engine in &mut engines {
        let mut size = 1;
        loop {
            let start = Instant::now();
            (engine.ask)(size);
            if start.elapsed() >= BATCH {
                break;
            }
            size *= 2;
        }
        sizes.push(size);
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
    for _ in 0..ROUNDS {
        for ((engine, size), times) in engines.iter_mut().zip(&sizes).zip(&mut times) {
            let start = Instant::now();
            (engine.ask)(*size);
            times.push(start.elapsed().as_nanos() as f64 / *size as f64);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    engines.iter().map(|engine| engine.name).zip(times.into_iter().map(median)).collect()
}

/// 10,000 flags: the best of five loads and of five changes of one flag, and a random flag.
fn many<P: Peer>() -> (&'static str, f64, f64, Ready) {
    let mut document = big(10_000);
    let native = P::render(&document);
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e3
    };
    let load = (0..5).map(|_| time(&mut || drop(black_box(P::prepare(&native))))).fold(f64::MAX, f64::min);
    let mut peer = P::prepare(&native);
    let mut change = f64::MAX;
    for round in 0..5 {
        let flag = 17 + round * 911;
        if let Kind::Rule3 { age_gt, .. } = &mut document.flags[flag].kind {
            *age_gt = 3;
        }
        let full = P::render(&document);
        let one = P::render(&Doc { flags: vec![document.flags[flag].clone()], segments: vec![] });
        change = change.min(time(&mut || {
            black_box(peer.update_one(&one, &full));
        }));
    }
    let contexts: Vec<P::Ctx> = ring().iter().map(|user| peer.ctx(user)).collect();
    let mut numbers = Rng(99);
    let names: Vec<String> = (0..8_192).map(|_| big_name((numbers.next() % 10_000) as usize)).collect();
    let mut turn = 0;
    let ask = move |times| {
        for _ in 0..times {
            let name = &names[turn % names.len()];
            black_box(peer.eval(black_box(name), Ask::Bool, black_box(&contexts[turn % RING])));
            turn += 1;
        }
    };
    (P::name(), load, change, Ready { name: P::name(), ask: Box::new(ask) })
}

macro_rules! every {
    ($call:ident $(, $argument:expr)*) => {
        [
            $call::<peers::flowline::Flowline>($($argument),*),
            $call::<peers::yggdrasil::Ygg>($($argument),*),
            $call::<peers::feature_flag::Ff>($($argument),*),
            $call::<peers::eppo::Eppo>($($argument),*),
            $call::<peers::launchdarkly::Ld<false>>($($argument),*),
            $call::<peers::growthbook::Gb>($($argument),*),
            $call::<peers::flagd::FlagdEngine>($($argument),*),
        ]
    };
}

fn main() {
    println!("| scenario | flowline | best peer | times | the others |\n|---|---|---|---|---|");
    for scenario in SCENARIOS {
        row(&format!("{scenario:?}"), in_turn(every!(ready, scenario).into_iter().flatten().collect()));
    }
    let many = every!(many);
    let (mut load, mut change, mut engines) = (Vec::new(), Vec::new(), Vec::new());
    for (name, loaded, changed, ready) in many {
        load.push((name, loaded));
        change.push((name, changed));
        engines.push(ready);
    }
    row("random flag of 10,000", in_turn(engines));
    row("load 10,000 flags, ms", load);
    row("change one of 10,000, ms", change);
}

/// A row of the table: ours first, as the parts that it takes of the best peer's time.
fn row(what: &str, times: Vec<(&'static str, f64)>) {
    let Some(((_, ours), others)) = times.split_first() else { return };
    let Some((best, least)) = others.iter().min_by(|a, b| a.1.total_cmp(&b.1)) else { return };
    let rest: Vec<_> = others
        .iter()
        .filter(|(name, _)| name != best)
        .map(|(name, time)| format!("{name} {time:.3}"))
        .collect();
    println!("| {what} | {ours:.3} | {least:.3} ({best}) | {:.2} | {} |", ours / least, rest.join(", "));
}
