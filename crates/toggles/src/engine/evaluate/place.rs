//! Where a hash places the context.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::Walk;
use crate::{
    engine::{
        node::{Bucket, Pick, Piece, Start},
        scratch::Scratch,
    },
    hash::{Feed, Fnv1aTwice, Md5Bits, Sha1Bits},
    model::{Hash, MissingInput, Scale, Truth},
    value::{Number, Value},
};

impl<'a> Walk<'a> {
    /// Where the context lies; without a point, what a share then comes to.
    #[inline]
    pub(super) fn point(&self, bucket: &'a Bucket) -> Result<f64, Truth> {
        if bucket.key_only
            && let Hash::Xxh3 { seed } = bucket.hash
            && let Some(Value::Text(key)) = self.context.first().key()
            && let Scale::Multiply { of } = bucket.scale
            && !key.is_empty()
        {
            return Ok(multiplied(xxh3_64_with_seed(key.as_bytes(), seed) >> 32, of));
        }
        self.point_of_more(bucket)
    }

    #[inline(never)]
    fn point_of_more(&self, bucket: &'a Bucket) -> Result<f64, Truth> {
        let number = match (&bucket.start, bucket.hash) {
            (Start::Murmur3(begun), _) => self.hashed(bucket, begun.clone()),
            (Start::Fnv1a(begun), Hash::Fnv1aTwice) => self.hashed(bucket, Fnv1aTwice(begun.clone())),
            (Start::Fnv1a(begun), _) => self.hashed(bucket, begun.clone()),
            (Start::Nothing, Hash::Md5) => self.hashed(bucket, Md5Bits::default()),
            (Start::Nothing, Hash::Xxh3 { seed }) => match bucket.rest() {
                [Piece::Of { picks, scalars, skip_empty }] => {
                    let mut number = None;
                    self.text_of(picks, *scalars, *skip_empty, |text| {
                        number = Some(xxh3_64_with_seed(text.as_bytes(), seed) >> 32);
                    });
                    number
                }
                _ => self.hashed(bucket, Xxh3::with_seed(seed)),
            },
            (Start::Nothing, _) => self.hashed(bucket, Sha1Bits::default()),
        };
        match number {
            Some(number) => placed(number, bucket.scale).ok_or(Truth::False),
            None => self.unplaced(bucket),
        }
    }

    /// The input of the hash is missing.
    #[cold]
    fn unplaced(&self, bucket: &Bucket) -> Result<f64, Truth> {
        match bucket.missing {
            MissingInput::NoPoint => Err(Truth::False),
            MissingInput::Broken => Err(Truth::Broken),
            MissingInput::Point(point) => Ok(point),
            MissingInput::Random => {
                let number = self.ambient.random() >> if bucket.hash == Hash::Sha1 { 4 } else { 32 };
                placed(number, bucket.scale).ok_or(Truth::False)
            }
        }
    }

    /// The number of a hash that has taken the bucket's first texts already.
    #[inline]
    fn hashed<H: Feed>(&self, bucket: &'a Bucket, mut hash: H) -> Option<u64> {
        for piece in bucket.rest() {
            match piece {
                Piece::Literal(text) => hash.feed(text),
                Piece::Of { picks, scalars, skip_empty } => {
                    if !self.text_of(picks, *scalars, *skip_empty, |text| hash.feed(text)) {
                        return None;
                    }
                }
            }
        }
        Some(hash.number())
    }

    /// Hands on the text of the first pick that has one; whether there is one.
    #[inline]
    fn text_of(&self, picks: &'a [Pick], scalars: bool, skip_empty: bool, then: impl FnOnce(&str)) -> bool {
        for pick in picks {
            let seen = self.look(pick);
            match seen.value() {
                Some(Value::Text(text)) if !(skip_empty && text.is_empty()) => {
                    then(text);
                    return true;
                }
                Some(Value::Number(number)) if scalars || is_safe(*number) => {
                    then(Scratch::default().show(number));
                    return true;
                }
                Some(Value::Bool(yes)) if scalars => {
                    then(if *yes { "true" } else { "false" });
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

/// Whether it is a whole number that all vendors write as digits.
fn is_safe(number: Number) -> bool {
    const LIMIT: i64 = (1 << 53) - 1;
    number.as_i64().is_some_and(|whole| (-LIMIT..=LIMIT).contains(&whole))
}

#[expect(clippy::cast_precision_loss, reason = "32 or 60 bits; the format's own precision")]
#[expect(clippy::cast_possible_truncation, reason = "hashes of 32 bits, except where 60 are asked for")]
#[inline]
fn placed(number: u64, scale: Scale) -> Option<f64> {
    const UNIT: f64 = 0x0fff_ffff_ffff_ffff_u64 as f64;
    Some(match scale {
        Scale::Modulo { of, plus } => f64::from((number as u32).checked_rem(of)?) + f64::from(plus),
        Scale::Fraction { of } => f64::from((number as u32).checked_rem(of)?) / f64::from(of),
        Scale::Unit => number as f64 / UNIT,
        Scale::Multiply { of } => multiplied(number, of),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "32 bits times 32 bits, halved")]
#[inline]
fn multiplied(number: u64, of: u32) -> f64 {
    f64::from(((u64::from(number as u32) * u64::from(of)) >> 32) as u32)
}
