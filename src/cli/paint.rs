//! Colours, for terminals that want them.

use std::fmt::{self, Display};

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint(pub(super) bool);

/// What a text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Warn,
    Soft,
    Strong,
}

pub(super) struct Painted<T>(Option<Tone>, T);

impl Paint {
    pub(super) fn tone<T: Display>(self, tone: Tone, text: T) -> Painted<T> {
        Painted(self.0.then_some(tone), text)
    }

    pub(super) fn good<T: Display>(self, text: T) -> Painted<T> {
        self.tone(Tone::Good, text)
    }

    pub(super) fn bad<T: Display>(self, text: T) -> Painted<T> {
        self.tone(Tone::Bad, text)
    }

    pub(super) fn soft<T: Display>(self, text: T) -> Painted<T> {
        self.tone(Tone::Soft, text)
    }

    pub(super) fn strong<T: Display>(self, text: T) -> Painted<T> {
        self.tone(Tone::Strong, text)
    }

    /// A plan's text, each line coloured by its sign.
    pub(super) fn plan(self, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let mut painted = String::with_capacity(text.len() + 256);
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let tone = match line.trim_start().split(' ').next() {
                Some("+") => Some(Tone::Good),
                Some("-" | "x" | "cannot" | "denied:") => Some(Tone::Bad),
                Some("~" | "±") => Some(Tone::Warn),
                Some("=" | "sealed") => Some(Tone::Soft),
                Some("plan") => Some(Tone::Strong),
                _ => None,
            };
            painted.push_str(&Painted(tone, line).to_string());
            painted.push_str(end);
        }
        painted
    }
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self.0 {
            None => return self.1.fmt(f),
            Some(Tone::Good) => "32",
            Some(Tone::Bad) => "31",
            Some(Tone::Warn) => "33",
            Some(Tone::Soft) => "2",
            Some(Tone::Strong) => "1",
        };
        write!(f, "\x1b[{code}m")?;
        self.1.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}
