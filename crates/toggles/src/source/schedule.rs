//! When to load, how long to wait after a failure, and what to tell: [`decide`], a function of what is known and the time.

use flowline_core::{SignedDuration, Timestamp};

use crate::client::{Event, ProviderStatus};

/// How often, and how patient.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// From one success to the next load. At least a millisecond.
    pub every: SignedDuration,
    /// The longest that one load may take.
    pub limit: SignedDuration,
    /// The wait after the first failure; doubled with each further one.
    pub first_wait: SignedDuration,
    /// The longest wait.
    pub longest_wait: SignedDuration,
    /// The longest wait that a server may ask for; what it asks beyond that is not granted.
    pub longest_asked: SignedDuration,
    /// How old the last success may be before what is served counts as stale. Looked at when a load fails.
    pub stale_after: SignedDuration,
    /// Spreads the waits of many programs; give each its own.
    pub seed: u64,
}

impl Default for Policy {
    /// Every 15 s, 10 s for a load, 1 s to 2 min between failures, up to 1 h if the server asks for it, stale after 1 min.
    fn default() -> Self {
        Self {
            every: SignedDuration::from_secs(15),
            limit: SignedDuration::from_secs(10),
            first_wait: SignedDuration::from_secs(1),
            longest_wait: SignedDuration::from_mins(2),
            longest_asked: SignedDuration::from_hours(1),
            stale_after: SignedDuration::from_mins(1),
            seed: 0,
        }
    }
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Failures since the last success.
    pub failures: u32,
    /// When the source last answered well.
    pub good: Option<Timestamp>,
    /// Whether there is a document to serve.
    pub serving: bool,
    /// The status that follows from what was told.
    pub told: ProviderStatus,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// The feed began; with a document from the disk or without.
    Began {
        /// Whether there was one.
        cached: bool,
    },
    /// The source answered well; with another document or the same.
    Loaded {
        /// Whether it is another one.
        changed: bool,
    },
    /// It did not, or what it answered is no use.
    Failed {
        /// Whether the credentials were refused: trying again is pointless until somebody does something.
        refused: bool,
        /// How long the server asks to be left alone.
        retry_after: Option<SignedDuration>,
    },
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell it to the clients.
    Tell(Event),
    /// Tell the clients that it failed for good.
    TellFatal,
    /// Load at this time, or sooner if the source says that it changed.
    LoadAt(Timestamp),
}

/// What follows from what happened `now`: the new state, and what to do, in order. The last action is always [`Action::LoadAt`].
///
/// - a document from the disk is served at once and counts as stale until the source answers;
/// - a first success, and one after failures that were told of, is [`Event::Ready`]; another document is [`Event::ConfigurationChanged`];
/// - a failure is told only if there is nothing to serve ([`Event::Error`], or fatal once it is refused), or when what is served has become
///   stale;
/// - waits after failures double up to a limit, each between half of itself and all of itself, by the seed; a server that asks for a longer
///   one gets it, up to a limit of its own.
///
/// ```
/// use flowline_core::{SignedDuration, Timestamp};
/// use flowline_toggles::{client::Event, source::schedule::{Action, Happened, Policy, State, decide}};
/// let now = Timestamp::UNIX_EPOCH;
/// let (state, actions) = decide(&State::default(), Happened::Loaded { changed: true }, now, &Policy::default());
/// assert_eq!(actions, [Action::Tell(Event::Ready), Action::LoadAt(now + SignedDuration::from_secs(15))]);
/// assert_eq!(state.failures, 0);
/// ```
pub fn decide(state: &State, happened: Happened, now: Timestamp, policy: &Policy) -> (State, Vec<Action>) {
    let mut next = state.clone();
    let mut actions = Vec::new();
    let wait = match happened {
        Happened::Began { cached } => {
            if cached {
                next.serving = true;
                next.told = ProviderStatus::Stale;
                actions.push(Action::Tell(Event::Stale));
            }
            SignedDuration::ZERO
        }
        Happened::Loaded { changed } => {
            let first = !state.serving;
            next = State { failures: 0, good: Some(now), serving: true, told: ProviderStatus::Ready };
            if changed && !first {
                actions.push(Action::Tell(Event::ConfigurationChanged));
            }
            if state.told != ProviderStatus::Ready {
                actions.push(Action::Tell(Event::Ready));
            }
            policy.every.max(SignedDuration::from_millis(1))
        }
        Happened::Failed { refused, retry_after } => {
            next.failures = state.failures.saturating_add(1);
            let old = state.good.is_none_or(|good| now.duration_since(good) >= policy.stale_after);
            let (told, tell) = match (state.serving, state.told) {
                (false, ProviderStatus::Fatal) => (ProviderStatus::Fatal, None),
                (false, _) if refused => (ProviderStatus::Fatal, Some(Action::TellFatal)),
                (false, _) => (ProviderStatus::Error, Some(Action::Tell(Event::Error))),
                (true, _) if old => (ProviderStatus::Stale, Some(Action::Tell(Event::Stale))),
                (true, told) => (told, None),
            };
            actions.extend(tell.filter(|_| told != state.told));
            next.told = told;
            let asked = retry_after.unwrap_or_default().min(policy.longest_asked);
            wait_after(next.failures, policy).max(asked)
        }
    };
    actions.push(Action::LoadAt(now.checked_add(wait).unwrap_or(Timestamp::MAX)));
    (next, actions)
}

