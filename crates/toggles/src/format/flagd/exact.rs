//! A targeting as rules that come to exactly the same: the engine walks those faster and keeps less of them.
//!
//! Only what has the same meaning down to missing values and wrong types is taken; anything else stays JSON logic. (`plain` is for people:
//! it may tell of differences.)

use std::sync::Arc;

use super::{
    coerce::{View, ordered},
    compile::Targeting,
    expression::{Expr, Literal, Root, TextTest, VERSIONS, Var, VersionOperator},
};
use crate::{
    engine::{Exact, ValueTest},
    model::{Comparison, Condition, Operator, Outcome, Reason, Rule, Subject, Test, Texts, Truth},
    value::{Number, Value},
};

impl Targeting {
    /// The same as rules, and what everybody else gets; nothing: the default variant.
    pub(super) fn as_rules(&self) -> Option<Exact> {
        let Expr::If(parts) = &self.root else { return None };
        let (pairs, rest) = parts.as_chunks::<2>();
        let rules = pairs.iter().map(|[when, then]| {
            let rule = Rule::new(condition(when)?, self.variant(then)?);
            Some(Rule { reason: Some(Reason::TargetingMatch), ..rule })
        });
        let rules = rules.collect::<Option<Vec<_>>>().filter(|rules| !rules.is_empty())?;
        let otherwise = match rest {
            [] => None,
            [otherwise, ..] => Some((self.variant(otherwise)?, Reason::TargetingMatch)),
        };
        Some(Exact { rules, otherwise })
    }

    /// A variant that is there and can be served.
    fn variant(&self, expression: &Expr) -> Option<Outcome> {
        let Expr::Literal(Literal { variant: Some(index), .. }) = expression else { return None };
        let variant = self.variants.get(*index as usize)?;
        (!variant.value.is_null()).then_some(Outcome::Variant(*index as usize))
    }
}

/// Whether an expression is truthy.
fn condition(expression: &Expr) -> Option<Condition> {
    let all = |parts: &[Expr]| parts.iter().map(condition).collect::<Option<Vec<_>>>();
    Some(match expression {
        Expr::Literal(literal) => Condition::Constant(Truth::from(View::from(&literal.value).is_truthy())),
        // Of nothing at all, neither holds.
        Expr::And(parts) if !parts.is_empty() => Condition::All(all(parts)?),
        Expr::Or(parts) => Condition::Any(all(parts)?),
        Expr::Not(part) => Condition::Not(Box::new(condition(part)?)),
        Expr::Truthy(part) => condition(part)?,
        Expr::TextIs(test) => text_is(test)?,
        Expr::Affix { end, parts } => match &**parts {
            [Expr::Var(var), Expr::Literal(Literal { value: Value::Text(affix), .. })] => {
                let how = if *end { Texts::EndsWith } else { Texts::StartsWith };
                let any_of = vec![(&**affix).into()];
                let operator = Operator::Text { any_of, how, ignore_case: false, scalars: false };
                Test::new(subject(var)?, operator).into()
            }
            _ => return None,
        },
        Expr::VersionIs(test) => match (&test.version, test.operator) {
            (Expr::Var(var), VersionOperator::Compared(comparison)) => {
                let with = test.with.version().to_string().into();
                let operator = Operator::Version { comparison, with, dialect: VERSIONS, numbers: true };
                Test::new(subject(var)?, operator).into()
            }
            _ => return None,
        },
        Expr::Order { comparison, parts } => order(*comparison, parts)?,
        _ => return None,
    })
}

/// One of the texts, or not; what is missing or no text is none of them.
fn text_is(test: &TextTest) -> Option<Condition> {
    // `==` takes texts that are numbers for numbers.
    let is_number = |with: &Value| !View::from(with).number().is_nan();
    if test.loosely.as_ref().is_some_and(is_number) {
        return None;
    }
    let not = Truth::from(test.negate);
    let operator = Operator::OneOf(test.texts.names());
    let is = Test::new(subject(&test.var)?, operator);
    Some(Test { negate: test.negate, missing: not, mismatch: not, ..is }.into())
}

/// A variable on one side, a number on the other.
fn order(comparison: Comparison, parts: &[Expr]) -> Option<Condition> {
    let number = |expression: &Expr| match expression {
        Expr::Literal(Literal { value: Value::Number(number), .. }) => Some(*number),
        _ => None,
    };
    let (var, with, first) = match parts {
        [Expr::Var(var), with] => (var, number(with)?, true),
        [with, Expr::Var(var)] => (var, number(with)?, false),
        _ => return None,
    };
    let order = Order { comparison, with, first };
    let missing = order.holds(View::Null).into();
    Some(Test { missing, ..Test::new(subject(var)?, Operator::Custom(Arc::new(order))) }.into())
}

/// Where a variable looks, if that is an attribute as it is, or the targeting key.
fn subject(var: &Var) -> Option<Subject> {
    match &var.root {
        _ if !var.is_plain() => None,
        Root::TargetingKey => Some(Subject::Key),
        Root::Attribute(name) => Some(Subject::Attribute { name: name.clone(), path: Vec::new() }),
        _ => None,
    }
}

/// `<` and its kin with a number, as JavaScript compares.
#[derive(Debug)]
struct Order {
    comparison: Comparison,
    with: Number,
    /// Whether the value stands before the number.
    first: bool,
}

impl Order {
    #[inline]
    fn holds(&self, value: View<'_>) -> bool {
        let with = View::Number(self.with);
        let (a, b) = if self.first { (value, with) } else { (with, value) };
        ordered(self.comparison, a, b)
    }
}

