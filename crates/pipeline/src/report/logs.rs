//! What each step printed, kept in a directory: by run and step, masked, bounded, readable after any crash.
//!
//! A step's file holds its first lines, up to [`HEAD`] bytes; what comes after goes into two files that take turns, so that the newest
//! lines are always there and nothing ever grows. Each line carries its number, so a reader knows how many are left out.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{
    Timestamp,
    clock::Clock,
    error::{BoxError, ErrorKind, Kinded},
    id::RunId,
};

use crate::{
    exec::{Line, Stream},
    plan::StepId,
    run::{Progress, Reporter},
};

/// How many bytes of a step's first lines are kept.
const HEAD: u64 = 256 * 1_024;
/// How many bytes each of the two files holds that take turns after that.
const TURN: u64 = 128 * 1_024;
/// How many steps' files are held open at once; of more, the one that was written to longest ago is closed.
const OPEN: usize = 32;

/// The logs of runs in a directory. Cheap to clone; several processes may read while one writes.
///
/// *Guarantees*: what was written is there after the process is killed; at most 512 KiB are kept of a step; nothing reaches a file that
/// did not reach a [`Reporter`], so secrets of the run are masked. Files are readable for their owner alone (Unix).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    directory: PathBuf,
}

/// One line that a step printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLine {
    /// Its number among all lines of the step in this run, from 1.
    pub number: u64,
    /// When it was kept.
    pub time: Timestamp,
    /// The attempt that printed it, from 1; 0 for undoing a step of an earlier process.
    pub attempt: u32,
    /// Where it came from, its bytes, and whether the next line continues it.
    pub line: Line,
}

/// What is kept of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepLog {
    /// The lines, in order.
    pub lines: Vec<KeptLine>,
    /// How many lines between the first and the last are not kept.
    pub left_out: u64,
}

/// A log that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the logs of run `{run}` in {}; check that this user may read there", .path.display())]
pub struct LogError {
    run: RunId,
    path: PathBuf,
    source: BoxError,
}

impl Kinded for LogError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

impl Logs {
    /// Logs below `directory`, which is made when the first line is kept.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// A reporter that keeps the lines of `run`. A disk that is full stops no deployment: what can't be kept is left out.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use flowline_core::clock::ManualClock;
    /// use flowline_pipeline::{exec::{Line, Stream}, report::Logs, run::{Progress, Reporter}};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let logs = Logs::new(directory.path());
    /// let (run, step) = ("deploy-7".parse()?, "web/build".parse()?);
    /// let keeper = logs.keep(&run, Arc::new(ManualClock::default()));
    /// let line = Line { stream: Stream::Out, bytes: b"12 files".to_vec(), cut: false };
    /// keeper.report(&Progress::Line { step: &step, line: &line });
    /// assert_eq!(logs.read(&run, &step)?.lines[0].line, line);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep(&self, run: &RunId, clock: Arc<dyn Clock>) -> KeepingReporter {
        let state = Mutex::new(Keeping { steps: BTreeMap::new(), writes: 0 });
        KeepingReporter { directory: self.of(run), clock, state }
    }

    /// The steps of `run` of which something is kept, by name.
    ///
    /// # Errors
    /// If the directory can't be read. A run without logs has none.
    pub fn steps(&self, run: &RunId) -> Result<Vec<StepId>, LogError> {
        let directory = self.of(run);
        let failed = |source: io::Error| failed_at(run, &directory, source);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let step =
                name.to_str().and_then(|name| name.strip_suffix(".log")).map(|name| name.replace('+', "/"));
            // A file that somebody else put there is no step's.
            steps.extend(step.and_then(|step| StepId::new(step).ok()));
        }
        steps.sort();
        Ok(steps)
    }

    /// What is kept of `step` in `run`; nothing, if it printed nothing. A line that was cut by a crash is left out.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn read(&self, run: &RunId, step: &StepId) -> Result<StepLog, LogError> {
        let directory = self.of(run);
        let mut log = StepLog::default();
        for part in Part::ALL {
            let path = directory.join(part.file(step));
            match fs::read(&path) {
                Ok(bytes) => log.lines.extend(parse(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed_at(run, &path, error)),
            }
        }
        // The two files that take turns may be swapped between reading them: the numbers tell.
        log.lines.sort_by_key(|line| line.number);
        log.lines.dedup_by_key(|line| line.number);
        let last = log.lines.last().map_or(0, |line| line.number);
        log.left_out = last.saturating_sub(u64::try_from(log.lines.len()).unwrap_or(u64::MAX));
        Ok(log)
    }

    fn of(&self, run: &RunId) -> PathBuf {
        self.directory.join(run.as_str())
    }
}

