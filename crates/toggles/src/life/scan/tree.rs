//! Walks a tree as git sees it, and keeps what its texts say.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use flowline_core::error::{BoxError, ErrorKind, Kinded};
use ignore::{WalkBuilder, overrides::OverrideBuilder};

use super::{
    CALLS, Found, Reference, Scan, Skipped, Why,
    text::{self, Matcher},
};

/// Looks for flags in source trees.
///
/// A key counts where it stands by itself: not as part of a longer word. With a dot next to it, it counts as a part of a path (`flags.checkout.on`)
/// but not of a longer literal (`"checkout.v2"`). Comments, documents and scripts count like code.
///
/// Blocks its thread while it reads; a tree of 10,000 files takes about a second.
///
/// ```
/// use flowline_toggles::life::scan::Scanner;
/// let tree = tempfile::tempdir()?;
/// std::fs::write(tree.path().join("shop.py"), "if client.is_enabled('checkout'):\n    ask(client.is_enabled('old-pay'))\n")?;
/// let scan = Scanner::new(["checkout", "search"])?.scan(tree.path())?;
/// assert_eq!(scan.references["checkout"][0].to_string(), "shop.py:1:23");
/// assert!(scan.references["search"].is_empty());
/// assert_eq!(scan.unknown["old-pay"][0].to_string(), "shop.py:2:28");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Scanner {
    keys: Vec<String>,
    calls: Vec<String>,
    spellings: bool,
    matcher: Matcher,
    without: Vec<String>,
    limit: u64,
}

impl Scanner {
    /// Looks for `keys`, and for unknown flags in the [usual calls](CALLS) and in [those of our own](super::METHODS).
    ///
    /// # Errors
    /// [`ScanError::Keys`] if they are too many or too long to look for at once.
    pub fn new<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Result<Self, ScanError> {
        let keys: Vec<String> =
            keys.into_iter().map(Into::into).filter(|key: &String| !key.is_empty()).collect();
        let calls: Vec<String> = CALLS.iter().map(|&call| call.to_owned()).collect();
        let matcher = Matcher::new(&keys, &calls, false)?;
        Ok(Self { keys, calls, spellings: false, matcher, without: Vec::new(), limit: 4 << 20 })
    }

    /// The same, with further functions and methods whose first literal argument is a flag's key.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn calling<C: Into<String>>(mut self, calls: impl IntoIterator<Item = C>) -> Result<Self, ScanError> {
        self.calls.extend(calls.into_iter().map(Into::into));
        self.rebuilt()
    }

    /// The same, where a key in another spelling counts, too: of `new-checkout` also `new_checkout`, `newCheckout`, `NewCheckout` and
    /// `NEW_CHECKOUT`, as generated code spells it. Keys of a single word have no other spelling.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_any_spelling(mut self) -> Result<Self, ScanError> {
        self.spellings = true;
        self.rebuilt()
    }

    /// The same without the files that `pattern` names, written as in a `.gitignore`: the file that defines the flags names all of them.
    #[must_use]
    pub fn without(mut self, pattern: impl Into<String>) -> Self {
        self.without.push(pattern.into());
        self
    }

    /// The same for files of at most `bytes`; by default 4 MiB. Larger ones are [told](Scan::skipped).
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    fn rebuilt(mut self) -> Result<Self, ScanError> {
        self.matcher = Matcher::new(&self.keys, &self.calls, self.spellings)?;
        Ok(self)
    }

    /// Looks through the tree below `root`. Symbolic links are not followed; hidden files count, `.git` does not.
    ///
    /// # Errors
    /// [`ScanError::Root`] if there is no such directory, [`ScanError::Pattern`]. A file that can't be read is [told](Scan::skipped), and the
    /// rest counts.
    pub fn scan(&self, root: &Path) -> Result<Scan, ScanError> {
        let unreadable = |source: io::Error| ScanError::Root { root: root.to_owned(), source };
        fs::read_dir(root).map_err(unreadable)?;
        let mut overrides = OverrideBuilder::new(root);
        for pattern in &self.without {
            // In an override, `!` means what its absence means in a `.gitignore`.
            let inverted = pattern.strip_prefix('!').map_or_else(|| format!("!{pattern}"), str::to_owned);
            overrides.add(&inverted).map_err(|error| ScanError::pattern(pattern, error))?;
        }
        let overrides =
            overrides.build().map_err(|error| ScanError::pattern(&self.without.join(", "), error))?;
        let walk = WalkBuilder::new(root)
            .overrides(overrides)
            .hidden(false)
            .require_git(false)
            // What one user's machine ignores besides is not part of the tree.
            .git_global(false)
            .sort_by_file_name(Ord::cmp)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        let mut scan = Scan::default();
        scan.references.extend(self.keys.iter().map(|key| (key.clone(), Vec::new())));
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    self.file(entry.path(), below(root, entry.path()), &mut scan);
                }
                Ok(_) => {}
                Err(error) => {
                    let problem = error.to_string();
                    scan.skipped.push(Skipped { file: ".".to_owned(), why: Why::Unreadable { problem } });
                }
            }
        }
        Ok(scan)
    }

    /// Looks through one text.
    pub fn text(&self, text: &str) -> Vec<Found> {
        self.matcher.find(text.as_bytes())
    }

    fn file(&self, path: &Path, file: String, scan: &mut Scan) {
        let read = fs::metadata(path).and_then(|metadata| {
            let bytes = metadata.len();
            if bytes > self.limit { Ok(Err(Why::TooLarge { bytes })) } else { fs::read(path).map(Ok) }
        });
        let text = match read {
            Ok(Ok(bytes)) => text::decoded(bytes).ok_or(Why::Binary),
            Ok(Err(why)) => Err(why),
            Err(error) => Err(Why::Unreadable { problem: error.to_string() }),
        };
        let text = match text {
            Ok(text) => text,
            Err(why) => return scan.skipped.push(Skipped { file, why }),
        };
        scan.files += 1;
        for found in self.matcher.find(&text) {
            let place = Reference { file: file.clone(), line: found.line, column: found.column };
            let places = if found.known { &mut scan.references } else { &mut scan.unknown };
            places.entry(found.key).or_default().push(place);
        }
    }
}

/// A path below `root`, the same on every host.
fn below(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Why a tree was not looked through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The tree's root can't be read.
    #[error("cannot look for flags in {}: it is no directory that can be read", .root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pattern of files to leave out makes no sense.
    #[error("cannot leave out `{pattern}`: it is no pattern; write it as in a .gitignore")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        source: BoxError,
    },
    /// The keys, or the calls, can't be looked for at once.
    #[error("cannot look for {keys} flags at once; look for fewer, or for shorter ones")]
    Keys {
        /// How many.
        keys: usize,
        /// Why.
        source: BoxError,
    },
}

impl ScanError {
    fn pattern(pattern: &str, source: ignore::Error) -> Self {
        Self::Pattern { pattern: pattern.to_owned(), source: source.into() }
    }
}

impl Kinded for ScanError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Root { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Root { .. } => ErrorKind::Unavailable,
            Self::Pattern { .. } | Self::Keys { .. } => ErrorKind::Invalid,
        }
    }
}
