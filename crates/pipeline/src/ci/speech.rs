//! How each CI system is spoken to in its log: pure texts, escaped by the rules of the system.

use std::borrow::Cow;

use flowline_core::{
    Timestamp,
    diagnostic::Diagnostic,
    digest::{Digest, Digester},
};

use super::CiKind;

/// How much an annotation matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Good to know.
    Notice,
    /// It may become a problem.
    Warning,
    /// It failed.
    Error,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A message that the system shows beside a file, or at the top of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// How much it matters.
    pub level: Level,
    /// What is said. GitHub shows the first 4,096 characters.
    pub message: String,
    /// The file, relative to the repository.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
}

impl Annotation {
    /// A message without a place.
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, message: message.into(), file: None, line: None, column: None }
    }

    /// `error: deploy.toml:3:8: unknown key`: where the system has no annotations.
    pub(super) fn plain(&self) -> String {
        let mut place = String::new();
        if let Some(file) = &self.file {
            place.push_str(file);
            for number in [self.line, self.column].into_iter().map_while(|number| number) {
                place.extend([":", &number.to_string()]);
            }
            place.push_str(": ");
        }
        format!("{}: {place}{}", self.level.word(), self.message)
    }
}

impl From<&Diagnostic> for Annotation {
    fn from(diagnostic: &Diagnostic) -> Self {
        let mut message = format!("{} [{}]", diagnostic.message, diagnostic.code);
        if let Some(help) = &diagnostic.help {
            message.push_str("\nhelp: ");
            message.push_str(help);
        }
        let place = diagnostic.place.as_ref();
        Self {
            level: Level::Error,
            message,
            file: place.map(|place| place.file.display().to_string()),
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
        }
    }
}

/// How many characters of a message GitHub keeps.
const GITHUB_MESSAGE: usize = 4_096;

/// Escapes the data of a GitHub command: `%` first, then what would end the line.
pub(super) fn github_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a GitHub command, in which `:` and `,` would end it, too.
pub(super) fn github_property(text: &str) -> String {
    github_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Escapes properties and data of an Azure command.
pub(super) fn azure(text: &str) -> String {
    text.replace('%', "%AZP25")
        .replace(';', "%3B")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
        .replace(']', "%5D")
}

/// An annotation as a command, or nothing where the system has none of that level.
pub(super) fn annotation(kind: CiKind, annotation: &Annotation) -> Option<String> {
    let number = |number: Option<usize>| number.map(|number| number.to_string());
    let (line, column) = (number(annotation.line), number(annotation.column));
    let properties = |names: [&'static str; 3]| {
        let values = [&annotation.file, &line, &column];
        // A line without a file, or a column without a line, says nothing.
        names
            .into_iter()
            .zip(values)
            .map_while(|(name, value)| value.as_ref().map(|value| (name, value.clone())))
    };
    match kind {
        CiKind::GitHub => {
            let list: Vec<_> = properties(["file", "line", "col"])
                .map(|(name, value)| format!("{name}={}", github_property(&value)))
                .collect();
            let space = if list.is_empty() { "" } else { " " };
            let message: String = annotation.message.chars().take(GITHUB_MESSAGE).collect();
            Some(format!("::{}{space}{}::{}", annotation.level.word(), list.join(","), github_data(&message)))
        }
        CiKind::Azure if annotation.level > Level::Notice => {
            let list: Vec<_> = properties(["sourcepath", "linenumber", "columnnumber"])
                .map(|(name, value)| format!("{name}={};", azure(&value)))
                .collect();
            let list = list.concat();
            let level = annotation.level.word();
            Some(format!("##vso[task.logissue type={level};{list}]{}", azure(&annotation.message)))
        }
        _ => None,
    }
}

/// `text` as a cell of a Markdown table: no row ends in it, and nothing of it is markup, as a picture would be loaded from where it says.
pub(super) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\r' | '\n' => cell.push(' '),
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '\\' | '`' | '[' | ']' | '!' | '|' => cell.extend(['\\', character]),
            _ => cell.push(character),
        }
    }
    cell
}

