//! Neutral flags and users, said by each engine in its own format.

#[derive(Clone)]
pub enum Kind {
    /// plain boolean, on for all
    On,
    /// country IN list AND appVersion >= semver AND age > n
    Rule3 { countries: Vec<String>, min_version: String, age_gt: i64 },
    /// percentage by user id
    Rollout { pct: u32 },
    /// user id member of the named segment
    InSegment { segment: String },
    /// weighted variants by user id; weights sum to 100
    Multi { variants: Vec<(String, u32)> },
    /// on when the parent flag is on
    Requires { parent: String },
}

#[derive(Clone)]
pub struct Flag {
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Default)]
pub struct Doc {
    pub flags: Vec<Flag>,
    pub segments: Vec<(String, Vec<String>)>,
}

#[derive(Clone)]
pub struct User {
    pub id: String,
    pub country: String,
    pub version: String,
    pub age: i64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scenario {
    On,
    Match3,
    NoMatch3,
    Rollout50,
    Segment10k,
    Multi3,
    Prereq,
}
pub const SCENARIOS: [Scenario; 7] = [
    Scenario::On,
    Scenario::Match3,
    Scenario::NoMatch3,
    Scenario::Rollout50,
    Scenario::Segment10k,
    Scenario::Multi3,
    Scenario::Prereq,
];

#[derive(Clone, Copy, PartialEq)]
pub enum Ask {
    Bool,
    Variant,
}

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

pub const RING: usize = 256;

fn seg_ids(n: usize) -> Vec<String> {
    let mut r = Rng(0x9E3779B97F4A7C15);
    (0..n).map(|_| format!("user-{:010x}", r.next() & 0xff_ffff_ffff)).collect()
}

fn rule(age_gt: i64) -> Kind {
    Kind::Rule3 {
        countries: vec!["SE".into(), "DK".into(), "NO".into()],
        min_version: "2.1.0".into(),
        age_gt,
    }
}

/// (document, flag to ask, how to ask). The document has just the flags the scenario needs.
pub fn scenario(s: Scenario) -> (Doc, String, Ask) {
    let one =
        |name: &str, kind: Kind| Doc { flags: vec![Flag { name: name.into(), kind }], segments: vec![] };
    match s {
        Scenario::On => (one("plain-on", Kind::On), "plain-on".into(), Ask::Bool),
        Scenario::Match3 => (one("rule-match", rule(21)), "rule-match".into(), Ask::Bool),
        Scenario::NoMatch3 => (one("rule-miss", rule(90)), "rule-miss".into(), Ask::Bool),
        Scenario::Rollout50 => {
            (one("half-rollout", Kind::Rollout { pct: 50 }), "half-rollout".into(), Ask::Bool)
        }
        Scenario::Segment10k => {
            let mut d = one("beta-members", Kind::InSegment { segment: "beta".into() });
            d.segments.push(("beta".into(), seg_ids(10_000)));
            (d, "beta-members".into(), Ask::Bool)
        }
        Scenario::Multi3 => (
            one(
                "checkout-look",
                Kind::Multi { variants: vec![("a".into(), 20), ("b".into(), 30), ("c".into(), 50)] },
            ),
            "checkout-look".into(),
            Ask::Variant,
        ),
        Scenario::Prereq => {
            let mut d = one("child-flag", Kind::Requires { parent: "parent-flag".into() });
            d.flags.push(Flag { name: "parent-flag".into(), kind: Kind::On });
            (d, "child-flag".into(), Ask::Bool)
        }
    }
}

/// 10,000-flag style document: every flag a matching three-constraint rule with its own values.
pub fn big(n: usize) -> Doc {
    let mut r = Rng(42);
    let flags = (0..n)
        .map(|i| Flag {
            name: big_name(i),
            kind: Kind::Rule3 {
                countries: vec![format!("X{}", r.next() % 997), format!("Y{}", r.next() % 997), "NO".into()],
                min_version: format!("{}.{}.{}", r.next() % 2, r.next() % 20, r.next() % 50),
                age_gt: (r.next() % 40) as i64,
            },
        })
        .collect();
    Doc { flags, segments: vec![] }
}
pub fn big_name(i: usize) -> String {
    format!("team-{:02}.service-{:02}.flag-{:05}", i % 37, i % 83, i)
}

/// Users: half of them are in the 10k segment, at random places.
pub fn ring() -> Vec<User> {
    let ids = seg_ids(10_000);
    let mut r = Rng(7);
    (0..RING)
        .map(|i| User {
            id: if i % 2 == 0 {
                ids[(r.next() % 10_000) as usize].clone()
            } else {
                format!("user-{:010x}", r.next() & 0xff_ffff_ffff)
            },
            country: "NO".into(),
            version: "2.3.1".into(),
            age: 42,
        })
        .collect()
}
