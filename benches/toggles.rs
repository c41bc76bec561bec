//! What an evaluation costs: the seven scenarios of the comparison with other engines (`benches/peers`), and loading, changing and holding 10,000 flags.
//!
//! Run with `cargo bench --bench toggles`. Allocations are counted; an evaluation shows none. `load` shows what 10,000 flags hold.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use divan::{AllocProfiler, Bencher, black_box};
use flowline_toggles::{
    Context, Toggles,
    engine::Changes,
    format::{Format, flowline::Flowline},
};
use serde_json::{Value, json};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const USERS: usize = 256;
const FLAGS: usize = 10_000;

/// Numbers that are the same in every run (xorshift, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn ids(count: usize) -> Vec<String> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    (0..count).map(|_| format!("user-{:010x}", numbers.next() & 0xff_ffff_ffff)).collect()
}

/// Users, half of whom are among the 10,000 ids.
fn users() -> Vec<Context> {
    let ids = ids(10_000);
    let mut numbers = Numbers(7);
    (0..USERS)
        .map(|user| {
            let known = &ids[usize::try_from(numbers.next() % 10_000).unwrap_or(0)];
            let key =
                if user % 2 == 0 { known.clone() } else { format!("user-{:010x}", numbers.next() >> 24) };
            Context::new(key).with("country", "NO").with("appVersion", "2.3.1").with("age", 42)
        })
        .collect()
}

fn three(countries: &Value, version: &str, above: u64) -> Value {
    json!({"state": {"on": true}, "audience": [
        {"attribute": "country", "in": countries},
        {"attribute": "appVersion", "version": format!(">= {version}")},
        {"attribute": "age", "above": above},
    ]})
}

fn scenarios() -> Value {
    let nordic = json!(["SE", "DK", "NO"]);
    json!({
        "segments": {"beta": {"members": ids(10_000)}},
        "flags": {
            "plain-on": {"state": {"on": true}},
            "rule-match": three(&nordic, "2.1.0", 21),
            "rule-miss": three(&nordic, "2.1.0", 90),
            "half-rollout": {"state": {"on": true, "rollout": 50}},
            "beta-members": {"state": {"on": true}, "audience": [{"segment": "beta"}]},
            "checkout-look": {"state": {"on": true}, "variants": {"a": "a", "b": "b", "c": "c"}, "serve": {"a": 20, "b": 30, "c": 50}},
            "parent-flag": {"state": {"on": true}},
            "child-flag": {"state": {"on": true}, "requires": ["parent-flag"]},
        },
    })
}

fn name(flag: usize) -> String {
    format!("team-{:02}.service-{:02}.flag-{flag:05}", flag % 37, flag % 83)
}

/// 10,000 flags, each with three conditions of its own.
fn many() -> Value {
    let mut numbers = Numbers(42);
    let mut below = |limit: u64| numbers.next() % limit;
    let flags: serde_json::Map<String, Value> = (0..FLAGS)
        .map(|flag| {
            let countries = json!([format!("X{}", below(997)), format!("Y{}", below(997)), "NO"]);
            let version = format!("{}.{}.{}", below(2), below(20), below(50));
            (name(flag), three(&countries, &version, below(40)))
        })
        .collect();
    json!({ "flags": flags })
}

fn toggles(document: &Value) -> Toggles {
    match Flowline::default().ruleset(&document.to_string()) {
        Ok(ruleset) => Toggles::new(ruleset),
        Err(error) => unreachable!("the bench's own document: {error}"),
    }
}

#[divan::bench(args = ["plain-on", "rule-match", "rule-miss", "half-rollout", "beta-members", "child-flag"], sample_size = 1000)]
fn is_on(bencher: Bencher<'_, '_>, flag: &str) {
    let (toggles, users) = (toggles(&scenarios()), users());
    let turn = AtomicUsize::new(0);
    bencher.bench(|| {
        let user = &users[turn.fetch_add(1, Relaxed) % USERS];
        toggles.is_on(black_box(flag), black_box(user))
    });
}

#[divan::bench(sample_size = 1000)]
fn variant_of_three(bencher: Bencher<'_, '_>) {
    let (toggles, users) = (toggles(&scenarios()), users());
    let turn = AtomicUsize::new(0);
    bencher.bench(|| {
        let user = &users[turn.fetch_add(1, Relaxed) % USERS];
        toggles.evaluate(black_box("checkout-look"), black_box(user), |it| {
            it.variant.map_or(0, |it| it.name.len())
        })
    });
}

#[divan::bench(sample_size = 1000)]
fn explain_three_conditions(bencher: Bencher<'_, '_>) {
    let (toggles, users) = (toggles(&scenarios()), users());
    bencher.bench(|| toggles.explain(black_box("rule-match"), black_box(&users[0])));
}

#[divan::bench(sample_size = 1000, threads = [1, 2])]
fn two_threads_on_one_handle(bencher: Bencher<'_, '_>) {
    let (toggles, users) = (toggles(&scenarios()), users());
    bencher.bench(|| toggles.is_on(black_box("rule-match"), black_box(&users[0])));
}

#[divan::bench(sample_size = 1000)]
fn a_random_flag_of_10_000(bencher: Bencher<'_, '_>) {
    let (toggles, users) = (toggles(&many()), users());
    let mut numbers = Numbers(99);
    let names: Vec<String> =
        (0..8_192).map(|_| name(usize::try_from(numbers.next()).unwrap_or(0) % FLAGS)).collect();
    let turn = AtomicUsize::new(0);
    bencher.bench(|| {
        let turn = turn.fetch_add(1, Relaxed);
        toggles.is_on(black_box(&names[turn % names.len()]), black_box(&users[turn % USERS]))
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn load_10_000(bencher: Bencher<'_, '_>) {
    let text = many().to_string();
    bencher.bench(|| Flowline::default().ruleset(black_box(&text)));
}

#[divan::bench(sample_count = 100, sample_size = 1)]
fn change_one_of_10_000(bencher: Bencher<'_, '_>) {
    let toggles = toggles(&many());
    let one = json!({"flags": {name(17): three(&json!(["NO"]), "1.0.0", 3)}}).to_string();
    bencher.bench(|| {
        if let Ok(set) = Flowline::default().read(black_box(&one)) {
            toggles.update(Changes { flags: set.flags, ..Changes::default() });
        }
    });
}