fn failed_at(run: &RunId, path: &Path, source: io::Error) -> LogError {
    LogError { run: run.clone(), path: path.to_owned(), source: source.into() }
}

/// Which of a step's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Older,
    Newer,
}

impl Part {
    const ALL: [Self; 3] = [Self::Head, Self::Older, Self::Newer];

    /// A step's id has no `+`, so no two steps share a file.
    fn file(self, step: &StepId) -> String {
        let name = step.as_str().replace('/', "+");
        match self {
            Self::Head => format!("{name}.log"),
            Self::Older => format!("{name}.older"),
            Self::Newer => format!("{name}.newer"),
        }
    }
}

/// `NUMBER MICROSECONDS ATTEMPT STREAM BYTES`, the stream `o` or `e`, in capitals if the next line continues it.
fn parse(bytes: &[u8]) -> impl Iterator<Item = KeptLine> + '_ {
    bytes[..whole(bytes)].split(|byte| *byte == b'\n').filter_map(|line| {
        let mut words = line.splitn(5, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<i64>().ok();
        let (count, micros, attempt) = (number()?, number()?, number()?);
        let (stream, cut) = match words.next()? {
            b"o" => (Stream::Out, false),
            b"O" => (Stream::Out, true),
            b"e" => (Stream::Err, false),
            b"E" => (Stream::Err, true),
            _ => return None,
        };
        Some(KeptLine {
            number: u64::try_from(count).ok()?,
            time: Timestamp::from_microsecond(micros).ok()?,
            attempt: u32::try_from(attempt).ok()?,
            line: Line { stream, bytes: words.next()?.to_vec(), cut },
        })
    })
}

/// How many of `bytes` are whole lines.
fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Keeps the lines of one run: see [`Logs::keep`].
pub struct KeepingReporter {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<Keeping>,
}

struct Keeping {
    steps: BTreeMap<StepId, Written>,
    writes: u64,
}

/// How far a step's files are written.
#[derive(Default)]
struct Written {
    attempt: u32,
    lines: u64,
    open: Option<(Part, File, u64)>,
    last: u64,
}

impl fmt::Debug for KeepingReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepingReporter").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Reporter for KeepingReporter {
    fn report(&self, progress: &Progress<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Started { step, attempt } => {
                state.steps.entry((*step).clone()).or_default().attempt = *attempt;
            }
            Progress::Line { step, line } => {
                // A log that can't be written must not stop a deployment.
                state.write(&self.directory, step, line, self.clock.now()).ok();
            }
            Progress::Finished { step, .. } | Progress::Failed { step, .. } | Progress::Undone { step } => {
                if let Some(written) = state.steps.get_mut(*step) {
                    written.open = None;
                }
            }
            _ => {}
        }
    }
}

impl Keeping {
    fn write(&mut self, directory: &Path, step: &StepId, line: &Line, now: Timestamp) -> io::Result<()> {
        self.writes += 1;
        if self.steps.get(step).is_none_or(|written| written.open.is_none())
            && self.steps.values().filter(|written| written.open.is_some()).count() >= OPEN
            && let Some(idle) = self.steps.values_mut().filter(|w| w.open.is_some()).min_by_key(|w| w.last)
        {
            idle.open = None;
        }
        let written = self.steps.entry(step.clone()).or_default();
        written.last = self.writes;
        if written.open.is_none() {
            written.open(directory, step)?;
        }
        let stream = match (line.stream, line.cut) {
            (Stream::Out, false) => 'o',
            (Stream::Out, true) => 'O',
            (Stream::Err, false) => 'e',
            (Stream::Err, true) => 'E',
        };
        let number = written.lines + 1;
        let mut bytes =
            format!("{number} {} {} {stream} ", now.as_microsecond(), written.attempt).into_bytes();
        // A line never holds a newline; a reporter that is fed by hand may say otherwise.
        bytes.extend(line.bytes.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        bytes.push(b'\n');
        written.turn(directory, step, bytes.len() as u64)?;
        let Some((_, file, size)) = &mut written.open else { return Ok(()) };
        file.write_all(&bytes)?;
        *size += bytes.len() as u64;
        written.lines = number;
        Ok(())
    }
}

impl Written {
    /// Goes on where the files end: those of this process, or of one that is gone.
    fn open(&mut self, directory: &Path, step: &StepId) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let (head, newer) = (directory.join(Part::Head.file(step)), directory.join(Part::Newer.file(step)));
        let (part, path) = if newer.exists() { (Part::Newer, newer) } else { (Part::Head, head) };
        let file = private().append(true).create(true).open(&path)?;
        let bytes = fs::read(&path)?;
        self.lines = self.lines.max(parse(&bytes).last().map_or(0, |line| line.number));
        // What a crash cut is no line, and must not swallow the next one.
        let whole = whole(&bytes) as u64;
        if whole < bytes.len() as u64 {
            file.set_len(whole)?;
        }
        self.open = Some((part, file, whole));
        Ok(())
    }