/// The wait after so many failures in a row.
fn wait_after(failures: u32, policy: &Policy) -> SignedDuration {
    let first = policy.first_wait.max(SignedDuration::from_millis(1));
    let doubled = 2_i32
        .checked_pow(failures.saturating_sub(1))
        .and_then(|times| first.checked_mul(times))
        .unwrap_or(policy.longest_wait);
    let whole = doubled.min(policy.longest_wait).max(SignedDuration::from_millis(1));
    let thousandths = 500 + i32::try_from(mixed(policy.seed, failures) % 501).unwrap_or(0);
    (whole / 1000).checked_mul(thousandths).unwrap_or(whole)
}

/// The mixer of `SplitMix64` (Steele, Lea and Flood, 2014) over seed and number.
fn mixed(seed: u64, number: u32) -> u64 {
    let mut mixed = seed.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    const fn failed(refused: bool) -> Happened {
        Happened::Failed { refused, retry_after: None }
    }

    fn told(actions: &[Action]) -> Vec<Action> {
        actions.iter().copied().filter(|action| !matches!(action, Action::LoadAt(_))).collect()
    }

    #[test]
    fn a_source_that_goes_down_and_comes_back_is_told_of_once_each() {
        let policy = Policy::default();
        let (state, _) = decide(&State::default(), Happened::Began { cached: false }, NOW, &policy);
        let (state, actions) = decide(&state, Happened::Loaded { changed: true }, NOW, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::Ready)]);
        let soon = NOW + SignedDuration::from_secs(20);
        let (state, actions) = decide(&state, failed(false), soon, &policy);
        assert_eq!(told(&actions), [], "not stale yet");
        let later = NOW + SignedDuration::from_secs(61);
        let (state, actions) = decide(&state, failed(true), later, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::Stale)]);
        let (state, actions) = decide(&state, failed(false), later, &policy);
        assert_eq!((told(&actions), state.failures), (vec![], 3));
        let (state, actions) = decide(&state, Happened::Loaded { changed: false }, later, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::Ready)]);
        let (_, actions) = decide(&state, Happened::Loaded { changed: true }, later, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::ConfigurationChanged)]);
    }

    #[test]
    fn without_a_document_a_failure_is_an_error_and_a_refusal_fatal() {
        let policy = Policy::default();
        let (_, actions) = decide(&State::default(), failed(false), NOW, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::Error)]);
        let (_, actions) = decide(&State::default(), failed(true), NOW, &policy);
        assert_eq!(told(&actions), [Action::TellFatal]);
        let (state, _) = decide(&State::default(), failed(false), NOW, &policy);
        let (state, actions) = decide(&state, failed(true), NOW, &policy);
        assert_eq!(told(&actions), [Action::TellFatal], "also if it is not the first failure");
        let (state, actions) = decide(&state, failed(false), NOW, &policy);
        assert_eq!(told(&actions), [], "and it stays so");
        let (_, actions) = decide(&state, Happened::Loaded { changed: true }, NOW, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::Ready)], "until it works");
        let (state, actions) = decide(&State::default(), Happened::Began { cached: true }, NOW, &policy);
        assert_eq!(told(&actions), [Action::Tell(Event::Stale)]);
        let (_, actions) = decide(&state, failed(true), NOW, &policy);
        assert_eq!(told(&actions), [], "stale already");
    }

    #[test]
    fn a_server_that_asks_to_be_left_alone_is_left_alone_within_bounds() {
        let policy = Policy::default();
        let wait = |asked: Option<SignedDuration>| {
            let failed = Happened::Failed { refused: false, retry_after: asked };
            let (_, actions) = decide(&State::default(), failed, NOW, &policy);
            let Some(Action::LoadAt(due)) = actions.last() else { panic!("it loads again") };
            due.duration_since(NOW)
        };
        let own = wait(None);
        assert!(own <= policy.first_wait);
        let asked = [SignedDuration::from_mins(-1), SignedDuration::ZERO, SignedDuration::from_mins(7)];
        assert_eq!(asked.map(|asked| wait(Some(asked))), [own, own, SignedDuration::from_mins(7)]);
        assert_eq!(wait(Some(SignedDuration::MAX)), policy.longest_asked);
    }

    proptest! {
        #[test]
        fn waits_stay_between_half_and_all_of_what_doubling_gives(failures in 1_u32..200, seed: u64) {
            let policy = Policy { seed, ..Policy::default() };
            let wait = wait_after(failures, &policy).as_millis();
            let whole = 1000_i128.saturating_mul(1_i128 << (failures - 1).min(60)).min(120_000);
            prop_assert!(wait >= whole / 2 && wait <= whole, "{} of {}", wait, whole);
        }
    }
}
