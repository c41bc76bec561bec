//! Versions of all dialects, compared in the order of Semantic Versioning 2.0.0.

use std::cmp::Ordering;

use semver::{BuildMetadata, Prerelease, Version};

use crate::model::VersionDialect;

/// A version of three numbers below 2^21, in one machine word that compares as the version does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packed(u64);

impl Packed {
    #[inline]
    fn of(numbers: [u64; 3]) -> Option<Self> {
        let [major, minor, patch] = numbers;
        let fits = (major | minor | patch) >> 21 == 0;
        fits.then_some(Self(major << 42 | minor << 21 | patch))
    }

    /// The version `text`, if it is that simple.
    #[inline]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        plain(text).and_then(Self::of)
    }

    fn numbers(self) -> [u64; 3] {
        [42, 21, 0].map(|shift| (self.0 >> shift) & ((1 << 21) - 1))
    }

    pub(crate) fn version(self) -> Version {
        let [major, minor, patch] = self.numbers();
        Version::new(major, minor, patch)
    }

    /// How the version `text` compares with this one; `None` if it is no version.
    #[inline]
    pub(crate) fn compared(self, text: &str, dialect: VersionDialect) -> Option<Ordering> {
        match Self::parse(text) {
            Some(theirs) => Some(theirs.cmp(&self)),
            None => self.compared_slowly(text, dialect),
        }
    }

    #[cold]
    fn compared_slowly(self, text: &str, dialect: VersionDialect) -> Option<Ordering> {
        Some(parse(text, dialect)?.cmp_precedence(&self.version()))
    }
}

/// A version operand: the parsed version, and its three numbers if that is all there is.
#[derive(Debug)]
pub(crate) struct Operand {
    plain: Option<[u64; 3]>,
    version: Version,
}

impl Operand {
    pub(crate) fn parse(text: &str, dialect: VersionDialect) -> Option<Self> {
        if let Some([major, minor, patch]) = plain(text) {
            return Some(Self {
                plain: Some([major, minor, patch]),
                version: Version::new(major, minor, patch),
            });
        }
        let version = parse(text, dialect)?;
        let plain = version.pre.is_empty().then_some([version.major, version.minor, version.patch]);
        Some(Self { plain, version })
    }

    /// How the version `text` compares with this one; `None` if it is no version.
    #[inline]
    pub(crate) fn compared(&self, text: &str, dialect: VersionDialect) -> Option<Ordering> {
        if let (Some(mine), Some(theirs)) = (self.plain, plain(text)) {
            return Some(theirs.cmp(&mine));
        }
        Some(parse(text, dialect)?.cmp_precedence(&self.version))
    }

    /// How a version of three small numbers compares with this one.
    #[inline]
    pub(crate) fn compared_packed(&self, theirs: Packed) -> Ordering {
        match self.plain {
            Some(mine) => theirs.numbers().cmp(&mine),
            None => theirs.version().cmp_precedence(&self.version),
        }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// The same packed, if it is that simple.
    pub(crate) fn packed(&self) -> Option<Packed> {
        self.plain.and_then(Packed::of)
    }
}

/// The numbers of a text that is exactly `x.y.z`, each without leading zeros and below a billion: the way nearly all versions look.
#[inline]
fn plain(text: &str) -> Option<[u64; 3]> {
    let mut numbers = [0_u64; 3];
    let mut at = 0;
    let mut digits = 0_u32;
    for byte in text.bytes() {
        if byte == b'.' {
            if digits == 0 || at == 2 {
                return None;
            }
            at += 1;
            digits = 0;
            continue;
        }
        let digit = byte.wrapping_sub(b'0');
        let number = numbers.get_mut(at)?;
        if digit > 9 || digits == 9 || (digits == 1 && *number == 0) {
            return None;
        }
        *number = *number * 10 + u64::from(digit);
        digits += 1;
    }
    (at == 2 && digits > 0).then_some(numbers)
}

/// A version in a dialect.
pub(crate) fn parse(text: &str, dialect: VersionDialect) -> Option<Version> {
    match dialect {
        VersionDialect::Strict => Version::parse(text).ok(),
        VersionDialect::Partial => partial(text),
        VersionDialect::Prefixed => partial(text.strip_prefix(['v', 'V']).unwrap_or(text)),
    }
}

fn partial(text: &str) -> Option<Version> {
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at_checked(end)?;
    if core.bytes().filter(|byte| *byte == b'.').count() == 2 {
        return Version::parse(text).ok();
    }
    let mut parts = core.split('.');
    let major = number(parts.next()?)?;
    let minor = parts.next().map_or(Some(0), number)?;
    if parts.next().is_some() {
        return None;
    }
    let (pre, build) = match rest.split_once('+') {
        Some((pre, build)) => (pre, Some(build)),
        None => (rest, None),
    };
    let pre = match pre.strip_prefix('-') {
        Some("") => return None,
        Some(pre) => Prerelease::new(pre).ok()?,
        None => Prerelease::EMPTY,
    };
    let build = match build {
        Some("") => return None,
        Some(build) => BuildMetadata::new(build).ok()?,
        None => BuildMetadata::EMPTY,
    };
    Some(Version { major, minor, patch: 0, pre, build })
}

fn number(text: &str) -> Option<u64> {
    let zero_first = text.len() > 1 && text.starts_with('0');
    (!zero_first && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_accept_what_their_formats_accept() {
        use VersionDialect::{Partial, Prefixed, Strict};
        for (text, strict, partial, prefixed) in [
            ("1.2.3", true, true, true),
            ("1.2.3-rc.1+b", true, true, true),
            ("1.2", false, true, true),
            ("1", false, true, true),
            ("1-beta", false, true, true),
            ("1.2+build", false, true, true),
            ("v1.2.3", false, false, true),
            ("V1", false, false, true),
            ("vv1", false, false, false),
            ("01.2.3", false, false, false),
            ("01", false, false, false),
            ("1.2.3.4", false, false, false),
            ("", false, false, false),
            ("1.", false, false, false),
            (".1", false, false, false),
            ("1-", false, false, false),
            ("1.2.x", false, false, false),
        ] {
            assert_eq!(parse(text, Strict).is_some(), strict, "{text} strict");
            assert_eq!(parse(text, Partial).is_some(), partial, "{text} partial");
            assert_eq!(parse(text, Prefixed).is_some(), prefixed, "{text} prefixed");
        }
    }

    #[test]
    fn the_short_way_agrees_with_the_long_one() {
        let texts = [
            "0.0.0",
            "1.2.3",
            "1.10.0",
            "1.9.9",
            "01.2.3",
            "1.2.3-a",
            "1.2",
            "1.2.3.4",
            "",
            "..",
            "1..2",
            "x",
            "1.2.3+b",
            "1.9999999.0",
            "2097152.0.0",
        ];
        for a in texts {
            assert_eq!(
                plain(a).is_some(),
                Version::parse(a).is_ok_and(|v| v.pre.is_empty() && v.build.is_empty()),
                "{a}"
            );
            let Some(operand) = Operand::parse(a, VersionDialect::Strict) else { continue };
            for b in texts {
                let long = Version::parse(b).ok().map(|b| b.cmp_precedence(operand.version()));
                assert_eq!(operand.compared(b, VersionDialect::Strict), long, "{b} with {a}");
                let packed = operand.packed().map(|packed| packed.compared(b, VersionDialect::Strict));
                assert!(packed.is_none_or(|packed| packed == long), "{b} with packed {a}");
            }
        }
    }
}
