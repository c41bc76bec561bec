//! The expressions in the suite's flag set: `email == 'a@b.c' && age > 10 ? 'internal' : ''`.

use crate::{
    client::{EvaluationContext, Field},
    value::Value,
};

/// An expression, parsed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Literal(Value),
    Attribute(String),
    Not(Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    Choice(Box<Self>, Box<Self>, Box<Self>),
}

/// Weakest first.
const LEVELS: [&[&str]; 4] = [&["||"], &["&&"], &["===", "!==", "==", "!="], &["<=", ">=", "<", ">"]];

impl Expression {
    /// Parses `text`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text };
        let expression = reader.choice()?;
        if reader.rest.trim().is_empty() { Ok(expression) } else { Err(reader.wrong("the end")) }
    }

    /// What it comes to; an attribute that is not there is null.
    pub(super) fn evaluate(&self, context: &EvaluationContext) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Attribute(name) if name == "targetingKey" => {
                context.targeting_key().map(Value::from).into()
            }
            Self::Attribute(name) => context.get(name).map(Field::to_value).into(),
            Self::Not(inner) => (!truthy(&inner.evaluate(context))).into(),
            Self::Choice(when, then, otherwise) => {
                if truthy(&when.evaluate(context)) { then } else { otherwise }.evaluate(context)
            }
            Self::Binary(operator, left, right) => {
                let left = left.evaluate(context);
                match *operator {
                    "||" => return if truthy(&left) { left } else { right.evaluate(context) },
                    "&&" => return if truthy(&left) { right.evaluate(context) } else { left },
                    _ => {}
                }
                let right = right.evaluate(context);
                let numbers = left.as_f64().zip(right.as_f64());
                match *operator {
                    "==" | "===" => left == right,
                    "!=" | "!==" => left != right,
                    "<" => numbers.is_some_and(|(left, right)| left < right),
                    "<=" => numbers.is_some_and(|(left, right)| left <= right),
                    ">" => numbers.is_some_and(|(left, right)| left > right),
                    _ => numbers.is_some_and(|(left, right)| left >= right),
                }
                .into()
            }
        }
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::List(_) | Value::Object(_) => true,
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn wrong(&self, expected: &str) -> String {
        format!("expected {expected} at `{}`", self.rest)
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        let taken = rest.strip_prefix(token);
        self.rest = taken.unwrap_or(rest);
        taken.is_some()
    }

    fn choice(&mut self) -> Result<Expression, String> {
        let when = self.binary(0)?;
        if !self.take("?") {
            return Ok(when);
        }
        let then = self.choice()?;
        if !self.take(":") {
            return Err(self.wrong("`:`"));
        }
        Ok(Expression::Choice(when.into(), then.into(), self.choice()?.into()))
    }

    fn binary(&mut self, level: usize) -> Result<Expression, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            left = Expression::Binary(operator, left.into(), self.binary(level + 1)?.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, String> {
        if self.take("!") {
            return Ok(Expression::Not(self.unary()?.into()));
        }
        if self.take("(") {
            let inner = self.choice()?;
            return if self.take(")") { Ok(inner) } else { Err(self.wrong("`)`")) };
        }
        for quote in ["'", "\""] {
            if self.take(quote) {
                let (text, rest) =
                    self.rest.split_once(quote).ok_or_else(|| self.wrong("the closing quote"))?;
                self.rest = rest;
                return Ok(Expression::Literal(text.into()));
            }
        }
        let rest = self.rest.trim_start();
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.' && c != '$' && c != '-')
            .unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        if word.is_empty() {
            return Err(self.wrong("a value"));
        }
        self.rest = rest;
        Ok(match word {
            "true" => Expression::Literal(true.into()),
            "false" => Expression::Literal(false.into()),
            "null" | "undefined" => Expression::Literal(Value::Null),
            word => word.parse::<f64>().map_or_else(
                |_| Expression::Attribute(word.to_owned()),
                |number| Expression::Literal(number.into()),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_expressions_are_understood() {
        let text = "!customer && email == 'ballmer@macrosoft.com' && age > 10 ? 'internal' : ''";
        let expression = Expression::parse(text).unwrap();
        let ballmer = EvaluationContext::new().with("email", "ballmer@macrosoft.com").with("age", 65);
        assert_eq!(expression.evaluate(&ballmer), "internal".into());
        assert_eq!(expression.evaluate(&ballmer.with("customer", true)), "".into());
        assert_eq!(expression.evaluate(&EvaluationContext::EMPTY), "".into());
        assert!(Expression::parse("a == ").is_err());
        assert!(Expression::parse("a b").is_err());
    }
}
