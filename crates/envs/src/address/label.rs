//! How a name becomes a DNS label: which environment a branch gets, and what a name is shortened to so that it never meets another's.
//!
//! A name that is a label already stays as it is. Any other is *marked*: its readable part, a hyphen, and eight base-36 digits of the
//! SHA-256 of the whole name, so that two names that read alike (`feat/x` and `feat_x`, or two that are equal in their first 60
//! characters) stay apart. A name that looks as if it were marked already is marked again; otherwise a branch could be called like another
//! one's mark. So the rule is injective but for a collision of about 39 bits of hash, and it is the same on every machine, for ever.
//!
//! ```
//! use flowline_envs::address::label;
//! let of = |branch: &str| label::environment_of_branch(branch, |_| false).unwrap().to_string();
//! assert_eq!(of("login"), "login");
//! assert!(of("feature/login").starts_with("feature-login-"));
//! assert!(of("../../etc").starts_with("etc-"));
//! assert_ne!(of("feature/login"), of("feature_login"));
//! ```

use std::collections::BTreeSet;

use flowline_core::{
    digest::Digester,
    error::{ErrorKind, Kinded},
    name::{EnvironmentName, NameError},
};

use super::MAX_LABEL;

/// The environment of a pull request: `pr-123` for number 123. Prefer it to [`environment_of_branch`] wherever there is a number.
///
/// # Errors
/// None in practice: the text is always a label.
pub fn environment_of_pull_request(number: u64) -> Result<EnvironmentName, NameError> {
    EnvironmentName::new(format!("pr-{number}"))
}

/// The environment of a branch. `taken` says which names belong to others, such as the environments that stay.
///
/// A branch can be called anything: the name is only ever read as text, and it can become neither a taken name nor that of a pull request
/// (`pr-123`).
///
/// # Errors
/// None in practice: the text is always a label.
pub fn environment_of_branch(
    branch: &str,
    taken: impl Fn(&str) -> bool,
) -> Result<EnvironmentName, NameError> {
    let reserved = |label: &str| taken(label) || is_pull_request(label);
    let label = slug(branch, ["", ""], MAX_LABEL, reserved).unwrap_or_default();
    EnvironmentName::new(label)
}

/// The rule for labels that hold a name between fixed parts: `prefix`, the name, `suffix`, at most 63 bytes together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelRule {
    prefix: String,
    suffix: String,
    reserved: BTreeSet<String>,
}

/// No label can be made: what is fixed leaves no room for a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no label can be made for `{name}`: {room} bytes are left for it, at least {LEAST} are needed; shorten what stands around it"
)]
pub struct NoRoom {
    /// The name that a label was asked for.
    pub name: String,
    /// The bytes that are left.
    pub room: usize,
}

impl Kinded for NoRoom {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl LabelRule {
    /// Labels that are nothing but the name.
    pub fn new() -> Self {
        Self::default()
    }

    /// With `prefix` before the name. Characters that a label can't hold are replaced, as in names.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = squeezed(prefix);
        if self.prefix.starts_with('-') {
            self.prefix.remove(0);
        }
        self
    }

    /// With `suffix` after the name. Characters that a label can't hold are replaced, as in names.
    #[must_use]
    pub fn suffix(mut self, suffix: &str) -> Self {
        self.suffix = squeezed(suffix);
        if self.suffix.ends_with('-') {
            self.suffix.pop();
        }
        self
    }

    /// With labels that belong to others; a name that would give one of them is marked.
    #[must_use]
    pub fn reserve(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.reserved.extend(labels.into_iter().map(Into::into));
        self
    }

    /// The label of `name`: always a valid one, and another for every other name.
    ///
    /// # Errors
    /// [`NoRoom`] if prefix and suffix leave less than 10 bytes and the name does not fit as it is.
    pub fn label(&self, name: &str) -> Result<String, NoRoom> {
        slug(name, [&self.prefix, &self.suffix], MAX_LABEL, |label| self.reserved.contains(label))
    }
}

/// What tells a marked name: eight base-36 digits, the first and last of fixed kinds so that ordinary words are not taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// On a name that became a label: a letter first, a digit last.
    Name,
    /// On a label joined of an environment and a component: a digit first, a letter last.
    Joined,
}

