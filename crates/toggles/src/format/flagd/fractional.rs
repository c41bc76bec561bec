//! `fractional`: buckets by weight, in three generations of the formula.

use super::{
    Generation,
    cbor::{self, Sink},
    coerce::{Got, View},
    evaluate::{Env, values},
    expression::{Expr, Literal},
};
use crate::{
    hash::Murmur3,
    model::Fault,
    value::{Number, Value},
};

/// A compiled `fractional`.
#[derive(Debug)]
pub(super) struct Fractional {
    generation: Generation,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// All variants and weights are known; their sum is valid.
    Known {
        /// The first operand, if it is no bucket.
        key: Option<Expr>,
        buckets: Box<[Bucket]>,
        total: u32,
        begun: Option<Begun>,
    },
    /// Anything else: the operands are evaluated first.
    Open(Box<[Expr]>),
}

/// The hash of what is the same for everybody: a flag's key and literal texts with which the key begins.
#[derive(Debug)]
struct Begun {
    hash: Murmur3,
    /// How many parts of a key that is put together it has taken.
    taken: usize,
}

#[derive(Debug)]
struct Bucket {
    variant: Literal,
    weight: u32,
}

/// What to hash.
enum Key {
    Hash(u32),
    /// Nothing decides.
    Nothing,
    /// It is no key but the first bucket.
    Bucket(Value),
}

impl Fractional {
    pub(super) fn new(parts: Box<[Expr]>, generation: Generation) -> Self {
        let is_bucket = |part: &Expr| matches!(part, Expr::Literal(Literal { value: Value::List(_), .. }));
        let rest = match parts.split_first() {
            Some((first, rest)) if !is_bucket(first) && !matches!(first, Expr::List(_)) => rest,
            _ => &parts,
        };
        let known = rest
            .iter()
            .map(|part| match part {
                Expr::Literal(literal) => bucket(&literal.value),
                _ => None,
            })
            .collect::<Option<Vec<_>>>();
        let Some((buckets, total)) = known.and_then(|buckets| total(&buckets).map(|total| (buckets, total)))
        else {
            return Self { generation, form: Form::Open(parts) };
        };
        let keyed = buckets.len() < parts.len();
        let key = if keyed { parts.into_iter().next() } else { None };
        let buckets = buckets
            .into_iter()
            .map(|(value, weight)| Bucket { variant: Literal { value, variant: None }, weight })
            .collect();
        Self { generation, form: Form::Known { key, buckets, total, begun: None } }
    }

    /// The formula.
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// What is hashed, if it is given; with [`known`](Self::known) buckets.
    pub(super) fn given_key(&self) -> Option<&Expr> {
        if let Form::Known { key, .. } = &self.form { key.as_ref() } else { None }
    }

    /// The buckets with their weights; `None` if they are only known when it is evaluated.
    pub(super) fn known(&self) -> Option<Vec<(&Literal, u32)>> {
        let Form::Known { buckets, .. } = &self.form else { return None };
        Some(buckets.iter().map(|bucket| (&bucket.variant, bucket.weight)).collect())
    }

    /// Tells which flag it belongs to, and the buckets which variants of that their names are.
    pub(super) fn resolve(&mut self, flag: &str, index_of: &dyn Fn(&str) -> Option<u32>) {
        if let Form::Known { key, buckets, begun, .. } = &mut self.form {
            for bucket in buckets {
                bucket.variant.variant = bucket.variant.value.scalar_text().and_then(|text| index_of(&text));
            }
            if self.generation != Generation::V3 {
                *begun = begin(key.as_ref(), flag);
            }
        }
    }

