//! What happens to flags of which something can't be read.

use serde_json::json;

use super::*;
use crate::{format::flowline::Flowline, life::release::Steps};

/// Puts a document past [`Flags`], as a newer version would, with an event that this version can't read.
async fn put(store: &Arc<dyn Store>, key: &str, value: serde_json::Value) {
    let stream = StreamId::new("flag/checkout").unwrap();
    let head = store.head().await.unwrap();
    let fact = FlagChanged {
        flag: super::key("checkout"),
        subject: Subject::Definition,
        before: None,
        after: None,
        reason: String::new(),
        undoes: None,
        group: None,
        closed: false,
    };
    let id = EventId::new(format!("newer/{head}")).unwrap();
    let mut event = event::Event::of(&fact, id, Timestamp::UNIX_EPOCH, "ada", "flag/checkout").unwrap();
    event.data["subject"] = json!({"experiment": "of the future"});
    let batch = Batch::new().append(stream, event).put(Key::new(key).unwrap(), value);
    store.commit(batch).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_harms_one_flag_and_its_last_good_content_counts_on() {
    let (store, flags) = flags().await;
    let (production, checkout) = (scope("production"), key("checkout"));
    flags.define(&key("other"), Definition::default(), &ada()).await.unwrap();
    flags.set_rollout(&production, &checkout, Percent::ALL, &ada()).await.unwrap();
    let toggles = flags.toggles(&production);
    put(&store, "toggles/flag/checkout", json!({"newer": true})).await;
    put(&store, "toggles/state/production/checkout", json!({"on": false, "newer": 1})).await;
    flags.switch_on(&production, &key("other"), &ada()).await.unwrap();
    flags.refresh().await.unwrap();
    assert_eq!(who_is_in(&toggles).len(), 1_000, "as it was");
    assert!(toggles.is_on("other", &Context::new("u")));
    let told: Vec<_> = flags
        .warnings()
        .iter()
        .map(|warning| warning.to_string().replace(", expected one of", "\u{0}"))
        .collect();
    let told: Vec<_> = told.iter().map(|line| line.split('\u{0}').next().unwrap()).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    flag `checkout`: unknown field `newer`
    flag `checkout`, state/production: unknown field `newer`
    ");
    // The position moved on: another change is seen.
    flags.switch_off(&production, &key("other"), &ada()).await.unwrap();
    flags.refresh().await.unwrap();
    assert!(!toggles.is_on("other", &Context::new("u")));

    // Without a last good content the flag is an error, and no other is.
    let fresh = open(&store).await;
    let toggles = fresh.toggles(&production);
    let failed = |name: &str| toggles.evaluate(name, &Context::new("u"), |it| it.error.is_some());
    assert!(failed("checkout") && !failed("other"));
    assert_eq!(fresh.keys(), [checkout.clone(), key("other")]);
    // So it is for a program that reads the scope as a document.
    let documents = store.list(PREFIX).await.unwrap();
    let text = Reading::default().document(&documents, &production).to_string();
    let read = Flowline::default().ruleset(&text).unwrap();
    let fixed = Fixed::default();
    assert!(read.evaluate("checkout", &Context::new("u"), &fixed).error.is_some());
    assert!(read.evaluate("other", &Context::new("u"), &fixed).error.is_none());

    // The kill switch works whatever the documents say.
    for flags in [&flags, &fresh] {
        flags.kill(&production, &checkout, &ada()).await.unwrap();
        let toggles = flags.toggles(&production);
        assert!(who_is_in(&toggles).is_empty());
        let told = toggles.evaluate("checkout", &Context::new("u"), |it| (it.as_bool(), it.error.is_some()));
        assert_eq!(told, (Some(false), false));
    }
    let documents = store.list(PREFIX).await.unwrap();
    let read = Flowline::default()
        .ruleset(&Reading::default().document(&documents, &production).to_string())
        .unwrap();
    let user = Context::new("u");
    let evaluation = read.evaluate("checkout", &user, &fixed);
    assert_eq!((evaluation.on, evaluation.error), (false, None));

    // Mended.
    put(&store, "toggles/flag/checkout", json!({})).await;
    put(&store, "toggles/state/production/checkout", json!({"on": true})).await;
    for flags in [&flags, &fresh] {
        flags.refresh().await.unwrap();
        assert_eq!(who_is_in(&flags.toggles(&production)).len(), 1_000);
        assert_eq!(flags.warnings(), []);
    }
}

#[tokio::test]
async fn a_release_that_cannot_be_read_keeps_no_other_from_going_on() {
    let (store, flags) = flags().await;
    let production = scope("production");
    flags.define(&key("other"), Definition::default(), &ada()).await.unwrap();
    put(&store, "toggles/release/production/checkout", json!({"newer": true})).await;
    let releases = Releases::new(flags.clone());
    let (one, hour) = (Percent::new(1.0).unwrap(), SignedDuration::from_hours(1));
    let steps = Steps::new([(one, hour), (Percent::ALL, hour)]).unwrap();
    releases.start(&production, &key("other"), steps, &ada()).await.unwrap();
    let advanced = releases.advance().await.unwrap();
    assert!(advanced.next_wake.is_some());
    insta::assert_snapshot!(advanced.troubles.join("\n"), @"cannot drive the release of flag `checkout` in `production`: document `toggles/release/production/checkout` has another shape than expected; was it written by a newer version?: missing field `steps`");
    assert_eq!(releases.list().await.unwrap().len(), 1);
}
