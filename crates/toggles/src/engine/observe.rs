//! Who watches an evaluation: nobody, or a trace that becomes an explanation.
//!
//! There is one evaluator, generic over the observer, so an explanation can't disagree with the evaluation that it explains.

use std::fmt;

use serde::Serialize;

use crate::{
    model::{Range, Truth},
    value::Value,
};

/// Watches an evaluation. Sees parts open and close, in the order in which they were looked at.
pub trait Observer {
    /// Whether anything is to be told at all. Everything else is only called if so.
    fn recording(&self) -> bool;
    /// A part is looked at now.
    fn open(&mut self, part: Part, said: String);
    /// The value that the part looks at; `None`: missing.
    fn saw(&mut self, value: Option<&Value>);
    /// A hash placed the context at `point`, in `range` if there is one for it.
    fn placed(&mut self, point: f64, range: Option<Range>);
    /// A format's own code has something to say.
    fn note(&mut self, name: &'static str, value: Value);
    /// The part that was opened last comes to this.
    fn close(&mut self, came: Came);
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// A flag.
    Flag,
    /// A prerequisite, or a condition on another flag.
    Prerequisite,
    /// A rule, by index.
    Rule(usize),
    /// A condition.
    Condition,
    /// A segment.
    Segment,
    /// A split.
    Split,
    /// A format's own outcome.
    Outcome,
}

/// What a part came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Came {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Its definition makes no sense.
    Broken,
    /// It decided: for this variant (or value).
    Decided(String),
    /// It did not decide; the next one is asked.
    WentOn,
    /// It ended in this error.
    Failed(String),
}

impl From<Truth> for Came {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::True,
            Truth::False => Self::False,
            Truth::Broken => Self::Broken,
        }
    }
}

/// Nobody watches: everything about observers vanishes when compiled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Observer for Nobody {
    #[inline]
    fn recording(&self) -> bool {
        false
    }
    fn open(&mut self, _: Part, _: String) {}
    fn saw(&mut self, _: Option<&Value>) {}
    fn placed(&mut self, _: f64, _: Option<Range>) {}
    fn note(&mut self, _: &'static str, _: Value) {}
    fn close(&mut self, _: Came) {}
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn recording(&self) -> bool {
        (**self).recording()
    }
    fn open(&mut self, part: Part, said: String) {
        (**self).open(part, said);
    }
    fn saw(&mut self, value: Option<&Value>) {
        (**self).saw(value);
    }
    fn placed(&mut self, point: f64, range: Option<Range>) {
        (**self).placed(point, range);
    }
    fn note(&mut self, name: &'static str, value: Value) {
        (**self).note(name, value);
    }
    fn close(&mut self, came: Came) {
        (**self).close(came);
    }
}

/// One part of an evaluation as it was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What was looked at.
    pub part: Part,
    /// What it asks for: `country is one of "NO", "SE"`.
    pub said: String,
    /// The value that it saw; `None`: missing, or it looks at no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saw: Option<Value>,
    /// Where a hash placed the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point: Option<f64>,
    /// The range in which that lies: from (included), until.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// What a format's own code told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(&'static str, Value)>,
    /// What it came to.
    pub came: Came,
    /// What was looked at for it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// Everything that an evaluation looked at, in order: the answer to "why?", in one shape for all formats.
///
/// Prints as an indented list.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Trace {
    /// What was looked at.
    pub steps: Vec<Step>,
    #[serde(skip)]
    open: Vec<Step>,
}

impl Observer for Trace {
    fn recording(&self) -> bool {
        true
    }

    fn open(&mut self, part: Part, said: String) {
        self.open.push(Step {
            part,
            said,
            saw: None,
            point: None,
            range: None,
            notes: Vec::new(),
            came: Came::WentOn,
            steps: Vec::new(),
        });
    }

    fn saw(&mut self, value: Option<&Value>) {
        if let Some(step) = self.open.last_mut() {
            step.saw = value.cloned();
        }
    }

    fn placed(&mut self, point: f64, range: Option<Range>) {
        if let Some(step) = self.open.last_mut() {
            step.point = Some(point);
            step.range = range.map(|range| (range.from, range.until));
        }
    }

    fn note(&mut self, name: &'static str, value: Value) {
        if let Some(step) = self.open.last_mut() {
            step.notes.push((name, value));
        }
    }

    fn close(&mut self, came: Came) {
        if let Some(mut step) = self.open.pop() {
            step.came = came;
            self.open.last_mut().map_or(&mut self.steps, |parent| &mut parent.steps).push(step);
        }
    }
}

impl Trace {
    /// All steps, outer ones before those within.
    pub fn walk(&self) -> impl Iterator<Item = &Step> {
        let mut stack: Vec<&Step> = self.steps.iter().rev().collect();
        std::iter::from_fn(move || {
            let step = stack.pop()?;
            stack.extend(step.steps.iter().rev());
            Some(step)
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn lines(f: &mut fmt::Formatter<'_>, steps: &[Step], depth: usize) -> fmt::Result {
            for step in steps {
                write!(f, "{:1$}", "", depth * 2)?;
                match step.part {
                    Part::Flag => write!(f, "flag {}", step.said)?,
                    Part::Prerequisite => write!(f, "prerequisite: {}", step.said)?,
                    Part::Rule(index) if step.said.is_empty() => write!(f, "rule {}", index + 1)?,
                    Part::Rule(index) => write!(f, "rule {} ({})", index + 1, step.said)?,
                    Part::Segment => write!(f, "segment {}", step.said)?,
                    Part::Condition | Part::Split | Part::Outcome => f.write_str(&step.said)?,
                }
                if let Some(saw) = &step.saw {
                    write!(f, ", saw {saw}")?;
                }
                if let Some(point) = step.point {
                    write!(f, ", at point {point}")?;
                }
                if let Some((from, until)) = step.range {
                    if from.is_finite() {
                        write!(f, " in {from} to {until}")?;
                    } else {
                        write!(f, " in up to {until}")?;
                    }
                }
                match &step.came {
                    Came::True => f.write_str(": yes")?,
                    Came::False => f.write_str(": no")?,
                    Came::Broken => f.write_str(": broken")?,
                    Came::Decided(what) => write!(f, ": {what}")?,
                    Came::WentOn => f.write_str(": goes on")?,
                    Came::Failed(why) => write!(f, ": error, {why}")?,
                }
                writeln!(f)?;
                for (name, value) in &step.notes {
                    writeln!(f, "{:1$}{name} = {value}", "", depth * 2 + 2)?;
                }
                lines(f, &step.steps, depth + 1)?;
            }
            Ok(())
        }
        lines(f, &self.steps, 0)
    }
}
