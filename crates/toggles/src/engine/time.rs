//! Moments as documents write them.

use flowline_core::Timestamp;

/// The moment of an RFC 3339 text (section 5.6: a full date, a full time with seconds, and an offset); `None` for anything else.
///
/// ```
/// use flowline_toggles::engine::rfc3339;
/// assert!(rfc3339("2026-01-31T08:00:00.5+01:00").is_some());
/// assert!(rfc3339("2026-01-31T08:00:00").is_none());
/// assert!(rfc3339("2026-01-31").is_none());
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
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = fraction.get(digits..)?;
    }
    let zone = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', m1, m2] => {
            hours.len() == 2 && hours.iter().chain([m1, m2]).all(u8::is_ascii_digit)
        }
        _ => false,
    };
    (fits && zone).then(|| text.parse().ok())?
}

/// The moment so many milliseconds after 1970.
#[expect(clippy::cast_possible_truncation, reason = "out of range ends up out of a timestamp's range")]
pub(crate) fn of_milliseconds(milliseconds: f64) -> Option<Timestamp> {
    milliseconds.is_finite().then(|| Timestamp::from_millisecond(milliseconds as i64).ok())?
}
