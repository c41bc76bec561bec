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
