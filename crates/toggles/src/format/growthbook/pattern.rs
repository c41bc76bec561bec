//! JavaScript's patterns in the words of Rust's `regex`.
//!
//! Both read most patterns alike. What differs is rewritten: `\d`, `\w`, `\s` and `\b` know ASCII only (white space aside), a class has no
//! classes or set operators in it, a brace that is no repetition stands for itself. Look-around and back-references have no
//! counterpart; inline flags and repetitions of repetitions are errors there.

use std::{iter::Peekable, str::Chars};

use regex::{Regex, RegexBuilder};

/// How large a compiled pattern may become, in bytes.
const MAX_PATTERN: usize = 1 << 20;

const DIGITS: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}";

/// A pattern as far as Rust's `regex` can honour JavaScript's.
pub(super) fn pattern(text: &str, ignore_case: bool) -> Result<Regex, String> {
    let built = Translator::new(text).translated().and_then(|translated| {
        let built = RegexBuilder::new(&translated)
            .case_insensitive(ignore_case)
            .size_limit(MAX_PATTERN)
            .dfa_size_limit(MAX_PATTERN)
            .nest_limit(100)
            .build();
        built.map_err(|error| {
            let error = error.to_string();
            error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })
    });
    built.map_err(|problem| {
        let shown: String = text.chars().take(80).collect();
        format!("pattern `{}` does not compile ({problem})", shown.escape_debug())
    })
}

/// What a repetition would repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Something that can be repeated.
    Atom,
    /// A repetition; a `?` makes it lazy.
    Repetition,
    /// Nothing: a start, an anchor, a lazy repetition.
    Nothing,
}

struct Translator<'t> {
    rest: Peekable<Chars<'t>>,
    out: String,
}

/// What an escape stands for.
enum Escaped {
    One(char),
    /// The content of a class, and whether it is negated.
    Class(&'static str, bool),
    /// Out of a class, a boundary.
    Boundary(char),
}

impl<'t> Translator<'t> {
    fn new(text: &'t str) -> Self {
        Self { rest: text.chars().peekable(), out: String::with_capacity(text.len() + 16) }
    }

    fn translated(mut self) -> Result<String, String> {
        let mut last = Last::Nothing;
        while let Some(one) = self.rest.next() {
            last = match one {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '|' | '^' | '$' => self.raw(one, Last::Nothing),
                ')' => self.raw(one, Last::Atom),
                '?' if last == Last::Repetition => self.raw(one, Last::Nothing),
                '*' | '+' | '?' => self.repetition(&one.to_string(), last)?,
                '{' => match self.counts() {
                    Some(counts) => self.repetition(&counts, last)?,
                    None => self.literal('{'),
                },
                '.' => {
                    self.out.push_str(r"[^\n\r\x{2028}\x{2029}]");
                    Last::Atom
                }
                other => self.literal(other),
            };
        }
        Ok(self.out)
    }

    fn raw(&mut self, one: char, last: Last) -> Last {
        self.out.push(one);
        last
    }

    fn literal(&mut self, one: char) -> Last {
        self.out.push_str(&regex::escape(one.encode_utf8(&mut [0; 4])));
        Last::Atom
    }

    fn repetition(&mut self, text: &str, last: Last) -> Result<Last, String> {
        if last != Last::Atom {
            return Err("nothing to repeat".to_owned());
        }
        self.out.push_str(text);
        Ok(Last::Repetition)
    }

    /// What follows a brace, if that makes it a repetition: `{2}`, `{2,}`, `{2,3}`.
    fn counts(&mut self) -> Option<String> {
        // No count is longer, and a pattern of braces only is not read over and over.
        let inside: String = self.rest.clone().take(20).take_while(|one| *one != '}').collect();
        let closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
        if !closed || least.is_empty() || !digits(least) || !digits(most) {
            return None;
        }
        for _ in 0..=inside.chars().count() {
            self.rest.next();
        }
        Some(format!("{{{inside}}}"))
    }

    fn group(&mut self) -> Result<Last, String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_some() {
            let kind = (self.rest.next(), self.rest.peek().copied());
            match kind {
                (Some(':'), _) => self.out.push_str("?:"),
                (Some('=' | '!'), _) | (Some('<'), Some('=' | '!')) => {
                    return Err("look-around is not supported".to_owned());
                }
                (Some('<'), _) => self.out.push_str("?<"),
                _ => return Err("invalid group".to_owned()),
            }
        }
        Ok(Last::Nothing)
    }

    fn escape(&mut self) -> Result<Last, String> {
        match self.escaped(false)? {
            Escaped::One(one) => Ok(self.literal(one)),
            Escaped::Class(content, negated) => {
                self.out.push_str(if negated { "[^" } else { "[" });
                self.out.push_str(content);
                self.out.push(']');
                Ok(Last::Atom)
            }
            Escaped::Boundary(one) => {
                self.out.push_str(if one == 'b' { r"(?-u:\b)" } else { r"(?-u:\B)" });
                Ok(Last::Nothing)
            }
        }
    }

