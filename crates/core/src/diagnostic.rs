//! Messages about somebody's file: what is wrong, where (file, line, column), and what to do. Plain data with a plain-text rendering.

use std::{fmt, path::PathBuf};

use serde::Serialize;

/// A place in a text file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// That line's text.
    pub text: String,
}

impl Place {
    /// The place of byte `offset` of `content`; past the end means at the end.
    pub fn of(file: impl Into<PathBuf>, content: &str, offset: usize) -> Self {
        let mut offset = offset.min(content.len());
        while !content.is_char_boundary(offset) {
            offset -= 1;
        }
        let start = content[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = content[offset..].find('\n').map_or(content.len(), |newline| offset + newline);
        Self {
            file: file.into(),
            line: content[..start].matches('\n').count() + 1,
            column: content[start..offset].chars().count() + 1,
            text: content[start..end].trim_end_matches('\r').to_owned(),
        }
    }
}

impl fmt::Display for Place {
    /// `flowline.toml:3:8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One thing that is wrong with somebody's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable name for this kind of problem, such as `config.unknown-key`; docs list them.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// Several lines:
    ///
    /// ```text
    /// flowline.toml:3:8: unknown key `adress` [config.unknown-key]
    ///   3 | adress = "http://app.localhost/"
    ///     | ^
    ///   help: did you mean `address`?
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.code)?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let (text, caret) = excerpt(&place.text, place.column);
            write!(f, "\n  {number} | {text}\n  {:1$} | {caret}^", "", number.len())?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// The line and the blanks before the caret; of a very long line only what stands around the column.
fn excerpt(text: &str, column: usize) -> (String, String) {
    const WIDTH: usize = 120;
    let skip = if text.chars().count() > WIDTH { column.saturating_sub(WIDTH / 2) } else { 0 };
    let shown: String =
        text.chars().skip(skip).take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (shown.trim_end().to_owned(), " ".repeat(column.saturating_sub(1).saturating_sub(skip)))
}

/// The candidate that somebody most likely meant by `text`: the nearest one within a third of its length in edits, or two.
///
/// ```
/// use flowline_core::diagnostic::suggestion;
/// assert_eq!(suggestion("adress", ["address", "path"]), Some("address"));
/// assert_eq!(suggestion("zzz", ["address", "path"]), None);
/// ```
pub fn suggestion<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two neighbours in the wrong order are two edits, so a word of four may differ by two.
    let length = text.chars().count();
    let limit = (length / 3).max(if length < 4 { 1 } else { 2 });
    candidates
        .into_iter()
        .map(|candidate| (edits(text, candidate), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance, by characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters() {
        let content = "one\nzwei ü drei\nlast";
        let place = Place::of("f.toml", content, content.find("drei").unwrap());
        assert_eq!((place.line, place.column, place.text.as_str()), (2, 8, "zwei ü drei"));
        assert_eq!(Place::of("f", content, 999).line, 3);
        assert_eq!(Place::of("f", "", 0).column, 1);
    }

    #[test]
    fn it_points_at_the_place() {
        let diagnostic = Diagnostic {
            code: "config.unknown-key",
            message: "unknown key `adress`".to_owned(),
            place: Some(Place::of("flowline.toml", "a = 1\nadress = 2\n", 6)),
            help: Some("did you mean `address`?".to_owned()),
        };
        insta::assert_snapshot!(diagnostic, @r"
        flowline.toml:2:1: unknown key `adress` [config.unknown-key]
          2 | adress = 2
            | ^
          help: did you mean `address`?
        ");
    }
}
