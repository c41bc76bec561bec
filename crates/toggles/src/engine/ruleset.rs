//! A compiled set of flags that does not change any more.

use std::{collections::BTreeMap, mem, sync::Arc};

use super::{
    Ambient, Ask, Evaluation, Nobody, Observer, Trace,
    asks::Asked,
    common::Common,
    compile, cycles,
    evaluate::Walk,
    key::hash,
    node::{FlagNode, SegmentNode},
    table::Table,
};
use crate::{
    context::Context,
    model::{Facts, Fault, FaultCode, Flag, FlagSet, Segment, Switch, Truth, ValueType, Variant, Warning},
    value::{Name, Value},
};

/// Flags and segments, compiled. Immutable; [changes](Ruleset::with) make a new one that shares what stays.
///
/// ```
/// use flowline_toggles::{context::Context, engine::{Fixed, Ruleset}, model::{Flag, FlagSet, Outcome}};
/// let mut flag = Flag::boolean("checkout");
/// flag.fallback = Outcome::Variant(1);
/// let ruleset = Ruleset::compile(FlagSet { flags: vec![flag], ..FlagSet::new("example") });
/// let (context, ambient) = (Context::new("user-1"), Fixed::default());
/// let evaluation = ruleset.evaluate("checkout", &context, &ambient);
/// assert!(evaluation.on);
/// assert_eq!(evaluation.variant.map(|variant| &*variant.name), Some("on"));
/// assert!(!ruleset.is_on("unheard-of", &Context::anonymous(), &Fixed::default()));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    pub(crate) flags: Table<FlagNode>,
    pub(crate) segments: Table<SegmentNode>,
    format: &'static str,
    warnings: Arc<[Warning]>,
    facts: Arc<BTreeMap<String, Value>>,
    /// The circles of flags and segments.
    circles: Arc<[Circle]>,
    /// Whether flags in a circle are errors; otherwise a circle is only told.
    refuses_cycles: bool,
}

/// A circle of flags and segments.
#[derive(Debug)]
struct Circle {
    /// One of its segments; nothing: it has only flags.
    segment: Option<String>,
    keys: Vec<String>,
    /// The flags as they would be without it, where they are errors because of it.
    flags: Vec<Arc<FlagNode>>,
    warning: Warning,
}

/// Compiles flags one after the other, so that a reader need not hold a whole document's model.
#[derive(Debug, Default)]
pub struct RulesetBuilder {
    format: &'static str,
    /// With the hash of its key: it lies at hand when a flag was just compiled.
    flags: Vec<(u64, Arc<FlagNode>)>,
    segments: Vec<Arc<SegmentNode>>,
    /// Whether any of them may ask for others.
    asks: bool,
    common: Common,
    refuses_cycles: bool,
    /// What could not be honoured so far.
    pub warnings: Vec<Warning>,
    /// What the document says of itself.
    pub facts: BTreeMap<String, Value>,
}

impl RulesetBuilder {
    /// Adds a flag. Of two with one key the last counts.
    pub fn flag(&mut self, flag: Flag) {
        let hash = hash(&flag.key);
        let flag = compile::flag(flag, &mut self.common, &mut self.warnings);
        self.asks |= flag.asks;
        self.flags.push((hash, Arc::new(flag)));
    }

    /// Adds a segment. Of two with one name the last counts.
    pub fn segment(&mut self, segment: Segment) {
        let segment = compile::segment(segment, &mut self.common, &mut self.warnings);
        self.asks |= segment.asks;
        self.segments.push(Arc::new(segment));
    }

    /// Makes flags that depend on each other in a circle errors, with a warning that names the way round; those that
    /// [changes](Ruleset::with) bring later, too. For formats that refuse circles when a document is loaded; without this they end an
    /// evaluation as [`FlagCheck::cyclic`](crate::model::FlagCheck::cyclic) says.
    pub fn refuse_cycles(&mut self) {
        self.refuses_cycles = true;
    }

    /// Makes room for the flags of a document of so many bytes: growing later costs more than room that stays empty.
    pub(crate) fn expect_bytes(&mut self, document: usize) {
        self.flags.reserve(document / 256);
    }

