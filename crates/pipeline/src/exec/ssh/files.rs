//! Which files go to the far host and which come back, by digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use flowline_core::{digest::Digest, error::BoxError};

use super::script::path_text;
use crate::exec::{Command, ExecError};

/// What a command takes with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    /// Directories, as they may be empty.
    pub(super) dirs: BTreeSet<String>,
    /// Files, by path.
    pub(super) files: Vec<CarriedFile>,
    /// Declared outputs.
    pub(super) outputs: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct CarriedFile {
    /// Below the working directory.
    pub(super) path: String,
    /// Where it is on this host.
    pub(super) source: PathBuf,
    /// Its content, in hexadecimal digits.
    pub(super) digest: String,
    pub(super) length: u64,
    executable: bool,
    writable: bool,
}

impl CarriedFile {
    /// Its permissions on the far host.
    pub(super) fn mode(&self) -> &'static str {
        match (self.executable, self.writable) {
            (false, false) => "0444",
            (true, false) => "0555",
            (false, true) => "0644",
            (true, true) => "0755",
        }
    }
}

impl Carried {
    /// Looks at the declared files of `command`; nothing if it declares none. Reads every file once. Links are followed; what is neither
    /// file nor directory is refused.
    pub(super) fn of(command: &Command) -> Result<Option<Self>, ExecError> {
        if command.reads.is_empty() && command.writes.is_empty() {
            return Ok(None);
        }
        let mut carried = Self::default();
        for path in &command.writes {
            carried.outputs.push(path_text(path));
            carried.add(command, path, true)?;
        }
        for path in &command.reads {
            carried.add(command, path, false)?;
        }
        let mut seen = BTreeSet::new();
        carried.files.retain(|file| seen.insert(file.path.clone()));
        Ok(Some(carried))
    }

    fn add(&mut self, command: &Command, path: &Path, writable: bool) -> Result<(), ExecError> {
        let source = command.dir.join(path);
        let failed = |error: io::Error| command.files(&source, error);
        let facts = fs::metadata(&source).map_err(failed)?;
        if path.to_str().is_none() {
            return Err(command
                .invalid(format!("the path `{}` is not UTF-8, so it cannot be carried", path.display())));
        }
        if facts.is_dir() {
            if path != Path::new(".") {
                self.dirs.insert(path_text(path));
            }
            let entries: Result<Vec<_>, _> = fs::read_dir(&source).map_err(failed)?.collect();
            let mut names: Vec<_> =
                entries.map_err(failed)?.into_iter().map(|entry| entry.file_name()).collect();
            names.sort();
            for name in names {
                self.add(command, &path.join(name), writable)?;
            }
            return Ok(());
        }
        if !facts.is_file() {
            return Err(command.invalid(format!(
                "`{}` is neither a file nor a directory, so it cannot be carried",
                path.display()
            )));
        }
        let digest = Digest::of_reader(File::open(&source).map_err(failed)?).map_err(failed)?.hex();
        self.files.push(CarriedFile {
            path: path_text(path),
            source,
            digest,
            length: facts.len(),
            executable: facts.permissions().mode() & 0o111 != 0,
            writable,
        });
        Ok(())
    }

    /// One file for each content.
    pub(super) fn contents(&self) -> BTreeMap<&str, &CarriedFile> {
        self.files.iter().map(|file| (file.digest.as_str(), file)).collect()
    }
}

/// Takes what comes back, in whatever pieces, and puts it where it belongs: each file beside its place, verified, then renamed.
pub(super) struct Returning<'a> {
    command: &'a Command,
    outputs: Vec<PathBuf>,
    line: Vec<u8>,
    current: Option<Arriving>,
    complete: bool,
}

struct Arriving {
    part: PathBuf,
    place: PathBuf,
    file: File,
    digest: Digest,
    left: u64,
    executable: bool,
}

/// A line that says what comes is no longer than this.
const LONGEST: usize = 8 * 1024;

impl<'a> Returning<'a> {
    pub(super) fn new(command: &'a Command) -> Self {
        let outputs = command.writes.iter().cloned().collect();
        Self { command, outputs, line: Vec::new(), current: None, complete: false }
    }

