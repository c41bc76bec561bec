//! Reading a configuration file: typed, whole, and with errors that point at file, line and column.
//!
//! TOML (`*.toml`), JSON (`*.json`) and, with the feature `yaml`, YAML (`*.yaml`, `*.yml`) are read into any serde type. What serde can't
//! check (a cycle, two things at one address) the caller checks on its own plain types, and asks the [`Document`] where a value stands to
//! say so with its place.
//!
//! YAML is version 1.2: only `true` and `false` are booleans, keys that stand twice are refused, and what aliases repeat is bounded.
//!
//! ```
//! use flowline_core::config::Document;
//! #[derive(Debug, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Limits { retries: u8 }
//! let document = Document::new("limits.toml", "retires = 3\n");
//! let error = document.read::<Limits>().unwrap_err();
//! assert_eq!(error.to_string(), "\
//! limits.toml:1:1: unknown field `retires`, expected `retries` [config.unknown-key]
//!   1 | retires = 3
//!     | ^
//!   help: did you mean `retries`?");
//! ```

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use crate::{
    diagnostic::{Diagnostic, Place, suggestion},
    error::{BoxError, ErrorKind, Kinded},
};

mod json;
mod toml_file;
#[cfg(feature = "yaml")]
mod yaml;

/// The file `path` as `T`.
///
/// # Errors
/// If it can't be read, is of no known syntax, or is not a `T`: each with its place.
pub fn load<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, ConfigError> {
    Document::load(path)?.read()
}

/// A configuration file's text, with its name for messages.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
}

/// Which kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Toml,
    Json,
    #[cfg(feature = "yaml")]
    Yaml,
}

impl Document {
    /// Reads `path`. A byte order mark is dropped; line ends may be LF or CR LF.
    ///
    /// # Errors
    /// If it can't be read or is not UTF-8.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let unreadable = |help: &str, source: BoxError| ConfigError::Unreadable {
            path: path.to_owned(),
            help: help.to_owned(),
            source,
        };
        let bytes = std::fs::read(path).map_err(|error| {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => "create it, or name another",
                std::io::ErrorKind::PermissionDenied => "make it readable for this user",
                std::io::ErrorKind::IsADirectory => "it is a directory; name a file in it",
                _ => "see the cause",
            };
            unreadable(help, error.into())
        })?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let start = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
                let place = Place::of(path, &start, good);
                Err(ConfigError::Invalid(Problems(vec![Diagnostic {
                    code: "config.encoding",
                    message: "the file is not UTF-8 from here on".to_owned(),
                    place: Some(place),
                    help: Some("save it as UTF-8".to_owned()),
                }])))
            }
        }
    }

    /// A document with this text; the path is only for messages, and its extension says what it is.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text: String = text.into();
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Self { path: path.into(), text }
    }

    /// The document as `T`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with what does not fit, and where.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let (value, problem) = match self.syntax()? {
            Syntax::Toml => toml_file::read(&self.text),
            Syntax::Json => json::read(&self.text),
            #[cfg(feature = "yaml")]
            Syntax::Yaml => yaml::read(&self.text),
        };
        match (value, problem) {
            (Some(value), None) => Ok(value),
            (_, problem) => {
                let problem = problem.unwrap_or_default();
                Err(ConfigError::Invalid(Problems(vec![self.explained(&problem)])))
            }
        }
    }

    /// Where the value under `keys` stands: its key for a table's entry, the value itself for a list's (`"0"` is the first). The place of
    /// the nearest part that is there, if it is not there itself.
    pub fn place_of<K: AsRef<str>>(&self, keys: &[K]) -> Option<Place> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        let offset = match self.syntax().ok()? {
            Syntax::Toml => toml_file::find(&self.text, &keys),
            Syntax::Json => json::find(&self.text, &keys),
            #[cfg(feature = "yaml")]
            Syntax::Yaml => yaml::find(&self.text, &keys),
        };
        Some(Place::of(&self.path, &self.text, offset?))
    }

    /// The file that it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn syntax(&self) -> Result<Syntax, ConfigError> {
        match self.path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Ok(Syntax::Toml),
            Some("json") => Ok(Syntax::Json),
            #[cfg(feature = "yaml")]
            Some("yaml" | "yml") => Ok(Syntax::Yaml),
            #[cfg(not(feature = "yaml"))]
            Some("yaml" | "yml") => Err(ConfigError::NoYaml { path: self.path.clone() }),
            _ => Err(ConfigError::Unknown { path: self.path.clone() }),
        }
    }

    fn explained(&self, problem: &Problem) -> Diagnostic {
        let message = problem.message.lines().next().unwrap_or_default().to_owned();
        let (code, help) = explain(&message);
        let place = problem.offset.map(|offset| Place::of(&self.path, &self.text, offset));
        Diagnostic { code, message, place, help }
    }
}

