//! What holds of flags kept in a store.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use flowline_core::{
    SignedDuration, Timestamp,
    clock::{Clock, ManualClock},
    event,
    id::{EventId, Key, ScopeId, StreamId},
    store::{Batch, MemoryStore, Store},
};

mod edits;
mod races;
mod unread;

use super::*;
use crate::{
    client::{Event, ProviderStatus, isolated},
    context::Context,
    format::flowline::{Definition, Percent},
    life::{
        scan::{Reference, Scan},
        stale::{Limits, StaleReport},
        usage::{Usage, Used},
    },
    value::Value,
};

fn ada() -> Author {
    Author::new("ada", "because")
}

fn scope(name: &str) -> ScopeId {
    ScopeId::new(name).unwrap()
}

fn key(name: &str) -> FlagKey {
    FlagKey::new(name).unwrap()
}

async fn open(store: &Arc<dyn Store>) -> Flags {
    Flags::open(Arc::clone(store), Arc::new(ManualClock::default())).await.unwrap()
}

async fn flags() -> (Arc<dyn Store>, Flags) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let flags = open(&store).await;
    flags.define(&key("checkout"), Definition::default(), &ada()).await.unwrap();
    (store, flags)
}

fn who_is_in(toggles: &Toggles) -> BTreeSet<usize> {
    (0..1_000).filter(|user| toggles.is_on("checkout", &Context::new(format!("user-{user}")))).collect()
}

#[tokio::test]
async fn a_defined_flag_is_off_until_somebody_releases_it() {
    let (_, flags) = flags().await;
    let toggles = flags.toggles(&scope("production"));
    assert!(who_is_in(&toggles).is_empty());
    flags.switch_on(&scope("production"), &key("checkout"), &ada()).await.unwrap();
    assert_eq!(who_is_in(&toggles).len(), 1_000);
    assert!(who_is_in(&flags.toggles(&scope("staging"))).is_empty());
}

#[tokio::test]
async fn raising_a_rollout_throws_nobody_out() {
    let (_, flags) = flags().await;
    let (production, checkout) = (scope("production"), key("checkout"));
    let toggles = flags.toggles(&production);
    let mut before = BTreeSet::new();
    for percent in [0.0, 0.5, 10.0, 20.0, 99.999, 100.0] {
        flags.set_rollout(&production, &checkout, Percent::new(percent).unwrap(), &ada()).await.unwrap();
        let now = who_is_in(&toggles);
        assert!(before.is_subset(&now), "{percent}");
        let expected = percent * 10.0;
        #[expect(clippy::cast_precision_loss, reason = "at most 1,000")]
        let off_by = (now.len() as f64 - expected).abs();
        assert!(off_by <= 40.0, "{percent}: {}", now.len());
        before = now;
    }
    assert_eq!(before.len(), 1_000);
}