impl ValueTest for Order {
    fn test(&self, value: &Value) -> Truth {
        self.holds(value.into()).into()
    }

    fn describe(&self) -> String {
        let (sign, with) = (self.comparison.sign(), self.with);
        if self.first { format!("{sign} {with}") } else { format!("what {with} is {sign}") }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        context::Context,
        engine::{Fixed, Ruleset},
        format::{
            Format,
            flagd::{Flagd, Resolution},
        },
        model::ValueType,
        value::Value,
    };

    const CONDITIONS: [&str; 22] = [
        r#"{"in": [{"var": "x"}, ["NO", "a-text-of-more-than-15-bytes"]]}"#,
        r#"{"in": [{"var": "x"}, ["a", "b", "c", "d", "e", "f", "g", "h", "NO"]]}"#,
        r#"{"in": [{"var": "targetingKey"}, ["NO", "u"]]}"#,
        r#"{"==": [{"var": "x"}, "NO"]}"#,
        r#"{"!=": [{"var": "x"}, "NO"]}"#,
        r#"{"===": ["1", {"var": "x"}]}"#,
        r#"{"==": [{"var": "x"}, "1"]}"#,
        r#"{"!==": [{"var": "targetingKey"}, "u"]}"#,
        r#"{">": [{"var": "x"}, 0]}"#,
        r#"{">=": [{"var": "x"}, 0]}"#,
        r#"{"<": [{"var": "x"}, 1.5]}"#,
        r#"{"<": [1, {"var": "x"}]}"#,
        r#"{">=": [9007199254740993, {"var": "x"}]}"#,
        r#"{"sem_ver": [{"var": "x"}, ">=", "1.2.0"]}"#,
        r#"{"sem_ver": [{"var": "x"}, "!=", "v1.2.0-rc.1"]}"#,
        r#"{"sem_ver": [{"var": "x"}, "<", "1"]}"#,
        r#"{"starts_with": [{"var": "x"}, "1"]}"#,
        r#"{"ends_with": [{"var": "x"}, "O"]}"#,
        r#"{"!": [{"sem_ver": [{"var": "x"}, "=", "1.2.0"]}]}"#,
        r#"{"and": [{"!=": [{"var": "x"}, "NO"]}, {"or": [{">": [{"var": "x"}, 1]}, {"!": [{"var": "x"}]}]}]}"#,
        r#"{"or": []}"#,
        r#"{"!!": [1]}"#,
    ];

    const VALUES: [&str; 20] = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "1.5",
        "-1",
        "9007199254740993",
        "9007199254740992",
        r#""""#,
        r#""NO""#,
        r#""1""#,
        r#"" 2 ""#,
        r#""1.2.0""#,
        r#""v1.2.0-rc.1""#,
        r#""a-text-of-more-than-15-bytes""#,
        r#""x""#,
        r#"["NO"]"#,
        r#"{"a": 1}"#,
    ];

    /// What makes no difference but keeps a targeting from becoming rules.
    const KEEPS: &str = r#"{"in": [{"var": "nobody"}, {"var": "nothing"}]}"#;

    fn ruleset(targeting: &str) -> Ruleset {
        let flag = format!(
            r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {{"a": "A", "b": "B", "c": "C"}}, "defaultVariant": "c",
                "targeting": {targeting}}}}}}}"#
        );
        Ruleset::compile(Flagd::default().read(&flag).unwrap())
    }

    #[test]
    fn rules_come_to_what_the_targeting_comes_to() {
        let mut became_rules = 0;
        for condition in CONDITIONS {
            for (then, otherwise) in [("", r#", "b""#), ("", ""), (r#", {"!": [{"var": "x"}]}, "b""#, "")] {
                let rest = format!("{then}{otherwise}");
                let ours = ruleset(&format!(r#"{{"if": [{condition}, "a"{rest}]}}"#));
                let theirs = ruleset(&format!(r#"{{"if": [{{"or": [{condition}, {KEEPS}]}}, "a"{rest}]}}"#));
                assert_eq!(theirs.rule_ids("f").count(), 1);
                for value in VALUES {
                    let value: Value = serde_json::from_str(value).unwrap();
                    let fixed = Fixed::default();
                    for context in [Context::new("u"), Context::anonymous()] {
                        let context = context.with("x", value.clone());
                        let [ours, theirs] = [&ours, &theirs].map(|ruleset| {
                            let it = Resolution::of(ruleset, "f", ValueType::Any, &context, &fixed);
                            (it.value.cloned(), it.reason, it.error)
                        });
                        assert_eq!(ours, theirs, "{condition}{rest} of {value}");
                    }
                }
                let (_, trace) = ours.explain("f", &Context::new("u").with("x", 1), &Fixed::default());
                became_rules += usize::from(!trace.to_string().contains("targeting: "));
            }
        }
        // `==` with a text that is a number, and a bare variable, stay what they are.
        assert_eq!(became_rules, (CONDITIONS.len() - 2) * 2);
    }

    #[test]
    fn what_can_not_be_served_stays_a_targeting() {
        for targeting in [
            r#"{"if": [{"==": [{"var": "x"}, "NO"]}, "nobody", "b"]}"#,
            r#"{"if": [{"==": [{"var": "x"}, "NO"]}, null, "b"]}"#,
            r#"{"if": [{"==": [{"var": "x"}, "NO"]}, {"var": "x"}]}"#,
            r#"{"if": ["a"]}"#,
        ] {
            let (_, trace) = ruleset(targeting).explain("f", &Context::new("u"), &Fixed::default());
            assert!(trace.to_string().contains("targeting: "), "{targeting}: {trace}");
        }
    }
}
