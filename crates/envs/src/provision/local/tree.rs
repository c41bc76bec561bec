//! What a directory's content is: its digest, and a copy that has the same one.
//!
//! Counted are relative paths, whether a file may be executed, contents and the targets of symbolic links; owners, times and other mode
//! bits are not. Every file is read once: what is hashed is what is written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use flowline_core::{
    digest::{Digest, Digester},
    error::{BoxError, ErrorKind, Kinded},
};

/// Contents are hashed in pieces of this size, so that no file needs to fit into memory. Part of the digest's definition.
const PIECE: usize = 1 << 20;

/// Why a directory can't be an artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// An entry can't be part of an artifact.
    #[error("`{}` cannot be part of an artifact: {problem}", .path.display())]
    Refused {
        /// The entry, relative to the directory.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// A file can't be read, or its copy not written.
    #[error("cannot {doing} `{}`", .path.display())]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's error.
        source: BoxError,
    },
}

impl Kinded for TreeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } => ErrorKind::Invalid,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }
}

/// The digest of the directory `root`, as an artifact of this content has it.
///
/// # Errors
/// [`TreeError::Refused`] for names that are no UTF-8, links that are absolute, lead nowhere or out of the directory, and anything that is
/// no file, directory or link.
pub fn digest(root: &Path) -> Result<Digest, TreeError> {
    let tree = digest_of(root, None)?;
    Ok(tree)
}

/// Copies the directory `root` to `to`, which must be there and empty, flushes it, and answers the digest of what was written.
pub(super) fn copy(root: &Path, to: &Path) -> Result<Digest, TreeError> {
    digest_of(root, Some(to))
}

fn digest_of(root: &Path, to: Option<&Path>) -> Result<Digest, TreeError> {
    let real = root.canonicalize().map_err(|error| failed("read", root, error))?;
    let mut digester = Digester::new("flowline artifact 1");
    let mut walk = Walk { root: &real, to, digester: &mut digester, piece: vec![0; PIECE] };
    walk.directory("")?;
    Ok(digester.finish())
}

struct Walk<'a> {
    /// Canonical.
    root: &'a Path,
    to: Option<&'a Path>,
    digester: &'a mut Digester,
    piece: Vec<u8>,
}

impl Walk<'_> {
    /// `relative` has `/` between its names and is empty for the root.
    fn directory(&mut self, relative: &str) -> Result<(), TreeError> {
        let path = self.root.join(relative);
        let entries = fs::read_dir(&path).map_err(|error| failed("read", &path, error))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| failed("read", &path, error))?.file_name();
            let name = name.into_string().map_err(|name| {
                refused(Path::new(relative).join(name), "its name is not UTF-8; rename it")
            })?;
            names.push(name);
        }
        // In order of bytes within each directory: the same on every machine.
        names.sort_unstable();
        for name in names {
            let relative = if relative.is_empty() { name } else { format!("{relative}/{name}") };
            self.entry(&relative)?;
        }
        if let Some(to) = self.to {
            let to = to.join(relative);
            File::open(&to).and_then(|dir| dir.sync_all()).map_err(|error| failed("flush", &to, error))?;
        }
        Ok(())
    }

    fn entry(&mut self, relative: &str) -> Result<(), TreeError> {
        let path = self.root.join(relative);
        let found = fs::symlink_metadata(&path).map_err(|error| failed("read", &path, error))?;
        if found.is_dir() {
            self.digester.part("directory").part(relative);
            if let Some(to) = self.to {
                let to = to.join(relative);
                fs::create_dir(&to).map_err(|error| failed("create", &to, error))?;
            }
            self.directory(relative)
        } else if found.is_symlink() {
            self.link(relative, &path)
        } else if found.is_file() {
            self.file(relative, &path)
        } else {
            Err(refused(relative, "it is no file, directory or link; remove it"))
        }
    }

    fn file(&mut self, relative: &str, path: &Path) -> Result<(), TreeError> {
        let reading = |error| failed("read", path, error);
        let mut from = File::open(path).map_err(reading)?;
        let executable = from.metadata().map_err(reading)?.permissions().mode() & 0o111 != 0;
        self.digester.part(if executable { "program" } else { "file" }).part(relative);
        let mut to = match self.to {
            None => None,
            Some(to) => {
                let to = to.join(relative);
                let mode = if executable { 0o755 } else { 0o644 };
                let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&to);
                Some((file.map_err(|error| failed("create", &to, error))?, to))
            }
        };
        loop {
            let filled = fill(&mut from, &mut self.piece).map_err(reading)?;
            let piece = self.piece.get(..filled).unwrap_or_default();
            self.digester.part(piece);
            if let Some((file, to)) = &mut to {
                file.write_all(piece).map_err(|error| failed("write", to, error))?;
            }
            // A piece that is not full is the last one, if need be an empty one: where a file ends is part of the digest.
            if filled < PIECE {
                break;
            }
        }
        match to {
            Some((file, to)) => file.sync_all().map_err(|error| failed("flush", &to, error)),
            None => Ok(()),
        }
    }

    fn link(&mut self, relative: &str, path: &Path) -> Result<(), TreeError> {
        let target = fs::read_link(path).map_err(|error| failed("read", path, error))?;
        let Some(text) = target.to_str() else {
            return Err(refused(relative, "the target of this link is not UTF-8; change it"));
        };
        if !target
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::ParentDir | Component::CurDir))
        {
            return Err(refused(relative, &format!("this link to `{text}` is absolute; make it relative")));
        }
        // Resolved by the system, so that a link through other links cannot climb out unseen.
        match path.canonicalize() {
            Ok(real) if real.starts_with(self.root) => {}
            Ok(_) => {
                return Err(refused(
                    relative,
                    &format!("this link to `{text}` leads out of the directory; copy what it points to"),
                ));
            }
            Err(_) => {
                return Err(refused(relative, &format!("this link to `{text}` leads nowhere; remove it")));
            }
        }
        self.digester.part("link").part(relative).part(text);
        match self.to {
            Some(to) => {
                let to = to.join(relative);
                symlink(&target, &to).map_err(|error| failed("create", &to, error))
            }
            None => Ok(()),
        }
    }
}

