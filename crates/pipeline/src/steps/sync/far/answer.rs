//! What the program on the other host answers.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use flowline_core::{digest::Digest, error::ErrorKind};

use crate::steps::{
    sync::{
        SyncError, SyncFiles,
        host::besides,
        record::{Record, ours, release_of},
    },
    tree::{Entry, Tree, stays_inside},
};

/// Why it did nothing, or no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Busy(String),
    Moved,
    NotALink,
    Link { path: PathBuf, real: PathBuf },
    NotShared(PathBuf),
    Digest,
    Tool(String),
    Io { kind: ErrorKind, said: String },
}

/// What is at a release directory.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) there: bool,
    pub(super) current: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) trees: BTreeMap<String, Found>,
    record: Option<(String, Vec<u8>)>,
}

/// A release, as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    entries: BTreeMap<PathBuf, Entry>,
    /// It holds what belongs in no tree, or could not be read.
    odd: bool,
    revision: Option<String>,
}

/// What stands before the last line of `answer`, if that says that all went well.
pub(super) fn end(answer: &[u8]) -> Result<&[u8], Refusal> {
    if let Some(before) = answer.strip_suffix(b"\nok\n") {
        return Ok(before);
    }
    let text = String::from_utf8_lossy(answer);
    let text = text.trim_end();
    let last = text.rsplit('\n').next().unwrap_or_default();
    let after = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        PathBuf::from(line.unwrap_or_default())
    };
    let (what, more) = last.strip_prefix("fail ").unwrap_or_default().split_once(' ').unwrap_or_default();
    Err(match (last, what) {
        ("fail moved", _) => Refusal::Moved,
        ("fail notalink", _) => Refusal::NotALink,
        ("fail link", _) => Refusal::Link { path: after("there "), real: after("real ") },
        ("fail digest", _) => Refusal::Digest,
        (_, "busy") => Refusal::Busy(more.trim().to_owned()),
        (_, "notshared") => Refusal::NotShared(PathBuf::from(more)),
        (_, "tool") => Refusal::Tool(more.to_owned()),
        (_, "io") => Refusal::Io { kind: kind_of(more), said: format!("it could not {}", more.trim()) },
        _ => Refusal::Io { kind: ErrorKind::Other, said: format!("its shell said `{last}`") },
    })
}

/// What the text of a system error means.
fn kind_of(said: &str) -> ErrorKind {
    let texts = [
        ("Permission denied", ErrorKind::Denied),
        ("Operation not permitted", ErrorKind::Denied),
        ("Read-only file system", ErrorKind::Denied),
        ("No space left", ErrorKind::Unavailable),
        ("quota exceeded", ErrorKind::Unavailable),
        ("No such file", ErrorKind::NotFound),
        ("File exists", ErrorKind::Conflict),
    ];
    texts.iter().find(|(text, _)| said.contains(text)).map_or(ErrorKind::Other, |(_, kind)| *kind)
}

