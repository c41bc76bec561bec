//! The intermediate form: what a format's front end says about flags, before the [engine](crate::engine) compiles it.
//!
//! Every format becomes a [`FlagSet`]: flags by key, segments by name, warnings as data. The model says *what decides*, in an order
//! that every format shares, and leaves each format's own meaning of "missing", "wrong type" and "broken" to explicit fields, so that
//! no vendor's rule is built into the engine.
//!
//! # How one flag is evaluated
//! 1. A [fault](Flag::fault) ends it: an error, and the caller's default.
//! 2. [`Switch::Killed`] and [`Switch::Off`] give the flag's [`off`](Flag::off) outcome.
//! 3. [Prerequisites](Flag::prerequisites) in order; the first that does not hold gives its `otherwise` (by default the off outcome).
//! 4. [Rules](Flag::rules) in order. The condition of a rule is [true, false or broken](Truth). True: its [`Outcome`] decides, unless that
//!    says [`Outcome::GoOn`] (or is a split that says so past its end). False: the next rule. Broken: what [`Rule::on_broken`] says.
//! 5. The [fallback](Flag::fallback).
//!
//! # Conditions
//! [`Condition::All`] and [`Condition::Any`] look at their parts from left to right and stop at the first that is not true (not false);
//! its truth is theirs. [`Condition::Not`] swaps true and false and leaves broken as it is. [`Condition::Lenient`] replaces broken by
//! false. A [`Test`] compares one [`Subject`] with an [`Operator`]; it carries what it means if the subject is missing or has a type
//! that the operator can't take, *after* negation, so a format writes its row of the table of negation down once, in its front end.
//!
//! # What has no node
//! A vendor's oddities that would bend the nodes (GrowthBook's JavaScript coercions, flagd's JSON logic) are compiled by the format
//! into its own type, which the engine calls at one of three places: [`Operator::Custom`] (looks at one value), [`Condition::Custom`]
//! (looks at the whole [`Situation`](crate::engine::Situation)) and [`Outcome::Custom`] (decides by itself).
//!
//! # An example
//! A format that says "`checkout` is on for Norway, and for a quarter of everybody else" compiles it to:
//!
//! ```
//! use flowline_toggles::{
//!     context::Context,
//!     engine::{Fixed, Ruleset},
//!     model::*,
//! };
//!
//! let norway = Test::new(Subject::attribute("country"), Operator::one_of(["NO"]));
//! let quarter = Share {
//!     bucketing: Bucketing {
//!         input: vec![Input::Literal("checkout:".into()), Input::of(Subject::Key)],
//!         hash: Hash::Murmur3 { seed: 0 },
//!         scale: Scale::Modulo { of: 100, plus: 1 },
//!         missing: MissingInput::NoPoint,
//!     },
//!     ranges: vec![Range::up_to_and_with(25.0)],
//! };
//! let mut flag = Flag::boolean("checkout");
//! flag.rules.push(Rule::new(norway.into(), Outcome::Variant(flag.on_index())));
//! flag.rules.push(Rule::new(Condition::Share(quarter), Outcome::Variant(flag.on_index())));
//!
//! let mut set = FlagSet::new("example");
//! set.flags.push(flag);
//! let ruleset = Ruleset::compile(set);
//! assert!(ruleset.warnings().is_empty());
//! assert!(ruleset.is_on("checkout", &Context::new("user-1").with("country", "NO"), &Fixed::default()));
//! ```
//!
//! # For front ends
//! - Never fail a whole document for one flag. What can't be understood becomes a [`Warning`] with the flag's name and place, and either a
//!   flag with a [fault](Flag::fault), a missing flag, or a condition that is [`Condition::Constant`], as the format's rules say.
//! - The engine compiles patterns, networks and versions; one that does not compile makes that test's truth
//!   [`Test::invalid`] and adds a warning by itself.
//! - A flag's [`Facts`] are for people and tools; evaluation does not read them.

mod bucketing;
mod condition;
mod flag;
mod operator;
mod warning;

pub use bucketing::{Bucketing, Hash, Input, MissingInput, PastEnd, Range, Scale, Share, Slice, Split};
pub use condition::{Condition, FlagCheck, Period, Subject, Test, Truth};
pub use flag::{
    Facts, Fault, FaultCode, Flag, FlagKind, FlagSet, OnBroken, Outcome, Prerequisite, Reason, Rule, Segment,
    Switch, ValueType, Variant,
};
pub use operator::{Comparison, Lists, Operator, Texts, VersionDialect};
pub use warning::Warning;
pub(crate) use warning::short;