    fn escaped(&mut self, in_class: bool) -> Result<Escaped, String> {
        let one = self.rest.next().ok_or("a backslash at its end")?;
        Ok(match one {
            'd' | 'D' => Escaped::Class(DIGITS, one == 'D'),
            'w' | 'W' => Escaped::Class(WORD, one == 'W'),
            's' | 'S' => Escaped::Class(SPACE, one == 'S'),
            'b' if in_class => Escaped::One('\u{8}'),
            'b' | 'B' if !in_class => Escaped::Boundary(one),
            'n' => Escaped::One('\n'),
            'r' => Escaped::One('\r'),
            't' => Escaped::One('\t'),
            'f' => Escaped::One('\u{c}'),
            'v' => Escaped::One('\u{b}'),
            '0' => Escaped::One('\0'),
            'x' => Escaped::One(self.code(2)?.unwrap_or('x')),
            'u' => Escaped::One(self.code(4)?.unwrap_or('u')),
            '1'..='9' | 'k' if !in_class => return Err("back-references are not supported".to_owned()),
            other => Escaped::One(other),
        })
    }

    /// The character of so many hexadecimal digits; `None` if they do not follow.
    fn code(&mut self, digits: usize) -> Result<Option<char>, String> {
        let text: String = self.rest.clone().take(digits).take_while(char::is_ascii_hexdigit).collect();
        if text.len() < digits {
            return Ok(None);
        }
        for _ in 0..digits {
            self.rest.next();
        }
        let code = u32::from_str_radix(&text, 16).ok().and_then(char::from_u32);
        code.map(Some).ok_or_else(|| "half a character is not supported".to_owned())
    }

    fn class(&mut self) -> Result<Last, String> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        if self.rest.next_if_eq(&']').is_some() {
            // Nothing at all, or anything at all.
            self.out.push_str(if negated { r"[\x{0}-\x{10ffff}]" } else { r"[^\x{0}-\x{10ffff}]" });
            return Ok(Last::Atom);
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        // Whether what came last can start a range.
        let mut starts = false;
        loop {
            match self.rest.next().ok_or("a class without an end")? {
                ']' => {
                    self.out.push(']');
                    return Ok(Last::Atom);
                }
                '-' if starts && self.ends_range() => {
                    self.out.push('-');
                    starts = false;
                    match self.rest.next().ok_or("a class without an end")? {
                        '\\' => self.in_class()?,
                        other => self.member(other),
                    }
                }
                '\\' => starts = self.in_class_starts()?,
                other => {
                    self.member(other);
                    starts = true;
                }
            }
        }
    }

    /// Whether a hyphen is followed by a character, so that both ends of a range are there.
    fn ends_range(&self) -> bool {
        let mut next = self.rest.clone();
        match next.next() {
            Some('\\') => !next.next().is_some_and(|one| "dDwWsS".contains(one)),
            Some(one) => one != ']',
            None => false,
        }
    }

    fn in_class(&mut self) -> Result<(), String> {
        self.in_class_starts().map(drop)
    }

    /// An escape in a class; whether it can start a range.
    fn in_class_starts(&mut self) -> Result<bool, String> {
        match self.escaped(true)? {
            Escaped::One(one) | Escaped::Boundary(one) => {
                self.member(one);
                Ok(true)
            }
            Escaped::Class(content, false) => {
                self.out.push_str(content);
                Ok(false)
            }
            Escaped::Class(content, true) => {
                self.out.push_str("[^");
                self.out.push_str(content);
                self.out.push(']');
                Ok(false)
            }
        }
    }

    fn member(&mut self, one: char) {
        // Set operators are doubled signs; alone or escaped they stand for themselves.
        if one.is_ascii_punctuation() && !matches!(one, '<' | '>' | '_') {
            self.out.push('\\');
        }
        self.out.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_javascript() {
        for (text, found, not_found) in [
            (r"^\w+$", "hello_1", "na\u{ef}ve"),
            (r"^\d$", "7", "\u{667}"),
            (r"\bcaf\b", "caf\u{e9}", "cafe"),
            (r"^\s$", "\u{feff}", "\u{85}"),
            ("^a.b$", "a b", "a\u{2028}b"),
            ("^[[]$", "[", "]"),
            ("^[a&&b]+$", "a&b", "c"),
            ("^[+--]$", ",", "a"),
            (r"^[\w-]+$", "a-b", "a+b"),
            (r"^[\W]$", "+", "a"),
            ("^[^]$", "\n", ""),
            ("^x{$", "x{", "x"),
            ("^x{a}$", "x{a}", "xa"),
            ("^x{2,3}$", "xx", "x"),
            ("^x{2}?$", "xx", "x"),
            ("^]}$", "]}", "]"),
            (r"^\/a\_\@\p$", "/a_@p", "a"),
            (r"^\u00e9\x41$", "\u{e9}A", "A"),
            ("(?<n>a)(?:b)", "ab", "ba"),
            ("", "", ""),
        ] {
            let regex = pattern(text, false).unwrap();
            assert!(regex.is_match(found), "{text} {found}");
            assert!(text.is_empty() || !regex.is_match(not_found), "{text} {not_found}");
        }
    }

    #[test]
    fn what_is_an_error_there_or_has_no_counterpart_here_is_one() {
        for text in [
            "(?i)a", "(?P<n>a)", "a**", "a++", "^*", "|*", "a{2}{3}", "(?=a)", "(?<!a)b", r"(a)\1", "(", "[",
            "\\", "[b-a]", r"\ud83e",
        ] {
            assert!(pattern(text, false).is_err(), "{text}");
        }
    }
}