#[tokio::test]
async fn a_preview_inherits_overrides_and_takes_its_state_with_it() {
    let (store, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    let shown = flags.toggles(&preview);
    flags.set_rollout(&production, &checkout, Percent::new(10.0).unwrap(), &ada()).await.unwrap();
    assert_eq!(who_is_in(&shown), who_is_in(&flags.toggles(&production)));
    flags.set_rollout(&preview, &checkout, Percent::ALL, &ada()).await.unwrap();
    assert_eq!(who_is_in(&shown).len(), 1_000);
    let on: Vec<_> =
        flags.where_on(&checkout).into_iter().map(|it| (it.scope, it.state.rollout, it.own)).collect();
    let ten = Percent::new(10.0).unwrap();
    assert_eq!(on, [(preview.clone(), Percent::ALL, true), (production.clone(), ten, true)]);
    flags.close_scope(&preview, &ada()).await.unwrap();
    assert!(who_is_in(&shown).is_empty());
    assert_eq!(store.list("toggles/state/pr-123/").await.unwrap().len(), 0);
    assert_eq!(flags.where_on(&checkout).len(), 1);
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    assert_eq!(who_is_in(&shown), who_is_in(&flags.toggles(&production)));
}

#[tokio::test]
async fn a_killed_flag_is_off_whatever_an_heir_says() {
    let (_, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
    let toggles = flags.toggles(&preview);
    assert_eq!(who_is_in(&toggles).len(), 1_000);
    for place in [Place::Everywhere, Place::from(&production), Place::from(&preview)] {
        flags.kill(place.clone(), &checkout, &ada()).await.unwrap();
        assert!(who_is_in(&toggles).is_empty(), "{place}");
        flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
        assert!(who_is_in(&toggles).is_empty(), "{place}");
        flags.revive(place, &checkout, &ada()).await.unwrap();
        assert_eq!(who_is_in(&toggles).len(), 1_000);
    }
}

#[tokio::test]
async fn another_process_sees_changes_while_it_follows() {
    let (store, flags) = flags().await;
    let other = open(&store).await;
    let toggles = other.toggles(&scope("production"));
    let follower = tokio::spawn({
        let other = other.clone();
        async move { other.follow().await }
    });
    flags.switch_on(&scope("production"), &key("checkout"), &ada()).await.unwrap();
    for _ in 0..1_000 {
        if !who_is_in(&toggles).is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(who_is_in(&toggles).len(), 1_000);
    flags.remove(&key("checkout"), &ada()).await.unwrap();
    other.refresh().await.unwrap();
    assert!(who_is_in(&toggles).is_empty());
    assert!(other.keys().is_empty());
    follower.abort();
}

#[tokio::test]
async fn a_closed_scope_is_closed_for_followers_too() {
    let (store, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
    let other = open(&store).await;
    let toggles = other.toggles(&preview);
    assert_eq!(who_is_in(&toggles).len(), 1_000);
    flags.close_scope(&preview, &ada()).await.unwrap();
    other.refresh().await.unwrap();
    assert!(who_is_in(&toggles).is_empty());
    assert!(other.where_on(&checkout).is_empty());
}

#[tokio::test]
async fn each_change_is_a_fact_and_can_be_taken_back() {
    let (store, flags) = flags().await;
    let (production, checkout) = (scope("production"), key("checkout"));
    for percent in [10.0, 20.0] {
        let why = Author::new("grace", format!("to {percent}"));
        flags.set_rollout(&production, &checkout, Percent::new(percent).unwrap(), &why).await.unwrap();
    }
    let rollout = || flags.effective(&production, &checkout).rollout.to_string();
    assert_eq!(rollout(), "20");
    assert!(flags.undo(&checkout, &ada()).await.unwrap());
    assert_eq!(rollout(), "10");
    assert!(flags.undo(&checkout, &ada()).await.unwrap());
    assert_eq!((rollout().as_str(), flags.effective(&production, &checkout).on), ("100", false));
    assert!(flags.undo(&checkout, &ada()).await.unwrap());
    assert!(flags.definition(&checkout).is_none());
    assert!(!flags.undo(&checkout, &ada()).await.unwrap());
    let lines = flags.history(&checkout).await.unwrap().into_iter().map(|(event, change)| {
        let json =
            |it: Option<serde_json::Value>| it.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
        format!(
            "{} {}: {} -> {} ({})",
            event.actor,
            event.id,
            json(change.before),
            json(change.after),
            change.reason
        )
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
        ada flag/checkout/definition/0: nothing -> {"kind":"release"} (because)
        grace flag/checkout/at-production/1: nothing -> {"on":true,"rollout":10} (to 10)
        grace flag/checkout/at-production/2: {"on":true,"rollout":10} -> {"on":true,"rollout":20} (to 20)
        ada flag/checkout/at-production/3: {"on":true,"rollout":20} -> {"on":true,"rollout":10} (because)
        ada flag/checkout/at-production/4: {"on":true,"rollout":10} -> nothing (because)
        ada flag/checkout/definition/5: {"kind":"release"} -> nothing (because)
        "#);
    assert_eq!(store.list("toggles/").await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_others_changed_is_not_undone_blindly() {
    let (_, flags) = flags().await;
    let (preview, checkout) = (scope("pr-123"), key("checkout"));
    flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
    flags.close_scope(&preview, &ada()).await.unwrap();
    assert!(matches!(flags.undo(&checkout, &ada()).await, Err(FlagsError::Moved { .. })));
}

#[tokio::test]
async fn bad_requests_are_typed_errors() {
    let (_, flags) = flags().await;
    let (a, b) = (scope("a"), scope("b"));
    flags.open_scope(&a, Some(&b), &ada()).await.unwrap();
    let requires = |flag: &str| Definition { requires: vec![key(flag)], ..Definition::default() };
    flags.define(&key("child"), requires("checkout"), &ada()).await.unwrap();
    let salted = Definition { salt: Some("new".to_owned()), ..Definition::default() };
    let circular = requires("child");
    let told = [
        flags.open_scope(&b, Some(&a), &ada()).await.unwrap_err().to_string(),
        flags.kill(&a, &key("nobody"), &ada()).await.unwrap_err().to_string(),
        flags.define(&key("checkout"), salted, &ada()).await.unwrap_err().to_string(),
        flags.define(&key("checkout"), circular, &ada()).await.unwrap_err().to_string(),
        FlagKey::new("a b").unwrap_err().to_string(),
        Percent::new(f64::NAN).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(told.join("\n"), @r"
        scope `b` cannot have `a` as its base: `a` inherits from it
        there is no flag `nobody`; define it first
        another salt for flag `checkout` would decide anew for everybody who has it; ask for `reshuffle` if that is meant
        flags would depend on each other: checkout -> child -> checkout; take one of these dependencies away
        `a b` is not a flag's key; use 1 to 100 letters a-z, digits, `.`, `_` and `-`, the first a letter or digit
        NaN is not a percentage; use a number from 0 to 100
        ");
}

#[tokio::test]
async fn conditions_and_variants_work_as_they_are_written() {
    let (_, flags) = flags().await;
    let production = scope("production");
    let definition: Definition = serde_json::from_str(
        r#"{
            "variants": {"a": "red", "b": "blue"}, "serve": {"a": 1, "b": 3},
            "audience": [{"attribute": "country", "in": ["NO", "SE"]}, {"attribute": "app.version", "version": ">= 2.1.0"}],
            "rules": [{"id": "staff", "when": [{"attribute": "email", "ends_with": "@AWESOME.com", "ignore_case": true}], "serve": "b"}]
        }"#,
    )
    .unwrap();
    let again: Definition = serde_json::from_str(&serde_json::to_string(&definition).unwrap()).unwrap();
    assert_eq!(definition, again);
    flags.define(&key("colour"), definition, &ada()).await.unwrap();
    flags.switch_on(&production, &key("colour"), &ada()).await.unwrap();
    assert_eq!(flags.warnings(), []);
    let toggles = flags.toggles(&production);
    let version = |text: &str| Value::object([("version", Value::from(text))]);
    let user =
        |n: usize| Context::new(format!("user-{n}")).with("country", "NO").with("app", version("2.10.0"));
    let blue = (0..1_000).filter(|n| toggles.value("colour", &user(*n)) == Some("blue".into())).count();
    assert!((700..800).contains(&blue), "{blue}");
    assert_eq!(toggles.value("colour", &user(1).with("app", version("2.0.9"))), None);
    assert_eq!(
        toggles.value("colour", &Context::new("x").with("email", "ada@awesome.com")),
        Some("blue".into())
    );
}

#[tokio::test]
async fn a_definition_that_makes_no_sense_harms_no_other() {
    let (_, flags) = flags().await;
    let production = scope("production");
    for (name, text) in [
        ("serves-nobody", r#"{"variants": {"a": 1}}"#),
        ("mixed", r#"{"variants": {"a": 1, "b": "x"}, "serve": "a"}"#),
        ("unknown-variant", r#"{"serve": "blue"}"#),
        ("no-pattern", r#"{"audience": [{"attribute": "x", "matches": "(?=a)"}]}"#),
        ("no-weight", r#"{"serve": {"on": 0}}"#),
    ] {
        flags.define(&key(name), serde_json::from_str(text).unwrap(), &ada()).await.unwrap();
        flags.switch_on(&production, &key(name), &ada()).await.unwrap();
        assert!(!flags.toggles(&production).is_on(name, &Context::new("u")), "{name}");
    }
    flags.switch_on(&production, &key("checkout"), &ada()).await.unwrap();
    assert!(flags.toggles(&production).is_on("checkout", &Context::new("u")));
    let told: Vec<_> = flags.warnings().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
        flag `mixed`, variants/b: variant `b` is a text among others; the flag is an error until that is mended
        flag `no-weight`, serve: the weights of `serve` add up to nothing; the flag is an error until that is mended
        flag `serves-nobody`, serve: the flag has variants but does not say which to `serve`; the flag is an error until that is mended
        flag `unknown-variant`, serve: there is no variant `blue`; there are `off`, `on`; the flag is an error until that is mended
        ");
}

#[tokio::test]
async fn since_when_everybody_has_it_is_what_the_journal_says() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::default();
    let flags = Flags::open(Arc::clone(&store), Arc::new(clock.clone())).await.unwrap();
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    let start = clock.now();
    let hour = |hours: i64| Some(start + SignedDuration::from_hours(hours));
    let since = async |scope: &ScopeId| flags.full_since(scope, &checkout).await.unwrap();
    flags.define(&checkout, Definition::default(), &ada()).await.unwrap();
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    assert_eq!(since(&production).await, None);
    let next = async |percent: f64| {
        clock.advance(SignedDuration::from_hours(1));
        flags.set_rollout(&production, &checkout, Percent::new(percent).unwrap(), &ada()).await.unwrap();
    };
    next(50.0).await;
    assert_eq!(since(&production).await, None);
    next(100.0).await;
    assert_eq!((since(&production).await, since(&preview).await), (hour(2), hour(2)));
    clock.advance(SignedDuration::from_hours(1));
    flags.kill(Place::Everywhere, &checkout, &ada()).await.unwrap();
    assert_eq!(since(&production).await, None);
    flags.undo(&checkout, &ada()).await.unwrap();
    assert_eq!(since(&production).await, hour(3), "it begins anew");
    next(100.0).await;
    flags.switch_off(&preview, &checkout, &ada()).await.unwrap();
    assert_eq!((since(&production).await, since(&preview).await), (hour(3), None));
    clock.advance(SignedDuration::from_hours(1));
    flags.close_scope(&preview, &ada()).await.unwrap();
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    assert_eq!(since(&preview).await, hour(5), "its own state went with it");
    flags.remove(&checkout, &ada()).await.unwrap();
    assert_eq!(since(&production).await, None);
}

#[tokio::test]
async fn stale_flags_are_reported_with_owner_reasons_and_places() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::default();
    let flags = Flags::open(Arc::clone(&store), Arc::new(clock.clone())).await.unwrap();
    let production = scope("production");
    let owned = |owner: &str| Definition { owner: Some(owner.to_owned()), ..Definition::default() };
    for (name, owner) in [("old", "ada"), ("quiet", "grace"), ("used", "ada")] {
        flags.define(&key(name), owned(owner), &ada()).await.unwrap();
    }
    flags.set_rollout(&production, &key("old"), Percent::ALL, &ada()).await.unwrap();
    let usage = |since: Timestamp, flag: &str, at: Timestamp| Usage {
        since,
        until: clock.now(),
        flags: [(flag.to_owned(), Used { first: at, last: at })].into(),
    };
    let start = clock.now();
    assert_eq!(flags.stale(&production, Limits::default(), None).await.unwrap(), StaleReport::default());
    clock.advance(SignedDuration::from_hours(24 * 40));
    flags.record_usage(&usage(start, "old", start)).await.unwrap();
    flags.record_usage(&usage(clock.now(), "used", clock.now())).await.unwrap();
    flags.record_usage(&usage(clock.now(), "nobody's", clock.now())).await.unwrap();
    let place = |file: &str, line| Reference { file: file.to_owned(), line, column: 5 };
    let scan = Scan {
        references: [
            ("old".to_owned(), vec![place("src/shop.rs", 7)]),
            ("quiet".to_owned(), vec![]),
            ("used".to_owned(), vec![place("src/shop.rs", 9)]),
        ]
        .into(),
        unknown: [("gone".to_owned(), vec![place("web/app.js", 3)]), ("used".to_owned(), vec![])].into(),
        ..Scan::default()
    };
    let report = flags.stale(&production, Limits::default(), Some(&scan)).await.unwrap();
    insta::assert_snapshot!(report.to_string(), @r"
    old (ada): everybody has had it since 2026-01-01; nobody has asked for it since 2026-01-01
        src/shop.rs:7:5
    quiet (grace): nobody has asked for it since 2026-01-01, or before; no source code names it
    gone: source code asks for it, and nobody defined it
        web/app.js:3:5
    ");
    assert_eq!(store.list("toggles/usage").await.unwrap().len(), 3);
    flags.remove(&key("old"), &ada()).await.unwrap();
    assert_eq!(store.list("toggles/usage").await.unwrap().len(), 2, "its use goes with it");
}

#[tokio::test]
async fn providers_tell_which_flags_changed_where() {
    let (store, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    flags.define(&key("search"), Definition::default(), &ada()).await.unwrap();
    let other = open(&store).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let apis: Vec<_> = [(&flags, &production), (&flags, &preview), (&other, &preview)]
        .into_iter()
        .zip(["production", "preview", "preview elsewhere"])
        .map(|((flags, scope), name)| {
            let (api, told) = (isolated::api(), Arc::clone(&told));
            let asked = (flags.clone(), scope.clone());
            api.add_handler(Event::ConfigurationChanged, move |details| {
                // A handler may ask for anything.
                asked.0.effective(&asked.1, &key("checkout"));
                told.lock().unwrap().push(format!("{name}: {}", details.flags_changed.join(" ")));
            });
            drop(api.set_provider(flags.provider(scope)).unwrap());
            api
        })
        .collect();
    let take = || std::mem::take(&mut *told.lock().unwrap()).join("; ");
    flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
    assert_eq!(take(), "preview: checkout");
    flags.switch_on(&production, &checkout, &ada()).await.unwrap();
    assert_eq!(take(), "production: checkout", "the preview says so itself");
    assert!(apis[1].client().boolean("checkout", false, ()));
    flags
        .define(&key("search"), Definition { owner: Some("ada".to_owned()), ..Definition::default() }, &ada())
        .await
        .unwrap();
    assert_eq!(take(), "preview: search; production: search");
    flags.switch_on(Place::Everywhere, &key("search"), &ada()).await.unwrap();
    assert_eq!(take(), "preview: search; production: search");
    other.refresh().await.unwrap();
    assert_eq!(take(), "preview elsewhere: checkout search");
    flags.switch_off(&preview, &checkout, &ada()).await.unwrap();
    take();
    flags.close_scope(&preview, &ada()).await.unwrap();
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    assert_eq!(take(), "preview: checkout", "off by itself, then by default, then on as its base");
}

#[tokio::test]
async fn clients_hear_when_following_fails_and_when_it_works_again() {
    let (inner, _) = flags().await;
    let store = races::Between::over(&inner);
    let flags = open(&(Arc::new(store.clone()) as Arc<dyn Store>)).await;
    let api = isolated::api();
    drop(api.set_provider(flags.provider(&scope("production"))).unwrap());
    assert_eq!(api.client().provider_status(), ProviderStatus::Ready);
    for driven in [false, true] {
        store.go_away(true);
        if driven {
            // What drives releases follows as well.
            assert!(Releases::new(flags.clone()).run().await.is_err());
        } else {
            assert!(flags.follow().await.is_err());
        }
        assert_eq!(api.client().provider_status(), ProviderStatus::Stale);
        store.go_away(false);
        flags.refresh().await.unwrap();
        assert_eq!(api.client().provider_status(), ProviderStatus::Ready);
    }
}

#[tokio::test]
async fn scopes_share_what_is_the_same_in_them() {
    let (_, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    for name in ["a", "b", "c"] {
        flags.define(&key(name), Definition::default(), &ada()).await.unwrap();
    }
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    flags.switch_on(&preview, &key("b"), &ada()).await.unwrap();
    let (one, other) = (flags.toggles(&production), flags.toggles(&preview));
    let shared = || {
        let (one, other) = (one.ruleset(), other.ruleset());
        let same = |name: &&str| match (one.flags.get(name), other.flags.get(name)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        ["a", "b", "c", "checkout"].into_iter().filter(same).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shared(), "a c checkout");
    flags.switch_on(&production, &checkout, &ada()).await.unwrap();
    flags
        .define(&key("a"), Definition { owner: Some("ada".to_owned()), ..Definition::default() }, &ada())
        .await
        .unwrap();
    flags.switch_on(&production, &key("b"), &ada()).await.unwrap();
    assert_eq!(shared(), "a c checkout", "compiled once; `b` was made by itself each time");
    assert_eq!(who_is_in(&other).len(), 1_000);
}

#[tokio::test]
async fn the_kill_switch_wins_over_a_definition_that_makes_no_sense() {
    let (_, flags) = flags().await;
    let production = scope("production");
    let define = async |name: &str, text: &str| {
        flags.define(&key(name), serde_json::from_str(text).unwrap(), &ada()).await.unwrap();
        flags.switch_on(&production, &key(name), &ada()).await.unwrap();
    };
    define("unknown-variant", r#"{"serve": "blue"}"#).await;
    define("colour", r#"{"variants": {"red": "r", "blue": "b"}, "serve": "green", "off": "red"}"#).await;
    define("child", r#"{"requires": ["unknown-variant"]}"#).await;
    let api = isolated::api();
    drop(api.set_provider(flags.provider(&production)).unwrap());
    let (client, toggles) = (api.client(), flags.toggles(&production));
    let asked = |name: &str| {
        let details = client.boolean_details(name, true, ());
        let failed = details.error_code().is_some();
        (details.value, details.reason.map(|reason| reason.to_string()), failed)
    };
    let error = (true, Some("ERROR".to_owned()), true);
    let disabled = (false, Some("DISABLED".to_owned()), false);
    assert_eq!((asked("unknown-variant"), asked("child")), (error, disabled.clone()));
    for name in ["unknown-variant", "colour"] {
        flags.kill(&production, &key(name), &ada()).await.unwrap();
        assert!(!toggles.is_on(name, &Context::new("u")));
    }
    assert_eq!((asked("unknown-variant"), asked("child")), (disabled.clone(), disabled));
    assert_eq!(client.text("colour", "green", ()), "r");
}

#[tokio::test]
async fn carrying_takes_nothing_from_anybody() {
    let (store, flags) = flags().await;
    let (staging, production, checkout) = (scope("staging"), scope("production"), key("checkout"));
    let to = |percent: f64| Percent::new(percent).unwrap();
    let said = |flag: &str| serde_json::to_string(&flags.said(&production, &key(flag))).unwrap();
    let declared = r#"{"variants": {"r": "r", "b": "b"}, "serve": "r", "scopes": {"staging": {"on": true, "serve": "b"}}}"#;
    flags.define(&key("declared"), serde_json::from_str(declared).unwrap(), &ada()).await.unwrap();
    for name in ["lower", "higher", "off", "killed-there", "silent"] {
        flags.define(&key(name), Definition::default(), &ada()).await.unwrap();
    }
    // Killed in production, on at 10 % in staging.
    flags.set_rollout(&staging, &checkout, to(10.0), &ada()).await.unwrap();
    flags.kill(&production, &checkout, &ada()).await.unwrap();
    for (name, there, here) in [("lower", 10.0, 50.0), ("higher", 50.0, 10.0)] {
        flags.set_rollout(&staging, &key(name), to(there), &ada()).await.unwrap();
        flags.set_rollout(&production, &key(name), to(here), &ada()).await.unwrap();
    }
    flags.switch_off(&staging, &key("off"), &ada()).await.unwrap();
    flags.switch_on(&production, &key("off"), &ada()).await.unwrap();
    flags.set_rollout(&staging, &key("killed-there"), to(30.0), &ada()).await.unwrap();
    flags.kill(&staging, &key("killed-there"), &ada()).await.unwrap();
    flags.switch_on(Place::Everywhere, &key("silent"), &ada()).await.unwrap();
    let head = store.head().await.unwrap();
    flags.carry(&staging, &production, &ada()).await.unwrap();
    assert!(flags.effective(&production, &checkout).killed, "what is killed stays killed");
    let told = ["checkout", "lower", "higher", "off", "killed-there", "declared", "silent"]
        .map(|flag| format!("{flag}: {}", said(flag)));
    insta::assert_snapshot!(told.join("\n"), @r#"
    checkout: {"on":true,"rollout":10,"killed":true}
    lower: {"on":true,"rollout":50}
    higher: {"on":true,"rollout":50}
    off: {"on":true}
    killed-there: {"on":true,"rollout":30}
    declared: {"on":true,"rollout":100,"serve":"b"}
    silent: {}
    "#);
    let facts = store.events(flowline_core::store::EventQuery::after(head)).await.unwrap();
    assert_eq!(facts.len(), 4, "each change is a fact");
    flags.carry(&staging, &production, &ada()).await.unwrap();
    assert_eq!(store.head().await.unwrap(), facts.last().unwrap().position, "again is nothing");
    assert!(flags.undo(&key("higher"), &ada()).await.unwrap());
    assert_eq!(said("higher"), r#"{"on":true,"rollout":10}"#);
}

#[tokio::test]
async fn a_removal_is_taken_back_as_a_whole() {
    let (store, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.kill(Place::Everywhere, &checkout, &ada()).await.unwrap();
    // What this process does not know of counts as well.
    let other = open(&store).await;
    other.set_rollout(&production, &checkout, Percent::new(5.0).unwrap(), &ada()).await.unwrap();
    flags.open_scope(&preview, None, &ada()).await.unwrap();
    flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
    let before = store.list("toggles/state/").await.unwrap().len();
    let head = store.head().await.unwrap();
    flags.remove(&checkout, &ada()).await.unwrap();
    assert_eq!((before, store.list("toggles/state/").await.unwrap().len()), (3, 0));
    let facts = store.events(flowline_core::store::EventQuery::after(head)).await.unwrap();
    assert_eq!(facts.len(), 4, "the definition and each state");
    assert!(flags.undo(&checkout, &ada()).await.unwrap());
    assert_eq!(store.list("toggles/state/").await.unwrap().len(), 3);
    assert!(flags.effective(&production, &checkout).killed && flags.definition(&checkout).is_some());
    flags.revive(Place::Everywhere, &checkout, &ada()).await.unwrap();
    assert_eq!(flags.effective(&production, &checkout).rollout, Percent::new(5.0).unwrap());
    // Not where what it takes back would be found by another of the same name.
    flags.remove(&checkout, &ada()).await.unwrap();
    flags.close_scope(&preview, &ada()).await.unwrap();
    assert!(matches!(flags.undo(&checkout, &ada()).await, Err(FlagsError::Moved { .. })));
    assert_eq!(store.list("toggles/state/").await.unwrap().len(), 0);
}

#[tokio::test]
async fn everything_that_goes_with_a_scope_is_a_fact() {
    let (store, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    flags.open_scope(&preview, None, &ada()).await.unwrap();
    flags.switch_on(&preview, &checkout, &ada()).await.unwrap();
    flags.close_scope(&preview, &ada()).await.unwrap();
    let mut told = Vec::new();
    for recorded in store.events(flowline_core::store::EventQuery::default()).await.unwrap() {
        let mut data = serde_json::to_value(&recorded.event).unwrap()["data"].clone();
        data.as_object_mut().unwrap().remove("reason");
        told.push(format!("{} {data}", recorded.event.kind));
    }
    insta::assert_snapshot!(told[1..].join("\n"), @r#"
    flag.scope_changed {"base":"production","closed":false,"scope":"pr-123"}
    flag.scope_changed {"before":{"base":"production"},"closed":false,"scope":"pr-123"}
    flag.changed {"after":{"on":true},"flag":"checkout","subject":{"state":{"scope":"pr-123"}}}
    flag.scope_changed {"before":{},"closed":true,"scope":"pr-123"}
    flag.changed {"before":{"on":true},"closed":true,"flag":"checkout","subject":{"state":{"scope":"pr-123"}}}
    "#);
    assert!(matches!(flags.undo(&checkout, &ada()).await, Err(FlagsError::Moved { .. })));
}

#[tokio::test]
async fn where_it_is_on_counts_what_is_declared() {
    let (_, flags) = flags().await;
    let text = r#"{"scopes": {"staging": {"on": true, "rollout": 20}}}"#;
    flags.define(&key("declared"), serde_json::from_str(text).unwrap(), &ada()).await.unwrap();
    let on: Vec<_> = flags.where_on(&key("declared"));
    assert_eq!(on.len(), 1);
    assert_eq!((on[0].scope.as_str(), on[0].state.on, on[0].own), ("staging", true, true));
    assert!(flags.where_on(&key("checkout")).is_empty());
}

#[tokio::test]
async fn another_bucketing_throws_the_dice_again_as_another_salt_does() {
    let (_, flags) = flags().await;
    let split = |seed: u32, until: u32| {
        let text = format!(
            r#"{{"serve": {{"bucketing": {{"input": [{{"of": {{"first_of": ["key"]}}}}], "hash": {{"murmur3": {{"seed": {seed}}}}},
                "scale": {{"multiply": {{"of": 100}}}}, "missing": "no_point"}},
                "slices": [{{"variant": "on", "until": {until}}}, {{"variant": "off"}}]}}}}"#
        );
        serde_json::from_str::<Definition>(&text).unwrap()
    };
    let flag = key("split");
    flags.define(&flag, split(1, 10), &ada()).await.unwrap();
    flags.define(&flag, split(1, 20), &ada()).await.unwrap();
    let refused = flags.define(&flag, split(2, 20), &ada()).await.unwrap_err();
    assert!(matches!(refused, FlagsError::Salt { .. }));
    flags.reshuffle(&flag, split(2, 20), &ada()).await.unwrap();
    flags.set(&scope("a"), &flag, &ada(), |state| state.serve = split(3, 1).serve).await.unwrap();
    let refused =
        flags.set(&scope("a"), &flag, &ada(), |state| state.serve = split(4, 1).serve).await.unwrap_err();
    assert!(matches!(refused, FlagsError::Salt { .. }));
}