/// What a reader of one syntax says went wrong.
#[derive(Debug, Default)]
struct Problem {
    message: String,
    offset: Option<usize>,
}

/// The stable code for a message of serde's, and what to do about it.
fn explain(message: &str) -> (&'static str, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let code =
            if message.starts_with("unknown field") { "config.unknown-key" } else { "config.unknown-value" };
        let help = match quoted.split_first() {
            Some((text, known)) => {
                suggestion(text, known.iter().copied()).map(|name| format!("did you mean `{name}`?"))
            }
            None => None,
        };
        return (code, help);
    }
    if message.starts_with("missing field") {
        let help = quoted.first().map(|name| format!("add `{name} = …` here"));
        return ("config.missing-key", help);
    }
    if message.starts_with("duplicate") {
        return ("config.duplicate-key", Some("keep one of them".to_owned()));
    }
    if message.starts_with("invalid type") {
        return ("config.type", None);
    }
    if message.starts_with("invalid value") || message.contains(" is not ") || message.contains("cannot be") {
        return ("config.value", None);
    }
    ("config.syntax", None)
}

/// Everything that is wrong with a file; shown one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Diagnostic>);

impl Problems {
    /// Each problem, in the order in which they were found; never empty.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It can't be read at all.
    #[error("cannot read {}: {help}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What to do.
        help: String,
        /// What the system says.
        source: BoxError,
    },
    /// Its name does not say what it is.
    #[error("{} is neither `.toml`, `.yaml` nor `.json`; give it one of these extensions", .path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// It is YAML, and this program was built without it.
    #[error(
        "{} is YAML, which this program does not read; build it with the feature `yaml`, or write TOML or JSON",
        .path.display()
    )]
    NoYaml {
        /// The file.
        path: PathBuf,
    },
    /// Its content is wrong; every problem with its place.
    #[error("{0}")]
    Invalid(Problems),
}

impl ConfigError {
    /// The content is wrong in these ways.
    pub fn invalid(problems: Vec<Diagnostic>) -> Self {
        Self::Invalid(Problems(problems))
    }
}