    /// Makes room for `more` bytes.
    fn turn(&mut self, directory: &Path, step: &StepId, more: u64) -> io::Result<()> {
        let Some((part, _, size)) = &self.open else { return Ok(()) };
        let limit = if *part == Part::Head { HEAD } else { TURN };
        if *size == 0 || size + more <= limit {
            return Ok(());
        }
        let newer = directory.join(Part::Newer.file(step));
        if *part == Part::Newer {
            fs::rename(&newer, directory.join(Part::Older.file(step)))?;
        }
        self.open = Some((Part::Newer, private().write(true).create(true).truncate(true).open(newer)?, 0));
        Ok(())
    }
}

/// Files that nobody else reads.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use flowline_core::clock::ManualClock;

    use super::*;

    fn say(keeper: &KeepingReporter, step: &StepId, text: &str) {
        let line = Line { stream: Stream::Out, bytes: text.as_bytes().to_vec(), cut: false };
        keeper.report(&Progress::Line { step, line: &line });
    }

    #[test]
    fn another_process_goes_on_after_a_line_that_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path());
        let (run, step): (RunId, StepId) = ("r".parse().unwrap(), "web/build".parse().unwrap());
        let keeper = logs.keep(&run, Arc::new(ManualClock::default()));
        keeper.report(&Progress::Started { step: &step, attempt: 2 });
        say(&keeper, &step, "one");
        drop(keeper);
        let path = directory.path().join("r/web+build.log");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"2 0 1 o cu").unwrap();
        say(&logs.keep(&run, Arc::new(ManualClock::default())), &step, "two");
        let log = logs.read(&run, &step).unwrap();
        let texts: Vec<_> =
            log.lines.iter().map(|line| (line.number, line.attempt, line.line.text())).collect();
        assert_eq!(texts, [(1, 2, "one".to_owned()), (2, 0, "two".to_owned())]);
        assert_eq!(logs.steps(&run).unwrap(), [step]);
        assert!(logs.steps(&"other".parse().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn a_step_that_never_stops_printing_keeps_its_first_and_its_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path());
        let (run, step): (RunId, StepId) = ("r".parse().unwrap(), "noisy".parse().unwrap());
        let keeper = logs.keep(&run, Arc::new(ManualClock::default()));
        for number in 1..=20_000 {
            say(&keeper, &step, &format!("line {number} of a program that tells everything that it does"));
        }
        let log = logs.read(&run, &step).unwrap();
        assert_eq!(log.lines.first().unwrap().number, 1);
        assert_eq!(log.lines.last().unwrap().number, 20_000);
        assert_eq!(log.left_out + log.lines.len() as u64, 20_000);
        let size: u64 = fs::read_dir(directory.path().join("r"))
            .unwrap()
            .map(|f| f.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size <= HEAD + 2 * TURN, "{size}");
    }

    #[test]
    fn many_steps_at_once_keep_few_files_open_and_every_line() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path());
        let run: RunId = "r".parse().unwrap();
        let keeper = logs.keep(&run, Arc::new(ManualClock::default()));
        let steps: Vec<StepId> = (0..100).map(|n| format!("s{n}").parse().unwrap()).collect();
        for round in 0..3 {
            for step in &steps {
                say(&keeper, step, &format!("round {round}"));
            }
        }
        let open = keeper.state.lock().unwrap().steps.values().filter(|w| w.open.is_some()).count();
        assert_eq!(open, OPEN);
        assert!(steps.iter().all(|step| logs.read(&run, step).unwrap().lines.len() == 3));
    }
}
