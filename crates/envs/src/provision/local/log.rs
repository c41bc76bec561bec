//! What a process wrote: appended to one file, of which the last lines are shown and the size is bounded.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::provision::LogTail;

/// Opens the log for a process to append to. Only its owner may read it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Where older output lies.
fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Keeps the log below about twice `limit` bytes: once it is longer, it is copied to `NUMBER.log.1` (in place of the older copy) and
/// truncated. The process keeps its open file, which is why the file is not renamed; what it writes between copy and truncation is lost.
pub(super) fn bound(path: &Path, limit: u64) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.len() > limit => {
            let older = older(path);
            let mut from = File::open(path)?;
            from.seek(SeekFrom::Start(found.len().saturating_sub(limit)))?;
            let mut to =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&older)?;
            io::copy(&mut from.take(limit), &mut to)?;
            OpenOptions::new().write(true).open(path)?.set_len(0)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The last lines of the log that were written after `from` bytes, for a message.
pub(super) fn tail(path: &Path, from: u64) -> LogTail {
    const LINES: usize = 20;
    const BYTES: u64 = 8 << 10;
    const WIDTH: usize = 300;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        // A log that is shorter than where it began was truncated meanwhile.
        let from = if from > length { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(BYTES))))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(LINES));
    LogTail(shown.map(|line| line.chars().take(WIDTH).flat_map(visible).collect()).collect())
}

fn visible(character: char) -> Vec<char> {
    if character.is_control() && character != '\t' {
        character.escape_default().collect()
    } else {
        vec![character]
    }
}

/// How long the log is now; where the output of the next start begins.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_long_log_is_cut_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.log");
        let mut writer = open(&path).unwrap();
        writer.write_all(&[b'a'; 60]).unwrap();
        writer.write_all(&[b'b'; 60]).unwrap();
        bound(&path, 100).unwrap();
        writer.write_all(b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        let older = fs::read(older(&path)).unwrap();
        assert_eq!((older.len(), older.last()), (100, Some(&b'b')));
    }

    #[test]
    fn the_tail_shows_this_start_only_and_escapes_what_moves_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.log");
        let mut writer = open(&path).unwrap();
        writer.write_all(b"earlier\n").unwrap();
        let from = length(&path);
        writer.write_all(b"now\n\x1b[2Jred\n\xff\n").unwrap();
        insta::assert_snapshot!(tail(&path, from), @r"
        ; the last it wrote:
          | now
          | \u{1b}[2Jred
          | �
        ");
        assert_eq!(tail(&dir.path().join("none"), 0).to_string(), "; it wrote nothing");
    }
}