/// A mark's length.
const MARK: usize = 8;

/// The least room for a marked name: one readable character, a hyphen, the mark.
const LEAST: usize = MARK + 2;

impl Mark {
    fn of(self, parts: &[&str], attempt: u64) -> String {
        let mut digester = Digester::new(match self {
            Self::Name => "flowline label 1",
            Self::Joined => "flowline joined label 1",
        });
        for part in parts {
            digester.part(part);
        }
        let digest = digester.part(attempt.to_be_bytes()).finish();
        let mut number =
            digest.as_bytes().iter().take(16).fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        let mut draw = |from: &[u8]| {
            let digit = from.get((number % from.len() as u128) as usize).copied().unwrap_or(b'0');
            number /= from.len() as u128;
            char::from(digit)
        };
        let (digits, letters, all) = (&ALL[..10], &ALL[10..], &ALL[..]);
        let [first, last] = match self {
            Self::Name => [letters, digits],
            Self::Joined => [digits, letters],
        };
        let mut mark = String::with_capacity(MARK);
        mark.push(draw(first));
        mark.extend((2..MARK).map(|_| draw(all)));
        mark.push(draw(last));
        mark
    }

    fn is_on(self, text: &str) -> bool {
        let [first, .., last] = text.as_bytes() else { return false };
        let ends = match self {
            Self::Name => first.is_ascii_lowercase() && last.is_ascii_digit(),
            Self::Joined => first.is_ascii_digit() && last.is_ascii_lowercase(),
        };
        ends && text.len() == MARK && text.bytes().all(|b| ALL.contains(&b))
    }
}

const ALL: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn slug(
    name: &str,
    [prefix, suffix]: [&str; 2],
    max: usize,
    reserved: impl Fn(&str) -> bool,
) -> Result<String, NoRoom> {
    let text = squeezed(name);
    let text = text.trim_matches('-');
    let room = max.saturating_sub(prefix.len() + suffix.len());
    let looks_marked = text.rsplit_once('-').is_some_and(|(_, last)| Mark::Name.is_on(last));
    let whole = |name: &str| format!("{prefix}{name}{suffix}");
    if text == name && !text.is_empty() && text.len() <= room && !looks_marked && !reserved(&whole(text)) {
        return Ok(whole(text));
    }
    if room < LEAST {
        return Err(NoRoom { name: name.to_owned(), room });
    }
    let stem = match cut(text, room - MARK - 1) {
        "" => "x",
        stem => stem,
    };
    let marked = |attempt| whole(&format!("{stem}-{}", Mark::Name.of(&[name], attempt)));
    // A reserved label that happens to be a mark is met once in 10^11 names; another attempt gives another mark.
    let free = (0..16).map(marked).find(|label| !reserved(label));
    Ok(free.unwrap_or_else(|| marked(16)))
}

/// `environment-part`, or the environment alone: the label (or path segment) that a component has in an environment.
///
/// Plain wherever the text can be read back in one way: everything up to the number of `word-number` (`pr-123`) is the environment,
/// otherwise everything up to the last hyphen. What could be read in two ways, or is too long, is marked, before the part if that fits (so
/// that a grant of `*-app.awesome.com` still covers it), otherwise at the end.
pub(super) fn join(environment: &EnvironmentName, part: Option<&str>, max: usize) -> Result<String, NoRoom> {
    let environment = environment.as_str();
    let plain = match part {
        Some(part) => format!("{environment}-{part}"),
        None => environment.to_owned(),
    };
    let looks_marked = plain.split('-').skip(1).any(|segment| Mark::Joined.is_on(segment));
    if plain.len() <= max && !looks_marked && parted(&plain) == (environment, part) {
        return Ok(plain);
    }
    if max < LEAST {
        return Err(NoRoom { name: plain, room: max });
    }
    let mark = match part {
        Some(part) => Mark::Joined.of(&[environment, part], 0),
        None => Mark::Joined.of(&[environment], 0),
    };
    Ok(match part {
        Some(part) if part.len() + 1 + LEAST <= max => {
            let stem = cut(environment, max - part.len() - 1 - MARK - 1);
            format!("{stem}-{mark}-{part}")
        }
        _ => format!("{}-{mark}", cut(&plain, max - MARK - 1)),
    })
}