    /// The ruleset.
    pub fn build(self) -> Ruleset {
        let ruleset = Ruleset {
            flags: Table::of_hashed(self.flags),
            segments: Table::build(self.segments),
            format: self.format,
            warnings: self.warnings.into(),
            facts: Arc::new(self.facts),
            circles: Arc::default(),
            refuses_cycles: self.refuses_cycles,
        };
        if self.asks { ruleset.without_circles(None) } else { ruleset }
    }
}

/// What to change in a ruleset.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Flags to put, replacing those of the same key.
    pub flags: Vec<Flag>,
    /// Keys of flags to remove.
    pub removed_flags: Vec<String>,
    /// Segments to put, replacing those of the same name.
    pub segments: Vec<Segment>,
    /// Names of segments to remove.
    pub removed_segments: Vec<String>,
    /// What could not be honoured in what is put.
    pub warnings: Vec<Warning>,
}

impl Ruleset {
    /// Compiles `set`. Never fails: what can't be compiled becomes a [warning](Self::warnings), and at worst a flag that is an error.
    pub fn compile(set: FlagSet) -> Self {
        let mut builder = Self::builder(set.format);
        builder.warnings = set.warnings;
        builder.facts = set.facts;
        builder.flags.reserve(set.flags.len());
        set.flags.into_iter().for_each(|flag| builder.flag(flag));
        set.segments.into_iter().for_each(|segment| builder.segment(segment));
        builder.refuses_cycles = set.refuse_cycles;
        builder.build()
    }

    /// A ruleset that is built flag by flag: nothing but the compiled form of a flag is kept.
    pub fn builder(format: &'static str) -> RulesetBuilder {
        RulesetBuilder { format, ..RulesetBuilder::default() }
    }

    /// The same with `changes`. Compiles what is put and nothing else; a segment that changed counts for every flag that asks for it. If
    /// circles of flags are refused, a circle that the changes close is, too, until other changes open it.
    #[must_use]
    pub fn with(&self, changes: Changes) -> Self {
        let mut next = self.clone();
        let (mut common, mut warnings) = (Common::default(), changes.warnings);
        let flag = |flag| Arc::new(compile::flag(flag, &mut common, &mut warnings));
        let put: Vec<_> = changes.flags.into_iter().map(flag).collect();
        let segment = |segment| Arc::new(compile::segment(segment, &mut common, &mut warnings));
        let segments: Vec<_> = changes.segments.into_iter().map(segment).collect();
        let removed: Vec<&str> = changes.removed_flags.iter().map(String::as_str).collect();
        if !warnings.is_empty() || !self.warnings.is_empty() {
            let changed = |warning: &&Warning| {
                let flag = warning.flag.as_deref();
                !flag.is_some_and(|flag| removed.contains(&flag) || put.iter().any(|node| node.key.is(flag)))
            };
            next.warnings = self.warnings.iter().filter(changed).cloned().chain(warnings).collect();
        }
        let asking: Vec<String> =
            put.iter().filter(|flag| flag.asks).map(|flag| flag.key.to_string()).collect();
        if !put.is_empty() || !removed.is_empty() {
            next.flags = self.flags.with(put, &removed);
        }
        let same_segments = segments.is_empty() && changes.removed_segments.is_empty();
        if !same_segments {
            let removed: Vec<&str> = changes.removed_segments.iter().map(String::as_str).collect();
            next.segments = self.segments.with(segments, &removed);
        }
        if !same_segments {
            // A segment may lead from any flag to any other.
            next.without_circles(None)
        } else if asking.is_empty() && self.circles.is_empty() {
            next
        } else {
            next.without_circles(Some(&asking))
        }
    }