fn path(bytes: &[u8]) -> PathBuf {
    let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The first word of a line, and the rest of it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let at = line.iter().position(|byte| *byte == b' ');
    at.map_or((line, &[][..]), |at| (&line[..at], &line[at + 1..]))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Seen {
    pub(super) fn read(answer: &[u8], root: &Path) -> Result<Self, Refusal> {
        let mut rest = end(answer)?;
        let (mut seen, mut names) = (Self::default(), Vec::new());
        let mut found: Option<(String, Listing)> = None;
        while !rest.is_empty() {
            let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let line = &rest[..at];
            rest = rest.get(at + 1..).unwrap_or_default();
            let (kind, more) = word(line);
            match kind {
                b"there" => seen.there = true,
                b"current" => {
                    let to = release_of(&path(more));
                    seen.current = Some(to.ok_or(Refusal::NotALink)?);
                }
                b"name" => names.push(text(more)),
                b"tree" => {
                    seen.put(found.replace((text(more), Listing::default())));
                }
                b"record" => {
                    seen.record = Some((text(more), rest.to_vec()));
                    break;
                }
                _ => {
                    let Some((_, listing)) = &mut found else {
                        let said =
                            format!("what it says of {} makes no sense: {}", root.display(), text(line));
                        return Err(Refusal::Io { kind: ErrorKind::Other, said });
                    };
                    listing.line(kind, more);
                }
            }
        }
        seen.put(found);
        seen.names = ours(names);
        Ok(seen)
    }

    fn put(&mut self, found: Option<(String, Listing)>) {
        if let Some((name, listing)) = found {
            self.trees.insert(name, listing.found());
        }
    }

    pub(super) fn record(&self, root: &Path) -> Result<Record, SyncError> {
        Record::read(self.record.as_ref().map(|(_, bytes)| bytes.as_slice()), root)
    }

    /// The move that makes sure that this still holds.
    pub(super) fn expected(&self) -> Vec<String> {
        let digest = self.record.as_ref().map_or("-", |(digest, _)| digest);
        vec![format!("expect {} {digest}", self.current.as_deref().unwrap_or("-"))]
    }
}

impl Found {
    /// What came from the source.
    pub(super) fn tree(&self, spec: &SyncFiles) -> Tree {
        let besides = besides(spec);
        let own = |path: &&PathBuf| !besides.iter().any(|added| path.starts_with(added));
        let entries = self.entries.iter().filter(|(path, _)| own(path));
        Tree { entries: entries.map(|(path, entry)| (path.clone(), entry.clone())).collect() }
    }

    pub(super) fn is_of_revision(&self, spec: &SyncFiles) -> bool {
        let said = self.revision.as_deref().map(str::trim_end);
        spec.revision.is_none() || said == spec.revision.as_deref()
    }

    /// Whether it is whole: the tree `digest`, the revision and the shared links.
    pub(super) fn holds(&self, spec: &SyncFiles, digest: Digest) -> bool {
        let linked = |path: &PathBuf| matches!(self.entries.get(path), Some(Entry::Link { .. }));
        let tree = self.tree(spec);
        let leads_out = |(path, entry): (&PathBuf, &Entry)| matches!(entry, Entry::Link { to } if !stays_inside(path, to));
        !self.odd
            && spec.shared.iter().all(linked)
            && self.is_of_revision(spec)
            && !tree.entries.iter().any(leads_out)
            && tree.digest() == digest
    }
}

/// What is said about one release, line by line: `d MODE PATH`, `f MODE LENGTH PATH`, `s DIGEST  PATH`, `l PATH` and then `> TARGET`.
#[derive(Debug, Default)]
struct Listing {
    entries: BTreeMap<PathBuf, Entry>,
    files: BTreeMap<PathBuf, (u32, u64)>,
    digests: BTreeMap<PathBuf, Digest>,
    link: Option<PathBuf>,
    odd: bool,
    revision: Option<String>,
}

impl Listing {
    fn line(&mut self, kind: &[u8], more: &[u8]) {
        let (first, rest) = word(more);
        let mode = || u32::from_str_radix(&text(first), 8).ok().map(|mode| mode & 0o777);
        let done = match kind {
            b"revision" => {
                self.revision = Some(text(more));
                Some(())
            }
            b"d" if rest == b"." => Some(()),
            b"d" => mode().map(|mode| self.entries.extend([(path(rest), Entry::Directory { mode })])),
            b"f" => {
                let (length, at) = word(rest);
                let length = text(length).parse().ok();
                mode().zip(length).map(|facts| self.files.extend([(path(at), facts)]))
            }
            b"s" => digest_line(more).map(|found| self.digests.extend([found])),
            b"l" => {
                self.link = Some(path(more));
                Some(())
            }
            b">" => {
                let to = PathBuf::from(OsStr::from_bytes(more));
                self.link.take().map(|at| self.entries.extend([(at, Entry::Link { to })]))
            }
            _ => None,
        };
        self.odd |= done.is_none();
    }

    fn found(mut self) -> Found {
        for (at, (mode, length)) in self.files {
            match self.digests.remove(&at) {
                Some(digest) => drop(self.entries.insert(at, Entry::File { mode, length, digest })),
                // It could not be read.
                None => self.odd = true,
            }
        }
        Found { entries: self.entries, odd: self.odd, revision: self.revision }
    }
}

/// A line of `sha256sum`, which begins with a backslash if the name's own are doubled.
fn digest_line(line: &[u8]) -> Option<(PathBuf, Digest)> {
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(line) => (true, line),
        None => (false, line),
    };
    let (digest, name) = word(line);
    let digest = format!("sha256:{}", text(digest)).parse().ok()?;
    // A second space, or a star, says how it was read.
    let name = name.get(1..)?;
    if !escaped {
        return Some((path(name), digest));
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some((path(&plain), digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_is_there_or_why_nothing_was_done() {
        let (one, two) = (Digest::of("one").hex(), Digest::of("two").hex());
        let answer = format!(
            "there\ncurrent releases/000002-aaaaaaaaaaaa\nname 000010-bbbbbbbbbbbb\nname 000002-aaaaaaaaaaaa\nname 2024-1\n\
             tree 000002-aaaaaaaaaaaa\nrevision 4fa2\nd 755 .\nd 2750 ./a b\nf 4755 3 ./a b/x\nf 600 3 ./y\\z\ns {one}  ./a b/x\n\
             s \\{two}  ./y\\\\z\nl ./home\n> a b/x\nrecord abc\n{{\"format\":1}}\n\nok\n"
        );
        let seen = Seen::read(answer.as_bytes(), Path::new("/srv")).unwrap();
        assert_eq!(seen.expected(), ["expect 000002-aaaaaaaaaaaa abc"]);
        assert_eq!(seen.names, ["000002-aaaaaaaaaaaa", "000010-bbbbbbbbbbbb"]);
        assert_eq!(seen.record.unwrap().1, b"{\"format\":1}\n");
        let found = &seen.trees["000002-aaaaaaaaaaaa"];
        assert!(!found.odd);
        let (one, two) = (Digest::of("one"), Digest::of("two"));
        let expected = [
            ("a b", Entry::Directory { mode: 0o750 }),
            ("a b/x", Entry::File { mode: 0o755, length: 3, digest: one }),
            ("home", Entry::Link { to: "a b/x".into() }),
            ("y\\z", Entry::File { mode: 0o600, length: 3, digest: two }),
        ];
        assert_eq!(found.entries, expected.map(|(at, entry)| (PathBuf::from(at), entry)).into());

        let refused = |text: &str| end(text.as_bytes()).unwrap_err();
        assert_eq!(refused("\nfail moved\n"), Refusal::Moved);
        assert_eq!(refused("\nfail busy run r, step s\n"), Refusal::Busy("run r, step s".to_owned()));
        let link = Refusal::Link { path: "/a b".into(), real: "/c".into() };
        assert_eq!(refused("there /a b\nreal /c\n\nfail link\n"), link);
        let full = refused("\nfail io copy to /x: cp: No space left on device\n");
        assert!(matches!(full, Refusal::Io { kind: ErrorKind::Unavailable, .. }), "{full:?}");
        assert!(matches!(refused(""), Refusal::Io { kind: ErrorKind::Other, .. }));
    }

    #[test]
    fn what_could_not_be_read_is_no_whole_tree() {
        for broken in ["odd", "f 644 3 ./unread", "s zz  ./x", "> nowhere"] {
            let answer = format!("tree 000001-aaaaaaaaaaaa\n{broken}\n\nok\n");
            let seen = Seen::read(answer.as_bytes(), Path::new("/srv")).unwrap();
            assert!(seen.trees["000001-aaaaaaaaaaaa"].odd, "{broken}");
        }
    }
}
