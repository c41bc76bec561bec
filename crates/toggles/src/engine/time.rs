//! Moments as documents write them.

use std::borrow::Cow;

use flowline_core::Timestamp;

/// The moment of an RFC 3339 text (section 5.6: a full date, a full time with seconds, and an offset); `None` for anything else. What is
/// finer than a nanosecond is cut off, and a moment beyond what a timestamp can hold (the last hours of the year 9999, which documents write for
/// "never") is the last one that it can.
///
/// ```
/// use flowline_core::Timestamp;
/// use flowline_toggles::engine::rfc3339;
/// assert!(rfc3339("2026-01-31T08:00:00.5+01:00").is_some());
/// assert!(rfc3339("2026-01-31T08:00:00").is_none());
/// assert!(rfc3339("2026-01-31").is_none());
/// assert_eq!(rfc3339("9999-12-31T23:59:59Z"), Some(Timestamp::MAX));
/// ```
pub fn rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let head = bytes.get(..shape.len())?;
    let fits = head.iter().zip(shape).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => byte == other,
    });
    let mut rest = bytes.get(shape.len()..)?;
    let mut digits = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = fraction.get(digits..)?;
    }
    let zone = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1 @ b'0'..=b'2', h2, b':', b'0'..=b'5', m2] => {
            h2.is_ascii_digit() && m2.is_ascii_digit() && (*h1 < b'2' || *h2 < b'4')
        }
        _ => false,
    };
    if !(fits && zone) {
        return None;
    }
    let text = if digits > NANOSECONDS { shortened(text, shape.len(), digits)? } else { Cow::Borrowed(text) };
    text.parse().ok().or_else(|| beyond(&text))
}

/// How many digits of a second's fraction count.
const NANOSECONDS: usize = 9;

/// The same with no more digits in its fraction than count. The fraction's point stands at `point`.
fn shortened(text: &str, point: usize, digits: usize) -> Option<Cow<'_, str>> {
    let (kept, zone) = (text.get(..=point + NANOSECONDS)?, text.get(point + 1 + digits..)?);
    Some(Cow::Owned(format!("{kept}{zone}")))
}

/// The end of what a timestamp can hold, for a moment of a valid date and time that lies beyond it.
#[cold]
fn beyond(text: &str) -> Option<Timestamp> {
    let end = text.rfind(['Z', 'z', '+', '-'])?;
    let local: jiff::civil::DateTime = text.get(..end)?.parse().ok()?;
    match local.year() {
        9999.. => Some(Timestamp::MAX),
        _ => None,
    }
}

/// The moment so many milliseconds after 1970; beyond what a timestamp can hold, the end of that.
#[expect(clippy::cast_possible_truncation, reason = "out of range ends up out of a timestamp's range")]
pub(crate) fn of_milliseconds(milliseconds: f64) -> Option<Timestamp> {
    if !milliseconds.is_finite() {
        return None;
    }
    let end = if milliseconds < 0.0 { Timestamp::MIN } else { Timestamp::MAX };
    Some(Timestamp::from_millisecond(milliseconds as i64).unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_rfc_3339() {
        let second: Timestamp = "1970-01-01T00:00:02Z".parse().unwrap();
        for text in [
            "1970-01-01T00:00:02Z",
            "1970-01-01t00:00:02z",
            "1970-01-01T00:00:02.000000000000Z",
            "1970-01-01T00:00:02.0000000009999+00:00",
            "1969-12-31T17:00:02-07:00",
            "1970-01-01T23:59:02+23:59",
        ] {
            assert_eq!(rfc3339(text), Some(second), "{text}");
        }
        for text in [
            "1970-01-01T00:00:02",
            "1970-01-01T00:00:02.Z",
            "1970-01-01T00:00:02,5Z",
            "1970-01-01T00:00:02+0000",
            "1970-01-01T00:00:02+24:00",
            "1970-01-01T00:00:02+12:60",
            "1970-01-01T24:00:00Z",
            "1970-02-30T00:00:02Z",
            "1970-13-01T00:00:02.1234567890Z",
            "9999-12-32T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "1970-01-01T00:00:02Z ",
            "1970-01-01T00:00:02é",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn moments_beyond_a_timestamp_are_its_end() {
        for text in
            ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999999-05:00", "9999-12-31T00:00:00+00:00"]
        {
            assert_eq!(rfc3339(text), Some(Timestamp::MAX), "{text}");
        }
        assert_eq!(rfc3339("0000-01-01T00:00:00+23:59").map(|time| time < Timestamp::UNIX_EPOCH), Some(true));
        assert_eq!(of_milliseconds(1e300), Some(Timestamp::MAX));
        assert_eq!(of_milliseconds(-1e300), Some(Timestamp::MIN));
        assert_eq!(of_milliseconds(f64::NAN), None);
        assert_eq!(of_milliseconds(2500.9), Timestamp::from_millisecond(2500).ok());
    }
}