/// Begins a group, or nothing where the system has none. `name` must be unique in the job.
pub(super) fn group(kind: CiKind, name: &str, title: &str, now: Timestamp) -> String {
    match kind {
        CiKind::GitHub => format!("::group::{}", github_data(title)),
        CiKind::Azure => format!("##[group]{title}"),
        CiKind::GitLab => {
            format!("\x1b[0Ksection_start:{}:{name}[collapsed=true]\r\x1b[0K{title}", now.as_second())
        }
        CiKind::Jenkins | CiKind::None => title.to_owned(),
    }
}

/// Ends a group.
pub(super) fn group_end(kind: CiKind, name: &str, now: Timestamp) -> Option<String> {
    match kind {
        CiKind::GitHub => Some("::endgroup::".to_owned()),
        CiKind::Azure => Some("##[endgroup]".to_owned()),
        CiKind::GitLab => Some(format!("\x1b[0Ksection_end:{}:{name}\r\x1b[0K", now.as_second())),
        CiKind::Jenkins | CiKind::None => None,
    }
}

/// Tells the system to hide `value`, where it can be told.
pub(super) fn mask(kind: CiKind, value: &str) -> Option<String> {
    match kind {
        CiKind::GitHub => Some(format!("::add-mask::{}", github_data(value))),
        CiKind::Azure => Some(format!("##vso[task.setsecret]{}", azure(value))),
        CiKind::GitLab | CiKind::Jenkins | CiKind::None => None,
    }
}

/// A line of a program, such that the system can't take it for a command: what a deployed thing prints must not steer the job.
pub(super) fn inert(kind: CiKind, line: &[u8]) -> Cow<'_, [u8]> {
    match kind {
        CiKind::GitHub => {
            let line = apart(line, b"##[", b"# #[");
            // The runner ends a line at a carriage return, too.
            let mut pieces = line.split(|byte| *byte == b'\r');
            if !pieces.clone().any(is_command) {
                return line;
            }
            let first = pieces.next().map(quiet).unwrap_or_default();
            Cow::Owned(pieces.fold(first, |all, piece| [all, vec![b'\r'], quiet(piece)].concat()))
        }
        CiKind::Azure => match apart(line, b"##[", b"# #[") {
            Cow::Borrowed(line) => apart(line, b"##vso[", b"# #vso["),
            Cow::Owned(line) => Cow::Owned(apart(&line, b"##vso[", b"# #vso[").into_owned()),
        },
        CiKind::GitLab => match apart(line, b"section_start:", b"section_start :") {
            Cow::Borrowed(line) => apart(line, b"section_end:", b"section_end :"),
            Cow::Owned(line) => Cow::Owned(apart(&line, b"section_end:", b"section_end :").into_owned()),
        },
        CiKind::Jenkins | CiKind::None => Cow::Borrowed(line),
    }
}

/// Whether the runner would look for a GitHub command here: after blanks of any kind.
fn is_command(piece: &[u8]) -> bool {
    let text = String::from_utf8_lossy(piece);
    text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').starts_with("::")
}

fn quiet(piece: &[u8]) -> Vec<u8> {
    if is_command(piece) { [b"| ", piece].concat() } else { piece.to_vec() }
}