impl Kinded for ConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable { source, .. } => {
                match source.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                    Some(std::io::ErrorKind::NotFound) => ErrorKind::NotFound,
                    _ => ErrorKind::Unavailable,
                }
            }
            Self::Unknown { .. } | Self::NoYaml { .. } | Self::Invalid(_) => ErrorKind::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Site {
        name: crate::name::ComponentName,
        port: u16,
        #[serde(default)]
        pages: BTreeMap<String, Page>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        path: String,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Static,
        Process,
    }

    fn said(name: &str, text: &str) -> String {
        Document::new(name, text).read::<Site>().unwrap_err().to_string()
    }

    #[test]
    fn toml_errors_point_at_their_place() {
        let texts = [
            "name = \"web\"\nport = 80\nprot = 81\n",
            "name = \"web\"\nport = \"eighty\"\n",
            "name = \"web\"\n",
            "name = \"We b\"\nport = 80\n",
            "name = \"web\"\nport = 80\nport = 81\n",
            "name = \"web\nport = 80\n",
            "name = \"web\"\r\nport = 80\r\n\r\n[pages.a]\r\npath = \"/\"\r\nkind = \"statik\"\r\n",
            "",
        ];
        let said: Vec<String> = texts.iter().map(|text| said("site.toml", text)).collect();
        insta::assert_snapshot!(said.join("\n---\n"), @r#"
        site.toml:3:1: unknown field `prot`, expected one of `name`, `port`, `pages` [config.unknown-key]
          3 | prot = 81
            | ^
          help: did you mean `port`?
        ---
        site.toml:2:8: invalid type: string "eighty", expected u16 [config.type]
          2 | port = "eighty"
            |        ^
        ---
        site.toml:1:1: missing field `port` [config.missing-key]
          1 | name = "web"
            | ^
          help: add `port = …` here
        ---
        site.toml:1:8: `We b` is not a component's name: 'W' at character 1 is not allowed; use lower-case letters a-z, digits and `-` [config.value]
          1 | name = "We b"
            |        ^
        ---
        site.toml:3:1: duplicate key [config.duplicate-key]
          3 | port = 81
            | ^
          help: keep one of them
        ---
        site.toml:1:12: invalid basic string, expected `"` [config.syntax]
          1 | name = "web
            |            ^
        ---
        site.toml:6:8: unknown variant `statik`, expected `static` or `process` [config.unknown-value]
          6 | kind = "statik"
            |        ^
          help: did you mean `static`?
        ---
        site.toml:1:1: missing field `name` [config.missing-key]
          1 | 
            | ^
          help: add `name = …` here
        "#);
    }

    #[test]
    fn json_errors_point_at_their_place() {
        let texts = [
            "{\n  \"name\": \"web\",\n  \"prot\": 81\n}",
            "{ \"name\": \"web\", \"port\": \"eighty\" }",
            "{ \"name\": \"web\" }",
            "{ \"name\": \"web\", \"port\": 80, \"port\": 81 }",
            "{ \"name\": \"web\", ",
            "{ \"name\": \"web\", \"port\": 80, \"pages\": { \"a\": { \"path\": \"/\", \"kind\": \"statik\" } } }",
            "",
        ];
        let said: Vec<String> = texts.iter().map(|text| said("site.json", text)).collect();
        insta::assert_snapshot!(said.join("\n---\n"), @r#"
        site.json:3:3: unknown field `prot`, expected one of `name`, `port`, `pages` [config.unknown-key]
          3 |   "prot": 81
            |   ^
          help: did you mean `port`?
        ---
        site.json:1:26: invalid type: string "eighty", expected u16 [config.type]
          1 | { "name": "web", "port": "eighty" }
            |                          ^
        ---
        site.json:1:17: missing field `port` [config.missing-key]
          1 | { "name": "web" }
            |                 ^
          help: add `port = …` here
        ---
        site.json:1:30: duplicate field `port` [config.duplicate-key]
          1 | { "name": "web", "port": 80, "port": 81 }
            |                              ^
          help: keep one of them
        ---
        site.json:1:17: EOF while parsing a value [config.syntax]
          1 | { "name": "web",
            |                 ^
        ---
        site.json:1:69: unknown variant `statik`, expected `static` or `process` [config.unknown-value]
          1 | { "name": "web", "port": 80, "pages": { "a": { "path": "/", "kind": "statik" } } }
            |                                                                     ^
          help: did you mean `static`?
        ---
        site.json:1:1: EOF while parsing a value [config.syntax]
          1 | 
            | ^
        "#);
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn yaml_errors_point_at_their_place() {
        let texts = [
            "name: web\nport: 80\nprot: 81\n",
            "name: web\nport: eighty\n",
            "name: web\n",
            "name: We b\nport: 80\n",
            "name: web\nport: 80\nport: 81\n",
            "name: [web\nport: 80\n",
            "name: web\r\nport: 80\r\n\r\npages:\r\n  ä: { path: /, kind: statik }\r\n",
            "name: web\nport: 80\n---\nname: api\n",
            "name: *nobody\nport: 80\n",
            "name: web\n\tport: 80\n",
            "",
        ];
        let said: Vec<String> = texts.iter().map(|text| said("site.yaml", text)).collect();
        insta::assert_snapshot!(said.join("\n---\n"), @r"
        site.yaml:3:1: unknown field `prot`, expected one of `name`, `port`, `pages` [config.unknown-key]
          3 | prot: 81
            | ^
          help: did you mean `port`?
        ---
        site.yaml:2:7: invalid u16 [config.syntax]
          2 | port: eighty
            |       ^
        ---
        site.yaml:1:1: missing field `port` [config.missing-key]
          1 | name: web
            | ^
          help: add `port = …` here
        ---
        site.yaml:1:7: `We b` is not a component's name: 'W' at character 1 is not allowed; use lower-case letters a-z, digits and `-` [config.value]
          1 | name: We b
            |       ^
        ---
        site.yaml:3:1: duplicate key `port` [config.duplicate-key]
          3 | port: 81
            | ^
          help: keep one of them
        ---
        site.yaml:1:7: expected string scalar [config.syntax]
          1 | name: [web
            |       ^
        ---
        site.yaml:5:23: unknown variant `statik`, expected one of `static`, `process` [config.unknown-value]
          5 |   ä: { path: /, kind: statik }
            |                       ^
          help: did you mean `static`?
        ---
        site.yaml:3:1: a second document begins here; a file holds one [config.syntax]
          3 | ---
            | ^
        ---
        site.yaml:1:7: alias references unknown anchor [config.syntax]
          1 | name: *nobody
            |       ^
        ---
        site.yaml:1:7: while scanning a plain scalar, found a tab [config.syntax]
          1 | name: web
            |       ^
        ---
        site.yaml:1:1: unexpected end of input [config.syntax]
          1 | 
            | ^
        ");
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn small_yaml_files_cannot_blow_up() {
        use std::fmt::Write as _;
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}", level - 1);
            writeln!(bomb, "a{level}: &a{level} [{}]", [before.as_str(); 10].join(", ")).unwrap();
        }
        let mut long = format!("a: &a {}\nb:\n", "x".repeat(1_000_000));
        long.extend(std::iter::repeat_n("  - *a\n", 2_000));
        let deep = format!("a: {}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let dashes = format!("a:\n{}", "- ".repeat(100_000));
        let itself = "a: &a [*a]\n".to_owned();
        for text in [bomb, long, deep, dashes, itself] {
            let read = Document::new("bomb.yaml", text).read::<serde_json::Value>();
            let error = read.map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with("bomb.yaml:") && error.len() < 1_000, "{error}");
        }
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn yaml_means_what_its_second_version_says() {
        let text = "{country: NO, yes: on, version: 1.10, merged: {<<: &m {a: 1}, b: 2}, again: *m}";
        let read: serde_json::Value = Document::new("a.yml", text).read().unwrap();
        insta::assert_snapshot!(read, @r#"{"again":{"a":1},"country":"NO","merged":{"a":1,"b":2},"version":1.1,"yes":"on"}"#);
    }

    #[test]
    fn a_byte_order_mark_is_dropped() {
        let site = Document::new("a.toml", "\u{feff}name = \"web\"\nport = 80\n").read::<Site>().unwrap();
        assert_eq!(site.port, 80);
    }

    #[test]
    fn files_that_cannot_be_read_say_why() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("dir.toml")).unwrap();
        std::fs::write(at("latin.toml"), b"name = \"caf\xe9\"").unwrap();
        std::fs::write(at("site.ini"), b"name = web").unwrap();
        let said = |name: &str| {
            let error = load::<Site>(at(name)).unwrap_err();
            error.to_string().replace(&directory.path().display().to_string(), "DIR")
        };
        let all = ["missing.toml", "dir.toml", "latin.toml", "site.ini"].map(said);
        insta::assert_snapshot!(all.join("\n---\n"), @r#"
        cannot read DIR/missing.toml: create it, or name another
        ---
        cannot read DIR/dir.toml: it is a directory; name a file in it
        ---
        DIR/latin.toml:1:12: the file is not UTF-8 from here on [config.encoding]
          1 | name = "caf
            |            ^
          help: save it as UTF-8
        ---
        DIR/site.ini is neither `.toml`, `.yaml` nor `.json`; give it one of these extensions
        "#);
    }

    #[test]
    fn places_are_found_by_key() {
        let toml = Document::new(
            "a.toml",
            "name = \"web\"\nport = 1\n[pages]\n[pages.a]\npath = \"/\"\nlist = [1,\n  { x = 2 }]\n",
        );
        let json = Document::new(
            "a.json",
            "{\n \"name\": \"web\",\n \"pages\": { \"a\": {\n \"path\": \"/\", \"list\": [1,\n {\"x\": 2}] } } }",
        );
        let at = |document: &Document, keys: &[&str]| {
            document.place_of(keys).map(|place| (place.line, place.column))
        };
        #[cfg(feature = "yaml")]
        {
            let yaml = Document::new(
                "a.yaml",
                "name: web\npages:\n  a:\n    path: /\n    list: [1,\n      { ü: 2, x: 2 }]\n    1: one\n",
            );
            assert_eq!(at(&yaml, &["name"]), Some((1, 1)));
            assert_eq!(at(&yaml, &["pages", "a", "path"]), Some((4, 5)));
            assert_eq!(at(&yaml, &["pages", "a", "list", "1", "x"]), Some((6, 15)));
            assert_eq!(at(&yaml, &["pages", "a", "1"]), Some((7, 5)));
            assert_eq!(at(&yaml, &["pages", "a", "nothing"]), at(&yaml, &["pages", "a"]));
        }
        assert_eq!(at(&toml, &["port"]), Some((2, 1)));
        assert_eq!(at(&toml, &["pages", "a", "path"]), Some((5, 1)));
        assert_eq!(at(&toml, &["pages", "a", "list", "1", "x"]), Some((7, 5)));
        assert_eq!(
            at(&toml, &["pages", "a", "nothing"]),
            at(&toml, &["pages", "a"]),
            "the nearest part that is there"
        );
        assert_eq!(at(&json, &["name"]), Some((2, 2)));
        assert_eq!(at(&json, &["pages", "a", "path"]), Some((4, 2)));
        assert_eq!(at(&json, &["pages", "a", "list", "1", "x"]), Some((5, 3)));
    }
}