/// The one way in which a joined label is read back.
fn parted(label: &str) -> (&str, Option<&str>) {
    let word = label.bytes().take_while(u8::is_ascii_lowercase).count();
    if let Some(rest) = label[word..].strip_prefix('-').filter(|_| word > 0) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        match (digits, rest[digits..].strip_prefix('-')) {
            (1.., Some(part)) => return (&label[..=word + digits], Some(part)),
            (1.., None) if rest.len() == digits => return (label, None),
            _ => {}
        }
    }
    label.rsplit_once('-').map_or((label, None), |(environment, part)| (environment, Some(part)))
}

fn is_pull_request(label: &str) -> bool {
    label.strip_prefix("pr-").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower case, everything but letters and digits a hyphen, never two of them side by side.
fn squeezed(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            text.push(character.to_ascii_lowercase());
        } else if !text.ends_with('-') {
            text.push('-');
        }
    }
    text
}

/// At most `max` bytes from the left, without a hyphen at the end. Not in the middle of a character.
fn cut(text: &str, max: usize) -> &str {
    text.get(..max.min(text.len())).unwrap_or(text).trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flowline_core::name::check_label;
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> EnvironmentName {
        name.parse().unwrap()
    }

    #[test]
    fn marks_never_change() {
        let rule = LabelRule::new().reserve(["www"]);
        let of = |name: &str| format!("{name} -> {}", rule.label(name).unwrap());
        let long = "feature/a-very-long-name-that-goes-on-and-on-until-it-does-not-fit-any-more";
        let names = [
            "login",
            "release-1",
            "feature/login",
            "feature_login",
            "Login",
            "login-",
            "größe",
            "///",
            "",
            "../../etc",
            "www",
            "a--b",
            long,
        ];
        insta::assert_snapshot!(names.map(of).join("\n"), @r"
            login -> login
            release-1 -> release-1
            feature/login -> feature-login-xxqda466
            feature_login -> feature-login-ih477em1
            Login -> login-urvsgax4
            login- -> login-f2ag9ki1
            größe -> gr-e-p0ggjfx3
            /// -> x-cyr55095
             -> x-krjju993
            ../../etc -> etc-swp4p389
            www -> www-vejflrw9
            a--b -> a-b-h4i31o59
            feature/a-very-long-name-that-goes-on-and-on-until-it-does-not-fit-any-more -> feature-a-very-long-name-that-goes-on-and-on-until-it-mlgvakb5
            ");
    }

    #[test]
    fn a_name_cannot_be_another_ones_mark() {
        let rule = LabelRule::new();
        let marked = rule.label("feature/login").unwrap();
        let again = rule.label(&marked).unwrap();
        assert_ne!(marked, again);
        assert!(again.starts_with(&marked));
    }

    #[test]
    fn a_branch_cannot_take_the_name_of_another_environment() {
        let taken = |name: &str| name == "production";
        let of = |branch: &str| environment_of_branch(branch, taken).unwrap().to_string();
        assert_ne!(of("production"), "production");
        assert_ne!(of("pr-123"), environment_of_pull_request(123).unwrap().as_str());
        assert_eq!(of("staging"), "staging");
    }

    #[test]
    fn without_room_there_is_an_error_and_not_a_bad_label() {
        let rule = LabelRule::new().suffix(&format!("-{}", "a".repeat(57)));
        assert_eq!(rule.label("short").unwrap().len(), 63);
        insta::assert_snapshot!(rule.label("longer").unwrap_err(), @r"no label can be made for `longer`: 5 bytes are left for it, at least 10 are needed; shorten what stands around it");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_marked() {
        let of = |name: &str, part: Option<&str>| join(&environment(name), part, 63).unwrap();
        assert_eq!(of("pr-123", Some("app")), "pr-123-app");
        assert_eq!(of("pr-123", Some("my-app")), "pr-123-my-app");
        assert_eq!(of("staging", Some("app")), "staging-app");
        assert_eq!(of("next-production", Some("app")), "next-production-app");
        assert_eq!(of("pr-123", None), "pr-123");
        assert_eq!(of("staging", None), "staging");
        insta::assert_snapshot!(
            [
                of("pr", Some("123-app")),
                of("pr-123-my", Some("app")),
                of("pr", Some("123")),
                of("staging", Some("my-app")),
                of("feature-login", None),
                of("pr-123", Some(&"a".repeat(63))),
                of("pr-123", Some(&"a".repeat(50))),
                of(&"e".repeat(63), Some("app")),
            ].join("\n"),
            @r"
            pr-2lmqcmhf-123-app
            pr-123-my-5mxcme4m-app
            pr-1t4vhnxk-123
            staging-16nn03ng-my-app
            feature-login-1uz2wsbc
            pr-123-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-9apj9hdi
            pr-123-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-115adxtd-app
            "
        );
    }

    /// Names as people and attackers choose them: few letters, so that near misses are common.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab1/_.-]{0,6}",
            "[a-zA-Z0-9/_.ü -]{0,90}",
            "a{50,70}[/-]?b{0,9}",
            "(pr|a)-[0-9]{1,3}(-[ab]{1,2}){0,2}",
            "[a-z]{1,4}-[a-z][a-z0-9]{6}[0-9]",
        ]
    }

    fn label() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab1]([ab1-]{0,5}[ab1])?",
            "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            "(pr|a)-[0-9]{1,2}(-[ab]{1,2}){0,2}",
            "a{55,63}",
            "[a-z]{1,4}-[0-9][a-z0-9]{6}[a-z](-[ab])?",
        ]
    }

    proptest! {
        #[test]
        fn labels_are_valid_distinct_and_stable(
            names in prop::collection::btree_set(name(), 1..40),
            prefix in "([a-z]{1,5}-)?", suffix in "(-[a-z]{1,9})?", reserved in prop::collection::btree_set(name(), 0..4),
        ) {
            let rule = LabelRule::new().prefix(&prefix).suffix(&suffix).reserve(reserved.clone());
            let mut seen = BTreeMap::new();
            for name in names {
                let label = rule.label(&name).unwrap();
                prop_assert!(check_label(&label).is_ok(), "{label}");
                prop_assert!(label.starts_with(&prefix) && label.ends_with(&suffix));
                prop_assert!(!reserved.contains(&label));
                prop_assert_eq!(&rule.label(&name).unwrap(), &label);
                if let Some(other) = seen.insert(label.clone(), name.clone()) {
                    prop_assert!(false, "`{name}` and `{other}` both give `{label}`");
                }
            }
        }

        #[test]
        fn joined_labels_are_valid_distinct_and_stable(
            pairs in prop::collection::btree_set((label(), prop::option::of(label())), 1..60), max in 12usize..=63,
        ) {
            let mut seen = BTreeMap::new();
            for (name, part) in pairs {
                let joined = join(&environment(&name), part.as_deref(), max).unwrap();
                prop_assert!(joined.len() <= max);
                prop_assert!(check_label(&joined).is_ok(), "{joined}");
                prop_assert_eq!(&join(&environment(&name), part.as_deref(), max).unwrap(), &joined);
                if let Some(other) = seen.insert(joined.clone(), (name.clone(), part.clone())) {
                    prop_assert!(false, "{:?} and {other:?} both give `{joined}`", (name, part));
                }
            }
        }

        #[test]
        fn every_split_of_one_text_gives_another_label(text in "[a-c0-2]{1,2}(-[a-c0-2]{1,2}){1,4}") {
            let mut seen = BTreeMap::new();
            seen.insert(join(&environment(&text), None, 63).unwrap(), (text.clone(), None));
            for (at, _) in text.match_indices('-') {
                let (name, part) = (&text[..at], &text[at + 1..]);
                let joined = join(&environment(name), Some(part), 63).unwrap();
                prop_assert!(seen.insert(joined, (name.to_owned(), Some(part.to_owned()))).is_none());
            }
        }
    }
}
