//! Which texts a wrapper may hold: each is checked once, so that no renderer meets a value that its system would read as something else.

use flowline_core::{
    error::{ErrorKind, Kinded},
    name::check_label,
};

/// Why a text can't stand in a wrapper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be {what} in a CI file: {problem}", .text.escape_debug())]
pub struct TextError {
    what: &'static str,
    text: String,
    problem: String,
}

impl TextError {
    /// The text that was refused.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Kinded for TextError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A newtype over a checked `String`; reading one checks too.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(problem) => Err(TextError { what: $what, text, problem }),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked! {
    /// The name of a wrapper, a job or a concurrency group: a DNS label that begins with a letter, which every system takes as it is. Names
    /// that mean something else at the top of a GitLab file (`image`, `stages`, …) are refused.
    Label, "a name", label
}
checked! {
    /// The name of an environment variable, of a secret or of an output: letters, digits and `_`, no digit first, up to 64.
    Variable, "the name of a variable", variable
}
checked! {
    /// One word of a command line: anything without control characters. It reaches the program as it is, whatever the shell or the CI
    /// system would read into it.
    Word, "a word of a command", one_line
}
checked! {
    /// A constant: one line without control characters, and without `${{`, `$(` and `$[`, in which some system would see an expression.
    /// What comes from outside is no constant: it reaches the deployer through the environment, see [`Facts`](super::Facts).
    Constant, "a constant", constant
}
checked! {
    /// A branch, or several with `*`: `main`, `release/*`.
    Branches, "a branch", branches
}
checked! {
    /// A schedule of five fields: `30 4 * * 1-5`. The time zone is UTC.
    Cron, "a schedule", cron
}

/// What GitLab reads at the top level of a file as something other than a job.
const RESERVED: [&str; 17] = [
    "after-script",
    "before-script",
    "cache",
    "default",
    "false",
    "image",
    "include",
    "nil",
    "null",
    "pages",
    "services",
    "spec",
    "stages",
    "true",
    "types",
    "variables",
    "workflow",
];

fn label(text: &str) -> Result<(), String> {
    check_label(text).map_err(|problem| problem.to_string())?;
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("it must begin with a letter".to_owned());
    }
    if RESERVED.contains(&text) {
        return Err("this word has a meaning of its own in a GitLab file; choose another".to_owned());
    }
    Ok(())
}

fn variable(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) || text.as_bytes()[0].is_ascii_digit() {
        return Err("use 1 to 64 letters, digits and `_`, no digit first".to_owned());
    }
    Ok(())
}

fn one_line(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')) {
        Some(c) => Err(format!("{c:?} is not allowed; use one line of text")),
        None => Ok(()),
    }
}

fn constant(text: &str) -> Result<(), String> {
    one_line(text)?;
    match ["${{", "$(", "$["].into_iter().find(|opening| text.contains(opening)) {
        Some(opening) => Err(format!(
            "`{opening}` begins an expression of a CI system; let the deployer read the value from its environment"
        )),
        None => Ok(()),
    }
}

fn branches(text: &str) -> Result<(), String> {
    one_line(text)?;
    let bad = |c: char| c.is_whitespace() || "'\"`$\\!~^:?[]{}|&;<>()#,%+@".contains(c);
    if text.is_empty() || text.contains(bad) || text.starts_with(['-', '/']) || text.contains("**") {
        return Err("use letters, digits, `/`, `-`, `_`, `.` and a single `*`".to_owned());
    }
    Ok(())
}

fn cron(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split(' ').collect();
    let good = |field: &&str| {
        !field.is_empty() && field.chars().all(|c| c.is_ascii_alphanumeric() || "*/,-".contains(c))
    };
    if fields.len() != 5 || !fields.iter().all(good) {
        return Err("use five fields: minute, hour, day of month, month, day of week".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_system_would_read_as_its_own_is_refused() {
        for bad in ["image", "1st", "Deploy", "a b", ""] {
            assert!(Label::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=B"] {
            assert!(Variable::new(bad).is_err(), "{bad}");
        }
        for bad in ["${{ github.head_ref }}", "$(Build.X)", "$[variables.x]", "a\nb", "a\u{2028}b"] {
            assert!(Constant::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a'b", "!main", "$X", "a b", "**", "-x"] {
            assert!(Branches::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "* * * *", "* * * * * *", "0 0 * * ;", "0  0 * *"] {
            assert!(Cron::new(bad).is_err(), "{bad}");
        }
        assert!(Word::new("${{ x }} $(y) 'z' \"").is_ok());
        assert!(serde_json::from_str::<Cron>("\"30 4 * * 1-5\"").is_ok());
        assert!(serde_json::from_str::<Label>("\"stages\"").is_err());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        insta::assert_snapshot!(Constant::new("${{ github.head_ref }}").unwrap_err(), @"`${{ github.head_ref }}` cannot be a constant in a CI file: `${{` begins an expression of a CI system; let the deployer read the value from its environment");
        insta::assert_snapshot!(Label::new("image").unwrap_err(), @"`image` cannot be a name in a CI file: this word has a meaning of its own in a GitLab file; choose another");
    }
}
