//! Values in deterministic CBOR (RFC 8949, section 4.2): one value, one sequence of bytes, whatever language wrote the number.

use super::coerce::View;
use crate::{
    hash::Murmur3,
    value::{Number, Value},
};

/// Takes bytes.
pub(super) trait Sink {
    fn take(&mut self, bytes: &[u8]);
}

impl Sink for Murmur3 {
    fn take(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Sink for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Writes a value. Floats without a fraction count as integers, others take the shortest width that keeps them exact; keys are ordered by
/// their bytes.
pub(super) fn write(view: View<'_>, sink: &mut impl Sink) {
    match view {
        View::Null => sink.take(&[0xf6]),
        View::Bool(yes) => sink.take(&[if yes { 0xf5 } else { 0xf4 }]),
        View::Number(value) => number(value, sink),
        View::Text(text) => {
            head(3, text.len() as u64, sink);
            sink.take(text.as_bytes());
        }
        View::List(list) => {
            head(4, list.len() as u64, sink);
            for element in list {
                write(element.into(), sink);
            }
        }
        View::Object(entries) => {
            head(5, entries.len() as u64, sink);
            let mut keyed: Vec<(Vec<u8>, &Value)> = entries
                .iter()
                .map(|(key, value)| {
                    let mut bytes = Vec::with_capacity(key.len() + 5);
                    write(View::Text(key), &mut bytes);
                    (bytes, value)
                })
                .collect();
            keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            for (key, value) in keyed {
                sink.take(&key);
                write(value.into(), sink);
            }
        }
    }
}

/// The major type and its number, as short as can be.
#[expect(clippy::cast_possible_truncation, reason = "each within the range that was just checked")]
fn head(major: u8, number: u64, sink: &mut impl Sink) {
    let major = major << 5;
    match number {
        0..=23 => sink.take(&[major | number as u8]),
        24..=0xff => sink.take(&[major | 0x18, number as u8]),
        0x100..=0xffff => {
            sink.take(&[major | 0x19]);
            sink.take(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            sink.take(&[major | 0x1a]);
            sink.take(&(number as u32).to_be_bytes());
        }
        _ => {
            sink.take(&[major | 0x1b]);
            sink.take(&number.to_be_bytes());
        }
    }
}

fn number(number: Number, sink: &mut impl Sink) {
    if let Some(whole) = number.as_u64() {
        return head(0, whole, sink);
    }
    if let Some(whole) = number.as_i64() {
        // -1 is 0, -2 is 1 …
        return head(1, !whole.cast_unsigned(), sink);
    }
    let float = number.as_f64();
    if let Some(half) = half(float) {
        sink.take(&[0xf9]);
        return sink.take(&half.to_be_bytes());
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is checked whether it stays exact")]
    let single = float as f32;
    if f64::from(single).to_bits() == float.to_bits() {
        sink.take(&[0xfa]);
        return sink.take(&single.to_be_bytes());
    }
    sink.take(&[0xfb]);
    sink.take(&float.to_be_bytes());
}

/// The bits of a half-precision float, if that keeps it exact. All NaNs are one.
fn half(float: f64) -> Option<u16> {
    if float.is_nan() {
        return Some(0x7e00);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is checked whether it stays exact")]
    let single = float as f32;
    if f64::from(single).to_bits() != float.to_bits() {
        return None;
    }
    let bits = single.to_bits();
    let sign = u16::try_from(bits >> 31).ok()? << 15;
    if single.is_infinite() {
        return Some(sign | 0x7c00);
    }
    let exponent = i32::try_from((bits >> 23) & 0xff).ok()? - 127;
    let fraction = bits & 0x007f_ffff;
    let (high, kept, lost) = match exponent {
        -14..=15 => (u16::try_from(exponent + 15).ok()? << 10, fraction >> 13, fraction & 0x1fff),
        -24..=-15 => {
            let shift = u32::try_from(-1 - exponent).ok()?;
            let full = fraction | 0x0080_0000;
            (0, full >> shift, full & ((1 << shift) - 1))
        }
        _ => return None,
    };
    (lost == 0).then(|| u16::try_from(kept).ok().map(|kept| sign | high | kept))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(value: &str) -> String {
        let value: Value = serde_json::from_str(value).unwrap();
        let mut bytes = Vec::new();
        write((&value).into(), &mut bytes);
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }

    #[test]
    fn values_are_written_as_the_standard_says() {
        // The first ones are the notes', the others from RFC 8949, appendix A.
        for (value, expected) in [
            ("true", "f5"),
            ("123", "187b"),
            ("1.23", "fb3ff3ae147ae147ae"),
            ("\"user1\"", "657573657231"),
            ("-2", "21"),
            (r#"{"b":1,"a":2}"#, "a2616102616201"),
            ("0", "00"),
            ("-0.0", "00"),
            ("23", "17"),
            ("24", "1818"),
            ("1000", "1903e8"),
            ("1000000", "1a000f4240"),
            ("1000000000000", "1b000000e8d4a51000"),
            ("18446744073709551615", "1bffffffffffffffff"),
            ("-1000", "3903e7"),
            ("-9223372036854775808", "3b7fffffffffffffff"),
            ("1.0", "01"),
            ("1.5", "f93e00"),
            ("1e300", "fb7e37e43c8800759c"),
            ("3.4028234663852886e+38", "fa7f7fffff"),
            ("5.960464477539063e-8", "f90001"),
            ("0.00006103515625", "f90400"),
            ("-4.1", "fbc010666666666666"),
            ("[1,[2,3]]", "8201820203"),
            ("null", "f6"),
            ("\"\u{fc}\"", "62c3bc"),
        ] {
            assert_eq!(hex(value), expected, "{value}");
        }
    }
}
