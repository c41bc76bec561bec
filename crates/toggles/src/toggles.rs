//! The handle that programs hold: flags that may change at any moment, read without a lock.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::{
    context::Context,
    engine::{Ambient, Changes, Evaluation, Host, Ruleset, Trace},
    value::Value,
};

/// Flags that may change at any moment. Cheap to clone; clones share what they see.
///
/// Reading takes no lock and never waits: each evaluation works on the whole ruleset that was current when it began. Writers
/// (whoever [replaces](Self::replace) or [updates](Self::update)) wait for each other, never for readers. When they return, every
/// evaluation that begins afterwards sees what they wrote.
///
/// Each thread remembers the ruleset that it saw last, so that threads share nothing but what they read: a ruleset that was replaced is
/// freed when the threads that evaluated it have asked again or ended (of a [changed](Self::update) one, that is what was changed).
///
/// ```
/// use flowline_toggles::{Context, Ruleset, Toggles, engine::Changes, model::{Flag, FlagSet, Outcome}};
/// let toggles = Toggles::new(Ruleset::compile(FlagSet::new("example")));
/// let user = Context::new("user-1");
/// assert!(!toggles.is_on("checkout", &user));
/// let mut flag = Flag::boolean("checkout");
/// flag.fallback = Outcome::Variant(flag.on_index());
/// toggles.update(Changes { flags: vec![flag], ..Changes::default() });
/// assert!(toggles.is_on("checkout", &user));
/// ```
#[derive(Clone)]
pub struct Toggles {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<Ruleset>,
    /// The address of `current`, for threads to see that what they remember still is.
    address: AtomicUsize,
    writer: Mutex<()>,
    ambient: Arc<dyn Ambient>,
}

/// Handles that a thread remembers rulesets of; with more, some share a place and remember less.
const REMEMBERED: usize = 8;

thread_local! {
    /// The rulesets that this thread saw last, each in the place of its handle.
    static SEEN: [RefCell<Option<Arc<Ruleset>>>; REMEMBERED] =
        const { [const { RefCell::new(None) }; REMEMBERED] };
}

impl Shared {
    /// Hands the current ruleset to `then`: the one that this thread remembers, if that is still current.
    #[inline]
    fn read<R>(&self, then: impl FnOnce(&Ruleset) -> R) -> R {
        let mut then = Some(then);
        let answer = SEEN.try_with(|seen| {
            let seen = seen.get(self.place())?.try_borrow().ok()?;
            // The address is that of no other ruleset: the one remembered is not freed, so nothing else can stand there.
            let ruleset =
                seen.as_ref().filter(|seen| address(seen) == self.address.load(Ordering::Acquire))?;
            then.take().map(|then| then(ruleset))
        });
        match (answer, then) {
            (Ok(Some(answer)), _) => answer,
            (_, Some(then)) => self.read_anew(then),
            (_, None) => unreachable!("only an answer takes it"),
        }
    }

    /// The same by the current ruleset, which this thread remembers from now on.
    #[cold]
    #[inline(never)]
    fn read_anew<R>(&self, then: impl FnOnce(&Ruleset) -> R) -> R {
        let ruleset = self.current.load_full();
        let remember = |seen: &[RefCell<Option<Arc<Ruleset>>>; REMEMBERED]| {
            let mut place = seen.get(self.place())?.try_borrow_mut().ok()?;
            place.replace(Arc::clone(&ruleset))
        };
        // Freed when the place can be borrowed again: what is freed may evaluate flags.
        let before = SEEN.try_with(remember);
        drop(before);
        then(&ruleset)
    }

    fn put(&self, ruleset: Ruleset) {
        let next = Arc::new(ruleset);
        let address = address(&next);
        let before = self.current.swap(next);
        self.address.store(address, Ordering::Release);
        // Not earlier: as long as its address is told, it must be its own.
        drop(before);
    }

    /// Where threads remember its ruleset.
    #[inline]
    fn place(&self) -> usize {
        (std::ptr::from_ref(self).addr() >> 6) % REMEMBERED
    }
}

#[inline]
fn address(ruleset: &Arc<Ruleset>) -> usize {
    Arc::as_ptr(ruleset).addr()
}

impl Toggles {
    /// A handle on `ruleset`, with the host's time and chance.
    pub fn new(ruleset: Ruleset) -> Self {
        Self::with_ambient(ruleset, Arc::new(Host::default()))
    }

    /// A handle on `ruleset`, with time and chance from `ambient`.
    pub fn with_ambient(ruleset: Ruleset, ambient: Arc<dyn Ambient>) -> Self {
        let ruleset = Arc::new(ruleset);
        let address = AtomicUsize::new(address(&ruleset));
        Self {
            shared: Arc::new(Shared {
                current: ArcSwap::new(ruleset),
                address,
                writer: Mutex::new(()),
                ambient,
            }),
        }
    }

    /// Whether `flag` is on for `context`. Off if there is no such flag, or it can't be evaluated.
    #[inline]
    pub fn is_on(&self, flag: &str, context: &Context) -> bool {
        self.shared.read(|ruleset| ruleset.is_on(flag, context, &*self.shared.ambient))
    }

