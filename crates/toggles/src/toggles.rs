//! The handle that programs hold: flags that may change at any moment, read without a lock.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
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
/// (whoever [replaces](Self::replace) or [updates](Self::update)) wait for each other, never for readers.
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
    writer: Mutex<()>,
    ambient: Arc<dyn Ambient>,
}

impl Toggles {
    /// A handle on `ruleset`, with the host's time and chance.
    pub fn new(ruleset: Ruleset) -> Self {
        Self::with_ambient(ruleset, Arc::new(Host::default()))
    }

    /// A handle on `ruleset`, with time and chance from `ambient`.
    pub fn with_ambient(ruleset: Ruleset, ambient: Arc<dyn Ambient>) -> Self {
        let current = ArcSwap::from_pointee(ruleset);
        Self { shared: Arc::new(Shared { current, writer: Mutex::new(()), ambient }) }
    }

    /// Whether `flag` is on for `context`. Off if there is no such flag, or it can't be evaluated.
    #[inline]
    pub fn is_on(&self, flag: &str, context: &Context) -> bool {
        self.shared.current.load().is_on(flag, context, &*self.shared.ambient)
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
        let ruleset = self.shared.current.load();
        then(ruleset.evaluate(flag, context, &*self.shared.ambient))
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
        self.shared.current.store(Arc::new(ruleset));
    }

    /// Changes some flags, at one instant for everybody. Compiles these and nothing else.
    pub fn update(&self, changes: Changes) {
        let _writing = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.shared.current.load().with(changes);
        self.shared.current.store(Arc::new(next));
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
