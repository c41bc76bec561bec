//! A targeting in the model's own words, for translations to other formats: rules for `if`, tests for comparisons, a split for `fractional`.

use super::{
    Generation,
    coerce::View,
    compile::Targeting,
    expression::{Expr, Literal, Root, Var, VersionOperator, index_of},
};
use crate::{
    model::{
        Bucketing, Comparison, Condition, Hash, Input, Lists, MissingInput, Operator, Outcome, PastEnd, Rule,
        Scale, Split, Subject, Test, Texts, Truth, VersionDialect,
    },
    value::Value,
};

impl Targeting {
    /// What it comes to; going on means the default variant.
    pub(super) fn in_words(&self, flag: &str, differs: &mut Vec<String>) -> Option<Outcome> {
        Words { targeting: self, flag, differs }.outcome(&self.root, true)
    }
}

struct Words<'w> {
    targeting: &'w Targeting,
    flag: &'w str,
    differs: &'w mut Vec<String>,
}

impl Words<'_> {
    /// `last`: nothing follows, so that going on is the same as null.
    fn outcome(&mut self, expression: &Expr, last: bool) -> Option<Outcome> {
        match expression {
            Expr::Literal(Literal { value: Value::Null, .. }) => last.then_some(Outcome::GoOn),
            Expr::Literal(literal) => {
                let index = literal
                    .variant
                    .or_else(|| index_of(&self.targeting.variants, &literal.value.scalar_text()?));
                Some(Outcome::Variant(index? as usize))
            }
            Expr::Shared(shared) => self.outcome(shared, last),
            Expr::If(parts) => {
                let mut rules = Vec::with_capacity(parts.len() / 2 + 1);
                let mut parts = parts.iter();
                while let Some(first) = parts.next() {
                    let closes = parts.len() <= 1;
                    match parts.next() {
                        Some(then) => {
                            let when = self.condition(first)?;
                            rules.push(Rule::new(when, self.outcome(then, last && closes)?));
                        }
                        None => rules.push(Rule::new(Condition::ALWAYS, self.outcome(first, last)?)),
                    }
                }
                Some(Outcome::Rules(rules))
            }
            Expr::Fractional(fractional) => {
                let (key, buckets) = (fractional.given_key(), fractional.known()?);
                if fractional.generation() != Generation::V2 {
                    return None;
                }
                if !last {
                    self.differs
                        .push("whoever has nothing to hash gets the default at once in flagd".to_owned());
                }
                let input = self.input(key)?;
                let mut weighted = Vec::with_capacity(buckets.len());
                for (literal, weight) in buckets {
                    let index = literal
                        .variant
                        .or_else(|| index_of(&self.targeting.variants, &literal.value.scalar_text()?));
                    weighted.push((index? as usize, f64::from(weight)));
                }
                let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^31")]
                let scale = Scale::Multiply { of: total as u32 };
                let missing = MissingInput::NoPoint;
                let bucketing = Bucketing { input, hash: Hash::Murmur3 { seed: 0 }, scale, missing };
                let slices = Split::cumulative(weighted, 1.0, false, false);
                Some(Outcome::Split(Box::new(Split { bucketing, slices, past_end: PastEnd::GoOn, on: None })))
            }
            _ => None,
        }
    }

    /// What is hashed.
    fn input(&mut self, key: Option<&Expr>) -> Option<Vec<Input>> {
        let of = |subject, skip_empty| Input::Of { first_of: vec![subject], scalars: true, skip_empty };
        match key {
            None => Some(vec![Input::Literal(self.flag.into()), of(Subject::Key, true)]),
            Some(Expr::Cat(parts)) => {
                let mut input = Vec::with_capacity(parts.len());
                for part in parts {
                    input.push(match part {
                        Expr::Literal(literal) => Input::Literal((&*literal.value.scalar_text()?).into()),
                        Expr::Var(var) if matches!(var.root, Root::FlagKey) => {
                            Input::Literal(self.flag.into())
                        }
                        Expr::Var(var) => {
                            let message =
                                "whoever lacks a part of what is hashed is placed without it in flagd";
                            self.differs.push(message.to_owned());
                            of(subject(var)?, false)
                        }
                        _ => return None,
                    });
                }
                Some(input)
            }
            Some(Expr::Var(var)) => {
                self.differs
                    .push("whoever lacks what is hashed is placed by the targeting key in flagd".to_owned());
                Some(vec![of(subject(var)?, false)])
            }
            Some(_) => None,
        }
    }

    fn condition(&mut self, expression: &Expr) -> Option<Condition> {
        let text = |texts: Vec<String>| Operator::one_of(texts);
        let whole = |subject, operator| Condition::from(Test::new(subject, operator));
        match expression {
            Expr::Literal(literal) => {
                Some(Condition::Constant(Truth::from(View::from(&literal.value).is_truthy())))
            }
            Expr::Shared(shared) => self.condition(shared),
            Expr::And(parts) => Some(Condition::All(self.conditions(parts)?)),
            Expr::Or(parts) => Some(Condition::Any(self.conditions(parts)?)),
            Expr::Not(part) => Some(Condition::Not(Box::new(self.condition(part)?))),
            Expr::Truthy(part) => self.condition(part),
            Expr::TextIs(test) => {
                let texts = test.texts.texts();
                // A text that is a number equals numbers as well.
                let loose =
                    test.loosely.is_some() && texts.iter().any(|text| !View::Text(text).number().is_nan());
                if loose {
                    self.differs.push("flagd's `==` takes texts that are numbers for numbers".to_owned());
                }
                let holds = whole(subject(&test.var)?, text(texts));
                Some(if test.negate { Condition::Not(Box::new(holds)) } else { holds })
            }
            Expr::InSet(set) => match &set.0 {
                Expr::Var(var) => Some(whole(subject(var)?, text(set.1.texts()))),
                _ => None,
            },
            Expr::In(sides) => match &**sides {
                [Expr::Var(var), Expr::Literal(Literal { value: Value::List(list), .. })] => {
                    let plain = |one: &Value| !matches!(one, Value::Null | Value::List(_) | Value::Object(_));
                    list.iter().all(plain).then_some(())?;
                    Some(whole(subject(var)?, Operator::Equals { any_of: list.to_vec() }))
                }
                [Expr::Literal(Literal { value: Value::Text(needle), .. }), Expr::Var(var)] => {
                    let contains = Operator::Text {
                        any_of: vec![(&**needle).into()],
                        how: Texts::Contains,
                        ignore_case: false,
                        scalars: false,
                    };
                    let member = Operator::Equals { any_of: vec![Value::from(&**needle)] };
                    let member = Test { lists: Lists::AnyElement, ..Test::new(subject(var)?, member) };
                    Some(Condition::Any(vec![whole(subject(var)?, contains), member.into()]))
                }
                _ => None,
            },
            Expr::Equal { sides, strict, negate } => {
                let (var, value) = match &**sides {
                    [Expr::Var(var), Expr::Literal(literal)] | [Expr::Literal(literal), Expr::Var(var)] => {
                        (var, &literal.value)
                    }
                    _ => return None,
                };
                let holds = match value {
                    Value::Null => Condition::Not(Box::new(whole(subject(var)?, Operator::Present))),
                    Value::Bool(_) | Value::Number(_) | Value::Text(_) => {
                        // A text that is no number equals nothing but itself.
                        let word = value.as_str().is_some_and(|text| View::Text(text).number().is_nan());
                        if !strict && !word {
                            self.differs.push(
                                "flagd's `==` compares texts, numbers and booleans with each other"
                                    .to_owned(),
                            );
                        }
                        whole(subject(var)?, Operator::Equals { any_of: vec![value.clone()] })
                    }
                    Value::List(_) | Value::Object(_) => return None,
                };
                Some(if *negate { Condition::Not(Box::new(holds)) } else { holds })
            }
            Expr::Order { comparison, parts } => self.order(*comparison, parts),
            Expr::Affix { end, parts } => match &**parts {
                [Expr::Var(var), Expr::Literal(Literal { value: Value::Text(affix), .. })] => {
                    let how = if *end { Texts::EndsWith } else { Texts::StartsWith };
                    let any_of = vec![(&**affix).into()];
                    let operator = Operator::Text { any_of, how, ignore_case: false, scalars: false };
                    Some(whole(subject(var)?, operator))
                }
                _ => None,
            },
            Expr::VersionIs(test) => match (&test.version, test.operator) {
                (Expr::Var(var), VersionOperator::Compared(comparison)) => {
                    self.differs.push("flagd takes numbers for versions, too".to_owned());
                    let with = test.with.version().to_string().into();
                    let dialect = VersionDialect::Prefixed;
                    let operator = Operator::Version { comparison, with, dialect, numbers: false };
                    Some(whole(subject(var)?, operator))
                }
                _ => None,
            },
            Expr::Var(var) => {
                self.differs.push("an empty list counts as nothing in flagd".to_owned());
                let nothing = Operator::Equals { any_of: vec![false.into(), 0.into(), "".into()] };
                let nothing = Condition::Not(Box::new(whole(subject(var)?, nothing)));
                Some(Condition::All(vec![whole(subject(var)?, Operator::Present), nothing]))
            }
            _ => None,
        }
    }

    fn conditions(&mut self, parts: &[Expr]) -> Option<Vec<Condition>> {
        parts.iter().map(|part| self.condition(part)).collect()
    }

    fn order(&mut self, comparison: Comparison, parts: &[Expr]) -> Option<Condition> {
        let number = |expression: &Expr| match expression {
            Expr::Literal(Literal { value, .. }) => value.as_f64(),
            _ => None,
        };
        let turned = match comparison {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            _ => return None,
        };
        let between = matches!(comparison, Comparison::Less | Comparison::LessOrEqual);
        let (var, tests) = match parts {
            [Expr::Var(var), with] => (var, vec![Operator::number(comparison, number(with)?)]),
            [with, Expr::Var(var)] => (var, vec![Operator::number(turned, number(with)?)]),
            [from, Expr::Var(var), until] if between => (
                var,
                vec![Operator::number(turned, number(from)?), Operator::number(comparison, number(until)?)],
            ),
            _ => return None,
        };
        self.differs
            .push("flagd takes missing values and texts for numbers where it compares numbers".to_owned());
        let subject = subject(var)?;
        let tests = tests.into_iter().map(|operator| Test::new(subject.clone(), operator).into());
        Some(Condition::All(tests.collect()))
    }
}

/// Where a variable looks, if the model can look there alike.
fn subject(var: &Var) -> Option<Subject> {
    let plain = |key: &str| !key.is_empty() && !key.bytes().all(|byte| byte.is_ascii_digit());
    if var.default.is_some() || !var.path.iter().all(|key| plain(key)) {
        return None;
    }
    match &var.root {
        Root::TargetingKey if var.path.is_empty() => Some(Subject::Key),
        Root::Attribute(name) => Some(Subject::Attribute { name: name.clone(), path: var.path.to_vec() }),
        _ => None,
    }
}