    /// What `flag` comes to for `context`, handed to `then`; nothing is copied.
    ///
    /// ```
    /// # use flowline_toggles::{Context, Toggles};
    /// # fn example(toggles: &Toggles, user: &Context) {
    /// let color = toggles.evaluate("button", user, |it| it.as_str() == Some("green"));
    /// # }
    /// ```
    #[inline]
    pub fn evaluate<R>(&self, flag: &str, context: &Context, then: impl FnOnce(Evaluation<'_>) -> R) -> R {
        self.shared.read(|ruleset| then(ruleset.evaluate(flag, context, &*self.shared.ambient)))
    }

    /// The value of `flag` for `context`; `None` if it has none for it.
    pub fn value(&self, flag: &str, context: &Context) -> Option<Value> {
        self.evaluate(flag, context, |it| it.value.cloned())
    }

    /// Everything that was looked at to evaluate `flag`, in order.
    pub fn explain(&self, flag: &str, context: &Context) -> Trace {
        self.ruleset().explain(flag, context, &*self.shared.ambient).1
    }

    /// The ruleset that is current now. It does not change; hold it to see one state of all flags throughout a request.
    pub fn ruleset(&self) -> Arc<Ruleset> {
        self.shared.current.load_full()
    }

    /// Where time and chance come from.
    pub fn ambient(&self) -> &Arc<dyn Ambient> {
        &self.shared.ambient
    }

    /// Makes `ruleset` the current one, at one instant for everybody.
    pub fn replace(&self, ruleset: Ruleset) {
        let _writing = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.put(ruleset);
    }

    /// Changes some flags, at one instant for everybody. Compiles these and nothing else.
    pub fn update(&self, changes: Changes) {
        self.edit(|current| current.with(changes));
    }

    /// Makes what `edit` makes of the current ruleset the current one.
    pub(crate) fn edit(&self, edit: impl FnOnce(&Ruleset) -> Ruleset) {
        let _writing = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = edit(&self.shared.current.load());
        self.shared.put(next);
    }
}

impl Default for Toggles {
    /// No flags.
    fn default() -> Self {
        Self::new(Ruleset::default())
    }
}

impl fmt::Debug for Toggles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Toggles of {} flags", self.ruleset().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Weak, mpsc};

    use super::*;
    use crate::model::{Flag, FlagSet, Outcome};

    fn flags(on: bool) -> Vec<Flag> {
        let flag = Flag::boolean("checkout");
        let fallback = Outcome::Variant(if on { flag.on_index() } else { 0 });
        vec![Flag { fallback, ..flag }]
    }

    fn changes(on: bool) -> Changes {
        Changes { flags: flags(on), ..Changes::default() }
    }

    fn ruleset(on: bool) -> Ruleset {
        Ruleset::compile(FlagSet { flags: flags(on), ..FlagSet::new("test") })
    }

    #[test]
    fn every_thread_sees_a_change_at_its_next_question() {
        let toggles = Toggles::new(ruleset(false));
        let (ask, asked) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let reader = toggles.clone();
        let thread = std::thread::spawn(move || {
            let user = Context::anonymous();
            for () in asked {
                tell.send(reader.is_on("checkout", &user)).unwrap();
            }
        });
        for turn in 0..1_000 {
            let on = turn % 2 == 0;
            if turn % 3 == 0 {
                toggles.replace(ruleset(on));
            } else {
                toggles.update(changes(on));
            }
            ask.send(()).unwrap();
            assert_eq!(told.recv().unwrap(), on);
            assert_eq!(toggles.is_on("checkout", &Context::anonymous()), on);
        }
        drop(ask);
        thread.join().unwrap();
    }

    #[test]
    fn handles_that_share_a_place_do_not_mix() {
        let handles: Vec<_> = (0..40).map(|n| Toggles::new(ruleset(n % 3 == 0))).collect();
        let user = Context::anonymous();
        for _ in 0..3 {
            for (n, handle) in handles.iter().enumerate() {
                assert_eq!(handle.is_on("checkout", &user), n % 3 == 0);
            }
        }
    }

    #[test]
    fn a_question_within_a_question_sees_what_is_current_then() {
        let toggles = Toggles::new(ruleset(false));
        let user = Context::anonymous();
        toggles.evaluate("checkout", &user, |outer| {
            toggles.update(changes(true));
            assert!(toggles.is_on("checkout", &user), "the inner question");
            assert!(!outer.on, "the outer one has its ruleset");
        });
        assert!(toggles.is_on("checkout", &user));
    }

    #[test]
    fn a_ruleset_is_freed_when_its_readers_have_asked_again() {
        let toggles = Toggles::new(ruleset(false));
        let user = Context::anonymous();
        assert!(!toggles.is_on("checkout", &user));
        let before: Weak<Ruleset> = Arc::downgrade(&toggles.ruleset());
        toggles.replace(ruleset(true));
        assert!(before.upgrade().is_some());
        assert!(toggles.is_on("checkout", &user));
        assert!(before.upgrade().is_none());
    }
}