    pub(super) fn evaluate<'e: 's, 's>(
        &'e self,
        env: &Env<'s>,
        element: Option<&'s Value>,
    ) -> Result<Got<'s>, &'e Fault> {
        let (key, buckets, total, begun) = match &self.form {
            Form::Known { key, buckets, total, begun } => (key, buckets, *total, begun),
            Form::Open(parts) => return Ok(self.open(&values(parts, env, element)?, env)),
        };
        // Whoever wants an explanation hears of every part.
        let begun = begun.as_ref().filter(|_| env.notes.is_none());
        let hash = match self.key(key.as_ref(), begun, env, element)? {
            Key::Hash(hash) => hash,
            Key::Nothing => return Ok(Got::Null),
            Key::Bucket(first) => {
                let known = buckets
                    .iter()
                    .map(|one| Value::list([one.variant.value.clone(), Value::from(one.weight)]));
                let operands: Vec<_> = std::iter::once(first).chain(known).collect();
                return Ok(self.open(&operands, env));
            }
        };
        let chosen = self.choose(hash, buckets.iter().map(|bucket| bucket.weight), total, env);
        Ok(chosen.and_then(|index| buckets.get(index)).map_or(Got::Null, |one| Got::Literal(&one.variant)))
    }

    /// The key that the first operand gives.
    fn key<'e: 's, 's>(
        &self,
        key: Option<&'e Expr>,
        begun: Option<&Begun>,
        env: &Env<'s>,
        element: Option<&'s Value>,
    ) -> Result<Key, &'e Fault> {
        let Some(key) = key else { return Ok(self.default_key(begun, env)) };
        if let (Expr::Cat(parts), Generation::V1 | Generation::V2) = (key, self.generation) {
            // Its text is hashed without being put together.
            let (mut hash, taken) =
                begun.map_or_else(|| (Murmur3::new(0), 0), |begun| (begun.hash.clone(), begun.taken));
            for part in parts.iter().skip(taken) {
                part.viewed(env, element, |view| match view {
                    View::Text(text) => hash.update(text.as_bytes()),
                    other => other.pieces(&mut |piece| hash.update(piece.as_bytes())),
                })?;
            }
            return Ok(Key::Hash(hash.finish()));
        }
        let key = key.evaluate(env, element)?;
        Ok(match key.view() {
            View::List(_) => Key::Bucket(key.into_value()),
            view => self.hashed(view, env),
        })
    }

    /// The hash of a first operand that is no list.
    fn hashed(&self, key: View<'_>, env: &Env<'_>) -> Key {
        match (self.generation, key) {
            (Generation::V3, View::Null) => Key::Nothing,
            (Generation::V3, key) => {
                let mut sink = Murmur3::new(0);
                cbor::write(key, &mut sink);
                Key::Hash(sink.finish())
            }
            (_, View::Text(text)) => Key::Hash(crate::hash::murmur3(text.as_bytes(), 0)),
            (_, View::Null) => self.default_key(None, env),
            // It stays among the buckets and makes them invalid.
            _ => Key::Nothing,
        }
    }

    /// The flag's key and the targeting key; nothing without one.
    fn default_key(&self, begun: Option<&Begun>, env: &Env<'_>) -> Key {
        let Some(key) = env.targeting_key() else { return Key::Nothing };
        if let Some(begun) = begun {
            let mut hash = begun.hash.clone();
            hash.update(key.as_bytes());
            return Key::Hash(hash.finish());
        }
        let mut hash = Murmur3::new(0);
        if self.generation == Generation::V3 {
            hash.take(&[0x82]);
            cbor::write(View::Text(env.flag), &mut hash);
            cbor::write(View::Text(key), &mut hash);
        } else {
            hash.update(env.flag.as_bytes());
            hash.update(key.as_bytes());
        }
        Key::Hash(hash.finish())
    }

    /// The same for operands that are only known now.
    fn open(&self, operands: &[Value], env: &Env<'_>) -> Got<'static> {
        let (hash, buckets) = match operands.split_first() {
            None => return Got::Null,
            Some((Value::List(_), _)) => (self.default_key(None, env), operands),
            Some((key, rest)) => (self.hashed(key.into(), env), rest),
        };
        let Key::Hash(hash) = hash else { return Got::Null };
        let Some(buckets) = buckets.iter().map(bucket).collect::<Option<Vec<_>>>() else { return Got::Null };
        let Some(total) = total(&buckets) else { return Got::Null };
        let chosen = self.choose(hash, buckets.iter().map(|(_, weight)| *weight), total, env);
        match chosen.and_then(|index| buckets.into_iter().nth(index)) {
            Some((variant, _)) => Got::Owned(variant),
            None => Got::Null,
        }
    }

    /// The index of the bucket where the hash lies.
    #[inline]
    fn choose(
        &self,
        hash: u32,
        weights: impl Iterator<Item = u32>,
        total: u32,
        env: &Env<'_>,
    ) -> Option<usize> {
        let (point, chosen) = if self.generation == Generation::V1 {
            let point = f64::from(hash.cast_signed().unsigned_abs()) / f64::from(i32::MAX) * 100.0;
            let mut sum = 0.0;
            let mut weights = weights.map(|weight| 100.0 * f64::from(weight) / f64::from(total));
            (
                point,
                weights.position(|share| {
                    sum += share;
                    point < sum
                }),
            )
        } else {
            let point = (u64::from(hash) * u64::from(total)) >> 32;
            let mut sum = 0_u64;
            let mut weights = weights;
            let chosen = weights.position(|weight| {
                sum += u64::from(weight);
                point < sum
            });
            (Number::from(point).as_f64(), chosen)
        };
        env.point.set(point);
        env.note("fractional", || {
            Value::object([
                ("hash", Value::from(hash)),
                ("point", Value::from(point)),
                ("of", Value::from(if self.generation == Generation::V1 { 100 } else { total })),
                ("bucket", chosen.and_then(|index| i64::try_from(index).ok()).into()),
            ])
        });
        chosen
    }
}