/// Reads until `piece` is full or the file ends.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn refused(path: impl Into<PathBuf>, problem: &str) -> TreeError {
    TreeError::Refused { path: path.into(), problem: problem.to_owned() }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> TreeError {
    TreeError::Unavailable { doing, path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{ffi::OsStrExt as _, net::UnixListener};

    use flowline_core::error::chain;

    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn of(files: &[(&str, &str)]) -> Digest {
        digest(dir(files).path()).unwrap()
    }

    #[test]
    fn content_is_what_counts() {
        let tree = [("a/b", "1"), ("c", "2")];
        assert_eq!(of(&tree), of(&[("c", "2"), ("a/b", "1")]), "order of writing does not");
        for other in [
            &[("a/b", "1"), ("c", "3")][..],
            &[("a/b", "1"), ("d", "2")],
            &[("a/b", "1")],
            &[("a/b", "1"), ("c", "2"), ("e/f", "")],
            &[("ab", "1"), ("c", "2")],
        ] {
            assert_ne!(of(&tree), of(other), "{other:?}");
        }
        let same = dir(&tree);
        fs::set_permissions(same.path().join("c"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(digest(same.path()).unwrap(), of(&tree), "who may read it does not");
        fs::set_permissions(same.path().join("c"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(digest(same.path()).unwrap(), of(&tree), "that it is a program does");
        let empty = dir(&tree);
        fs::create_dir(empty.path().join("empty")).unwrap();
        assert_ne!(digest(empty.path()).unwrap(), of(&tree), "an empty directory does");
    }

    #[test]
    fn where_a_file_ends_counts_at_the_border_of_a_piece() {
        let full = "x".repeat(PIECE);
        let digests = [of(&[("a", &full)]), of(&[("a", &full[1..])]), of(&[("a", &format!("{full}x"))])];
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
        let copy = tempfile::tempdir().unwrap();
        let long = dir(&[("a", &format!("{full}{full}yz"))]);
        assert_eq!(super::copy(long.path(), copy.path()).unwrap(), digest(long.path()).unwrap());
        assert_eq!(fs::read(copy.path().join("a")).unwrap(), fs::read(long.path().join("a")).unwrap());
    }

    #[test]
    fn a_copy_has_the_same_digest_and_links_that_stay_inside() {
        let tree = dir(&[("bin/run", "#!"), ("page", "x")]);
        fs::set_permissions(tree.path().join("bin/run"), fs::Permissions::from_mode(0o4775)).unwrap();
        symlink("../page", tree.path().join("bin/page")).unwrap();
        symlink("bin", tree.path().join("tools")).unwrap();
        let to = tempfile::tempdir().unwrap();
        let copied = copy(tree.path(), to.path()).unwrap();
        assert_eq!(copied, digest(tree.path()).unwrap());
        assert_eq!(copied, digest(to.path()).unwrap());
        assert_eq!(fs::read_link(to.path().join("bin/page")).unwrap(), Path::new("../page"));
        let mode = fs::metadata(to.path().join("tools/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "no mode bits but those of a program are taken over");
    }

    #[test]
    fn what_cannot_be_delivered_is_refused_with_its_place() {
        let said = |make: &dyn Fn(&Path)| {
            let tree = dir(&[("deep/page", "x")]);
            make(tree.path());
            let to = tempfile::tempdir().unwrap();
            let (read, copied) =
                (digest(tree.path()).unwrap_err(), copy(tree.path(), to.path()).unwrap_err());
            assert_eq!(read.to_string(), copied.to_string());
            assert_eq!(read.kind(), ErrorKind::Invalid);
            chain(&read)
        };
        let link = |to: &str, at: &str| said(&|tree| symlink(to, tree.join(at)).unwrap());
        let all = [
            link("/etc/passwd", "deep/a"),
            link("../../x", "deep/a"),
            link("nowhere", "deep/a"),
            link("a", "deep/a"),
            said(&|tree| {
                // Read name by name this stays inside; followed link by link it does not.
                fs::create_dir_all(tree.join("x/y")).unwrap();
                symlink("../..", tree.join("x/y/top")).unwrap();
                symlink("x/y/top/..", tree.join("climbs")).unwrap();
            }),
            said(&|tree| drop(UnixListener::bind(tree.join("socket")).unwrap())),
            said(&|tree| fs::write(tree.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "").unwrap()),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        `deep/a` cannot be part of an artifact: this link to `/etc/passwd` is absolute; make it relative
        `deep/a` cannot be part of an artifact: this link to `../../x` leads nowhere; remove it
        `deep/a` cannot be part of an artifact: this link to `nowhere` leads nowhere; remove it
        `deep/a` cannot be part of an artifact: this link to `a` leads nowhere; remove it
        `climbs` cannot be part of an artifact: this link to `x/y/top/..` leads out of the directory; copy what it points to
        `socket` cannot be part of an artifact: it is no file, directory or link; remove it
        `caf�` cannot be part of an artifact: its name is not UTF-8; rename it
        ");
    }
}