    /// The same, with a warning for each circle that the flags `asking` (nothing: anything) or the circles known so far lie on; if circles are refused,
    /// with their flags as errors, and no others because of a circle.
    fn without_circles(mut self, asking: Option<&[String]>) -> Self {
        let known = mem::take(&mut self.circles);
        // Whether those are circles still is asked anew. A flag that was put since then is not what stands for a refused one.
        let restored: Vec<_> = known
            .iter()
            .flat_map(|circle| circle.flags.iter().map(move |flag| (circle, flag)))
            .filter(|(circle, flag)| {
                let stands = self.flags.get(&flag.key).and_then(|stands| stands.fault.as_ref());
                stands.is_some_and(|fault| circle.warning.message.starts_with(&*fault.message))
            })
            .map(|(_, flag)| Arc::clone(flag))
            .collect();
        let flags = if restored.is_empty() { self.flags.clone() } else { self.flags.with(restored, &[]) };
        let start: Vec<Asked<'_>> = if let Some(keys) = asking {
            let again = known.iter().flat_map(|circle| &circle.keys).map(|key| Asked::Flag(key));
            let segments = known.iter().filter_map(|circle| circle.segment.as_deref()).map(Asked::Segment);
            keys.iter().map(|key| Asked::Flag(key)).chain(again).chain(segments).collect()
        } else {
            let segments = self.segments.iter().filter(|segment| segment.asks);
            let segments = segments.map(|segment| Asked::Segment(&segment.name));
            let flags = flags.iter().filter(|flag| flag.asks);
            flags.map(|flag| Asked::Flag(&flag.key)).chain(segments).collect()
        };
        let found: Vec<Circle> = cycles::reachable(&flags, &self.segments, start)
            .iter()
            .map(|circle| self.refused(&flags, circle))
            .collect();
        if known.is_empty() && found.is_empty() {
            return self;
        }
        let errors = found.iter().flat_map(|circle| {
            let message = circle.warning.message.split(';').next().unwrap_or_default();
            circle.flags.iter().map(|flag| {
                Arc::new(compile::refused(flag, Fault::new(FaultCode::ParseError, message.to_owned())))
            })
        });
        self.flags = flags.with(errors.collect(), &[]);
        let others = self.warnings.iter().filter(|one| !known.iter().any(|circle| circle.warning == **one));
        self.warnings = others.cloned().chain(found.iter().map(|circle| circle.warning.clone())).collect();
        self.circles = found.into();
        self
    }

    /// A circle that was found, with the flags that are errors because of it as they are in `flags`.
    fn refused(&self, flags: &Table<FlagNode>, circle: &[Asked<'_>]) -> Circle {
        let keys: Vec<String> = circle
            .iter()
            .filter_map(|one| if let Asked::Flag(key) = one { Some((*key).to_owned()) } else { None })
            .collect();
        let segment = circle.iter().find_map(|one| match one {
            Asked::Segment(name) => Some((*name).to_owned()),
            Asked::Flag(_) => None,
        });
        let who = if keys.is_empty() { "segments" } else { "flags" };
        let message = format!("{who} depend on each other: {}", cycles::shown(circle));
        let meaning = match (self.refuses_cycles, keys.is_empty()) {
            (true, false) => "each of them is an error until that is mended",
            (true, true) => "whoever asks for one of them is an error until that is mended",
            (false, _) => "what that comes to is up to the format",
        };
        let message = format!("{message}; {meaning}");
        let warning = match (keys.first(), &segment) {
            (Some(key), None) => Warning::of(key, "requires", message),
            (Some(key), Some(_)) => Warning::of(key, "", message),
            (None, segment) => {
                Warning::general(format!("segments/{}", segment.as_deref().unwrap_or_default()), message)
            }
        };
        let refused = keys.iter().filter(|_| self.refuses_cycles);
        let flags = refused.filter_map(|key| flags.get(key)).map(Arc::clone).collect();
        Circle { segment, keys, flags, warning }
    }

    /// The same with the flags `keys` as `other` has them (not there: removed). They are shared, not compiled again.
    pub(crate) fn sharing(&self, other: &Self, keys: &[&str]) -> Self {
        let put: Vec<_> = keys.iter().filter_map(|key| other.flags.get(key)).map(Arc::clone).collect();
        let removed: Vec<&str> = keys.iter().filter(|key| other.flags.get(key).is_none()).copied().collect();
        let concerns = |warning: &&Warning| warning.flag.as_deref().is_some_and(|flag| keys.contains(&flag));
        let mut next = Self { flags: self.flags.with(put, &removed), ..self.clone() };
        if !self.warnings.is_empty() || !other.warnings.is_empty() {
            let stay = self.warnings.iter().filter(|warning| !concerns(warning));
            next.warnings = stay.chain(other.warnings.iter().filter(concerns)).cloned().collect();
        }
        next
    }

    /// Whether `flag` is on for `context`. Off if there is no such flag, or it can't be evaluated.
    #[inline]
    pub fn is_on(&self, flag: &str, context: &Context, ambient: &dyn Ambient) -> bool {
        match self.flags.get(flag) {
            Some(flag) => match flag.settled {
                Some(on) => on,
                None => self.is_on_for(flag, context, ambient),
            },
            None => false,
        }
    }

    /// Apart, so that a flag that is the same for everybody costs no more than finding it.
    #[inline(never)]
    fn is_on_for(&self, flag: &FlagNode, context: &Context, ambient: &dyn Ambient) -> bool {
        Walk::new(self, context, ambient).is_on(flag)
    }

    /// What `flag` comes to for `context`.
    #[inline]
    pub fn evaluate<'a>(
        &'a self,
        flag: &str,
        context: &'a Context,
        ambient: &'a dyn Ambient,
    ) -> Evaluation<'a> {
        self.observed(flag, context, ambient, &mut Nobody)
    }

    /// The same, watched.
    #[inline]
    pub fn observed<'a, O: Observer>(
        &'a self,
        flag: &str,
        context: &'a Context,
        ambient: &'a dyn Ambient,
        observer: &mut O,
    ) -> Evaluation<'a> {
        match self.flags.get(flag) {
            Some(flag) => Walk::new(self, context, ambient).evaluate(flag, Ask::Everything, observer),
            None => Evaluation::UNKNOWN,
        }
    }

    /// The same, with everything that was looked at on the way.
    pub fn explain<'a>(
        &'a self,
        flag: &str,
        context: &'a Context,
        ambient: &'a dyn Ambient,
    ) -> (Evaluation<'a>, Trace) {
        let mut trace = Trace::default();
        let evaluation = self.observed(flag, context, ambient, &mut trace);
        (evaluation, trace)
    }

    /// Whether `context` is in a segment; `None` if there is no such segment.
    pub fn segment(&self, name: &Name, context: &Context, ambient: &dyn Ambient) -> Option<Truth> {
        Walk::new(self, context, ambient).segment(&name.text(), None, &mut Nobody)
    }

    /// What could not be honoured.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The format that it was read from.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// What the document says of itself.
    pub fn facts(&self) -> &BTreeMap<String, Value> {
        &self.facts
    }

    /// How many flags there are.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a flag of this key.
    pub fn contains(&self, flag: &str) -> bool {
        self.flags.get(flag).is_some()
    }

    /// A flag, looked at from outside.
    pub fn flag(&self, key: &str) -> Option<FlagView<'_>> {
        self.flags.get(key).map(|flag| FlagView { flag })
    }

    /// The ids of the rules of a flag, in order.
    pub(crate) fn rule_ids(&self, flag: &str) -> impl Iterator<Item = Option<&str>> {
        self.flags.get(flag).into_iter().flat_map(|flag| flag.rules.iter().map(|rule| rule.id.as_deref()))
    }

    /// All flags, ordered by key.
    pub fn flags(&self) -> Vec<FlagView<'_>> {
        let mut flags: Vec<_> = self.flags.iter().map(|flag| FlagView { flag }).collect();
        flags.sort_unstable_by(|a, b| a.flag.key.cmp(&b.flag.key));
        flags
    }
}

/// A flag of a ruleset, looked at from outside.
#[derive(Debug, Clone, Copy)]
pub struct FlagView<'a> {
    flag: &'a FlagNode,
}

impl<'a> FlagView<'a> {
    /// Its key.
    pub fn key(&self) -> &'a str {
        &self.flag.key
    }

    /// The type that its values have.
    pub fn value_type(&self) -> ValueType {
        self.flag.value_type
    }

    /// Its master switch.
    pub fn switch(&self) -> Switch {
        self.flag.switch
    }

    /// Its variants.
    pub fn variants(&self) -> &'a [Variant] {
        &self.flag.variants
    }

    /// What people know about it.
    pub fn facts(&self) -> Option<&'a Facts> {
        self.flag.facts.as_deref()
    }
}