/// What the key of a fractional of `flag` begins with.
fn begin(key: Option<&Expr>, flag: &str) -> Option<Begun> {
    let mut hash = Murmur3::new(0);
    let Some(key) = key else {
        hash.update(flag.as_bytes());
        return Some(Begun { hash, taken: 0 });
    };
    let Expr::Cat(parts) = key else { return None };
    let mut taken = 0;
    for part in parts {
        match part {
            Expr::Var(var) if var.is_flag_key() => hash.update(flag.as_bytes()),
            Expr::Literal(Literal { value: Value::Text(text), .. }) => hash.update(text.as_bytes()),
            _ => break,
        }
        taken += 1;
    }
    (taken > 0).then_some(Begun { hash, taken })
}

/// A bucket's variant and weight; `None` if it makes no sense.
fn bucket(value: &Value) -> Option<(Value, u32)> {
    let (variant, weight) = match value.as_list()? {
        [variant] => (variant, None),
        [variant, weight] => (variant, Some(weight)),
        _ => return None,
    };
    if matches!(variant, Value::List(_) | Value::Object(_)) {
        return None;
    }
    let weight = match weight {
        None | Some(Value::Null) => 1,
        Some(weight @ Value::Number(_)) => u32::try_from(weight.as_i64()?.max(0)).ok()?,
        Some(_) => return None,
    };
    Some((variant.clone(), weight))
}

/// The sum of the weights; `None` if that is 0 or too large.
fn total(buckets: &[(Value, u32)]) -> Option<u32> {
    let sum: u64 = buckets.iter().map(|(_, weight)| u64::from(*weight)).sum();
    u32::try_from(sum).ok().filter(|sum| *sum > 0 && i32::try_from(*sum).is_ok())
}

#[cfg(test)]
mod tests {
    use crate::{
        context::Context,
        engine::{Fixed, Ruleset},
        format::{
            Format,
            flagd::{Flagd, Generation},
        },
    };

    #[test]
    fn a_hash_that_was_begun_places_everybody_where_a_whole_one_does() {
        let user = r#"{"var": "targetingKey"}"#;
        let flag = r#"{"var": "$flagd.flagKey"}"#;
        let keys = [
            String::new(),
            format!(r#"{{"cat": [{flag}, {user}]}},"#),
            format!(r#"{{"cat": ["a-", {flag}, "-", {user}, {flag}]}},"#),
            format!(r#"{{"cat": [{user}, {flag}]}},"#),
            format!(r#"{{"cat": [{flag}]}},"#),
            format!("{user},"),
        ];
        for generation in [Generation::V1, Generation::V2, Generation::V3] {
            for key in &keys {
                let document = format!(
                    r#"{{"flags": {{"some-flag": {{"state": "ENABLED", "variants": {{"a": 1, "b": 2}}, "defaultVariant": "a",
                        "targeting": {{"fractional": [{key} ["a", 30], ["b", 70]]}}}}}}}}"#
                );
                let ruleset = Ruleset::compile(Flagd::new(generation).read(&document).unwrap());
                let fixed = Fixed::default();
                for number in 0..40 {
                    let context = Context::new(format!("user-{number}"));
                    let evaluated = ruleset.evaluate("some-flag", &context, &fixed);
                    // An explanation looks at every part.
                    let (explained, _) = ruleset.explain("some-flag", &context, &fixed);
                    assert!(evaluated.point.is_some(), "{key} {number}");
                    let told = |it: &crate::Evaluation<'_>| (it.point, it.index, it.reason);
                    assert_eq!(told(&evaluated), told(&explained), "{generation:?} {key} {number}");
                }
            }
        }
    }
}