    /// Whether everything has come.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), ExecError> {
        while !bytes.is_empty() && !self.complete {
            if let Some(arriving) = &mut self.current {
                let here = bytes.len().min(usize::try_from(arriving.left).unwrap_or(usize::MAX));
                let place = arriving.place.clone();
                arriving.file.write_all(&bytes[..here]).map_err(|error| self.command.files(&place, error))?;
                arriving.left -= here as u64;
                bytes = &bytes[here..];
                self.settle()?;
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                if self.line.len() > LONGEST {
                    return Err(self.damaged("a line of it is too long"));
                }
                return Ok(());
            };
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.begin(&line)?;
            self.settle()?;
        }
        Ok(())
    }

    /// A file that has come whole goes to its place.
    fn settle(&mut self) -> Result<(), ExecError> {
        let Some(arriving) = self.current.take_if(|arriving| arriving.left == 0) else { return Ok(()) };
        let done = || -> io::Result<bool> {
            if Digest::of_reader(File::open(&arriving.part)?)? != arriving.digest {
                fs::remove_file(&arriving.part)?;
                return Ok(false);
            }
            let mode = if arriving.executable { 0o755 } else { 0o644 };
            fs::set_permissions(&arriving.part, fs::Permissions::from_mode(mode))?;
            fs::rename(&arriving.part, &arriving.place)?;
            Ok(true)
        };
        match done() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self
                .command
                .files(&arriving.place, "its content does not have the digest that was announced")),
            Err(error) => Err(self.command.files(&arriving.place, error)),
        }
    }

    fn begin(&mut self, line: &[u8]) -> Result<(), ExecError> {
        let line = std::str::from_utf8(line).map_err(|_| self.damaged("a name in it is not UTF-8"))?;
        let Some((kind, rest)) = line.split_once(' ') else {
            return match line {
                "E" => {
                    self.complete = true;
                    Ok(())
                }
                "N" => Err(self.damaged("a name in it holds a newline")),
                _ => Err(self.damaged("it does not say what comes")),
            };
        };
        if kind == "D" {
            let place = self.place(rest)?;
            return fs::create_dir_all(&place).map_err(|error| self.command.files(&place, error));
        }
        let mut parts = rest.splitn(4, ' ');
        let (Some(digest), Some(length), Some(executable), Some(path)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(self.damaged("it does not say what comes"));
        };
        let (Ok(digest), Ok(left)) = (format!("sha256:{digest}").parse(), length.parse()) else {
            return Err(self.damaged("it does not say how much comes"));
        };
        let place = self.place(path)?;
        let mut part = place.clone().into_os_string();
        part.push(".flowline-part");
        let part = PathBuf::from(part);
        let open = place.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&part));
        let file = open.map_err(|error| self.command.files(&place, error))?;
        self.current = Some(Arriving { part, place, file, digest, left, executable: executable == "x" });
        Ok(())
    }

    /// Where `path` belongs on this host: only below a declared output.
    fn place(&self, path: &str) -> Result<PathBuf, ExecError> {
        let path: PathBuf = Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        let declared = self.outputs.iter().any(|output| output == Path::new(".") || path.starts_with(output));
        if inside && declared {
            Ok(self.command.dir.join(path))
        } else {
            Err(self.damaged("it names what is no declared output"))
        }
    }

    fn damaged(&self, why: &str) -> ExecError {
        let why: BoxError = format!("what came back from the far host cannot be used: {why}").into();
        self.command.files(&self.command.dir, why)
    }
}

impl Drop for Returning<'_> {
    fn drop(&mut self) {
        if let Some(arriving) = &self.current {
            fs::remove_file(&arriving.part).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_lands_only_below_declared_outputs_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command::new("x", dir.path()).writes("out");
        let digest = Digest::of("hello").hex();
        let good = format!(
            "D ./out/empty\nF {digest} 5 x ./out/a b\nhelloF {} 0 - ./out/none\nE\n",
            Digest::of("").hex()
        );
        for size in 1..12 {
            let mut returning = Returning::new(&command);
            for chunk in good.as_bytes().chunks(size) {
                returning.push(chunk).unwrap();
            }
            assert!(returning.is_complete());
            assert_eq!(fs::read(dir.path().join("out/a b")).unwrap(), b"hello");
            assert_eq!(fs::metadata(dir.path().join("out/a b")).unwrap().permissions().mode() & 0o777, 0o755);
        }
        for bad in [
            format!("F {digest} 5 - ./other\n"),
            format!("F {digest} 5 - ./out/../../x\n"),
            format!("F {digest} 5 - /etc/x\n"),
            format!("F {digest} 5 - ./out/y\nhullo"),
            "F abc 5 - ./out/y\n".to_owned(),
            "N\n".to_owned(),
            "what\n".to_owned(),
            "x".repeat(9_000),
        ] {
            assert!(Returning::new(&command).push(bad.as_bytes()).is_err(), "{bad}");
        }
        let names: BTreeSet<_> =
            fs::read_dir(dir.path().join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a b", "empty", "none"].map(Into::into).into());
    }
}