/// Replaces `what`, in any case, by `by`.
fn apart<'a>(line: &'a [u8], what: &[u8], by: &[u8]) -> Cow<'a, [u8]> {
    let find = |bytes: &[u8]| bytes.windows(what.len()).position(|window| window.eq_ignore_ascii_case(what));
    if find(line).is_none() {
        return Cow::Borrowed(line);
    }
    let (mut out, mut rest) = (Vec::with_capacity(line.len() + 8), line);
    while let Some(at) = find(rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// One entry of the file that `GITHUB_OUTPUT` names.
pub(super) fn github_output(seed: &Digest, name: &str, value: &str) -> String {
    let delimiter = delimiter(seed, name, value);
    format!("{name}<<{delimiter}\n{value}\n{delimiter}\n")
}

/// A delimiter that can't be guessed without the seed, and that occurs in neither.
pub(super) fn delimiter(seed: &Digest, name: &str, value: &str) -> String {
    let mut candidates = (0_u64..).map(|attempt| {
        let mut digester = Digester::new("ci.delimiter");
        digester.part(seed.as_bytes()).part(name).part(value).part(attempt.to_be_bytes());
        format!("flowline_{}", digester.finish().hex())
    });
    // A finite text can't hold every candidate.
    candidates.find(|candidate| !name.contains(candidate) && !value.contains(candidate)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the runner reads it.
    fn github_unescape(text: &str) -> String {
        let property = text.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",");
        property.replace("%25", "%")
    }

    /// As the agent reads it.
    fn azure_unescape(text: &str) -> String {
        let text = text.replace("%3B", ";").replace("%0D", "\r").replace("%0A", "\n").replace("%5D", "]");
        text.replace("%AZP25", "%")
    }

    /// As the runner reads `GITHUB_OUTPUT`: the first of `=` and `<<` in a line decides; a missing delimiter or final newline is an error.
    fn read_outputs(text: &str) -> Result<Vec<(String, String)>, String> {
        let mut outputs = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').ok_or("no final newline")?;
            rest = after;
            let (equals, heredoc) =
                (line.find('=').unwrap_or(usize::MAX), line.find("<<").unwrap_or(usize::MAX));
            if equals < heredoc {
                outputs.push((line[..equals].to_owned(), line[equals + 1..].to_owned()));
                continue;
            }
            let delimiter = line.get(heredoc..).and_then(|line| line.strip_prefix("<<")).ok_or("no value")?;
            let mut lines = Vec::new();
            loop {
                let (value, after) = rest.split_once('\n').ok_or("no delimiter")?;
                rest = after;
                if value == delimiter {
                    break;
                }
                lines.push(value);
            }
            outputs.push((line[..heredoc].to_owned(), lines.join("\n")));
        }
        Ok(outputs)
    }

    proptest! {
        #[test]
        fn what_is_escaped_for_github_comes_back(text in "[ -~\r\n%:,äß]{0,40}") {
            prop_assert_eq!(github_unescape(&github_property(&text)), text.as_str());
            prop_assert!(!github_property(&text).contains(['\r', '\n', ':', ',']));
            prop_assert!(!github_data(&text).contains(['\r', '\n']));
        }

        #[test]
        fn what_is_escaped_for_azure_comes_back(text in "[ -~\r\n%;\\]äßAZP235BD0]{0,40}") {
            prop_assert_eq!(azure_unescape(&azure(&text)), text.as_str());
            prop_assert!(!azure(&text).contains(['\r', '\n', ';', ']']));
        }

        #[test]
        fn outputs_come_back_whatever_they_hold(
            values in prop::collection::vec("[ -~\n<=]{0,30}|x<<y\ny|flowline_[a-f0-9\n]{0,64}", 1..5),
            seed in any::<u64>(),
        ) {
            let seed = Digest::of(seed.to_be_bytes());
            let text: String = values.iter().map(|value| github_output(&seed, "name", value)).collect();
            let expected: Vec<_> = values.into_iter().map(|value| ("name".to_owned(), value)).collect();
            prop_assert_eq!(read_outputs(&text).unwrap(), expected);
        }

        #[test]
        fn a_delimiter_never_occurs(value in ".{0,40}", seed in any::<u64>()) {
            let seed = Digest::of(seed.to_be_bytes());
            let guess = delimiter(&seed, "name", &value);
            prop_assert!(!value.contains(&guess));
            let value = format!("{value}\n{guess}\n");
            prop_assert!(!value.contains(&delimiter(&seed, "name", &value)));
        }

        #[test]
        fn no_line_of_a_program_is_a_command(line in "[ \t]{0,3}(::|\r::|##\\[|##vso\\[|##VSO\\[|section_start:|[#:a]){0,4}error\\].{0,5}") {
            let github = String::from_utf8(inert(CiKind::GitHub, line.as_bytes()).into_owned()).unwrap();
            let command = github.split('\r').any(|piece| piece.trim_start().starts_with("::"));
            prop_assert!(!command && !github.contains("##["), "{}", github);
            let azure = String::from_utf8(inert(CiKind::Azure, line.as_bytes()).into_owned()).unwrap();
            prop_assert!(!azure.contains("##[") && !azure.to_ascii_lowercase().contains("##vso["), "{}", azure);
            let gitlab = String::from_utf8(inert(CiKind::GitLab, line.as_bytes()).into_owned()).unwrap();
            prop_assert!(!gitlab.contains("section_start:"), "{}", gitlab);
        }
    }

    #[test]
    fn percent_is_escaped_first() {
        assert_eq!(github_data("100%0A\n"), "100%250A%0A");
        assert_eq!(github_property("a:b,c"), "a%3Ab%2Cc");
        assert_eq!(azure("50%;]\r\n"), "50%AZP25%3B%5D%0D%0A");
    }

    #[test]
    fn every_system_is_spoken_to_in_its_words() {
        let mut note = Annotation::new(Level::Error, "unknown key\nhelp: 100%");
        let mut said = Vec::new();
        let mut say = |note: &Annotation| {
            for kind in [CiKind::GitHub, CiKind::Azure] {
                said.extend(annotation(kind, note));
            }
            said.push(note.plain().replace('\n', "\\n"));
        };
        say(&note);
        note.line = Some(3);
        say(&note);
        (note.file, note.column, note.level) = (Some("a,b:c].toml".to_owned()), Some(8), Level::Warning);
        say(&note);
        note.level = Level::Notice;
        say(&note);
        insta::assert_snapshot!(said.join("\n"), @r"
        ::error::unknown key%0Ahelp: 100%25
        ##vso[task.logissue type=error;]unknown key%0Ahelp: 100%AZP25
        error: unknown key\nhelp: 100%
        ::error::unknown key%0Ahelp: 100%25
        ##vso[task.logissue type=error;]unknown key%0Ahelp: 100%AZP25
        error: unknown key\nhelp: 100%
        ::warning file=a%2Cb%3Ac].toml,line=3,col=8::unknown key%0Ahelp: 100%25
        ##vso[task.logissue type=warning;sourcepath=a,b:c%5D.toml;linenumber=3;columnnumber=8;]unknown key%0Ahelp: 100%AZP25
        warning: a,b:c].toml:3:8: unknown key\nhelp: 100%
        ::notice file=a%2Cb%3Ac].toml,line=3,col=8::unknown key%0Ahelp: 100%25
        notice: a,b:c].toml:3:8: unknown key\nhelp: 100%
        ");
        assert_eq!(
            group(CiKind::GitLab, "web_1", "web", Timestamp::constant(1_767_225_600, 0)),
            "\u{1b}[0Ksection_start:1767225600:web_1[collapsed=true]\r\u{1b}[0Kweb"
        );
        assert_eq!(
            group_end(CiKind::GitLab, "web_1", Timestamp::constant(1_767_225_601, 0)).unwrap(),
            "\u{1b}[0Ksection_end:1767225601:web_1\r\u{1b}[0K"
        );
    }

    #[test]
    fn a_long_message_is_cut_before_it_is_escaped() {
        let note = Annotation::new(Level::Error, "%".repeat(5_000));
        let text = annotation(CiKind::GitHub, &note).unwrap();
        assert_eq!(text.len(), "::error::".len() + 3 * GITHUB_MESSAGE);
    }
}
