//! What is known of flags before they are changed or taken away.

use super::*;

#[tokio::test]
async fn a_flag_is_not_unused_because_nobody_watches_or_only_flags_ask_for_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::default();
    let flags = Flags::open(Arc::clone(&store), Arc::new(clock.clone())).await.unwrap();
    let requires = Definition {
        requires: vec![key("base")],
        kind: crate::model::FlagKind::Ops,
        ..Definition::default()
    };
    flags.define(&key("base"), Definition::default(), &ada()).await.unwrap();
    flags.define(&key("used"), requires, &ada()).await.unwrap();
    let day = SignedDuration::from_hours(24);
    let stale = async || {
        let scan = Scan {
            references: [
                ("base".to_owned(), vec![]),
                ("used".to_owned(), vec![Reference { file: "a".to_owned(), line: 1, column: 1 }]),
            ]
            .into(),
            ..Scan::default()
        };
        let report = flags.stale(&scope("production"), Limits::default(), Some(&scan)).await.unwrap();
        report.flags.into_keys().collect::<Vec<_>>()
    };
    let record = async |days: i64| {
        for _ in 0..days {
            let since = clock.now();
            clock.advance(day);
            let used = Used { first: since, last: clock.now() };
            let usage = Usage { since, until: clock.now(), flags: [("used".to_owned(), used)].into() };
            flags.record_usage(&usage).await.unwrap();
        }
    };
    record(40).await;
    assert_eq!(stale().await, [""; 0], "`base` is asked for by `used`");
    clock.advance(day * 90);
    assert_eq!(stale().await, [""; 0], "nobody watches any more");
    record(1).await;
    assert_eq!(stale().await, [""; 0]);
    let since = clock.now();
    for _ in 0..31 {
        clock.advance(day);
        let usage =
            Usage { since: clock.now() - day, until: clock.now(), flags: std::collections::BTreeMap::new() };
        flags.record_usage(&usage).await.unwrap();
    }
    assert_eq!(stale().await, ["used"], "watched since {since}, and not used");
}

#[tokio::test]
async fn an_edit_of_a_state_tells_whom_it_would_move() {
    let (_, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    flags.set_rollout(&production, &checkout, Percent::new(50.0).unwrap(), &ada()).await.unwrap();
    let users: Vec<Context> = (0..1_000).map(|user| Context::new(format!("user-{user}"))).collect();
    let had = who_is_in(&flags.toggles(&preview)).len();
    let lowered = |place: Place, state: &mut State| drop((place, state.rollout.replace(Percent::NONE)));
    for (place, moved) in
        [(Place::from(&production), had), (Place::from(&preview), had), (Place::Everywhere, 0)]
    {
        let comparison = flags.moved_by_state(
            &preview,
            &checkout,
            place.clone(),
            |state| lowered(place.clone(), state),
            &users,
        );
        assert_eq!((comparison.moved.len(), comparison.thrown_out), (moved, moved), "{place}");
    }
    let killed =
        flags.moved_by_state(&preview, &checkout, Place::Everywhere, |state| state.killed = true, &users);
    assert_eq!(killed.thrown_out, had);
    assert_eq!(who_is_in(&flags.toggles(&preview)).len(), had, "nothing was changed");
}
