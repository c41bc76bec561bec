//! What is told while a command is at work: a live tree on a terminal, plain lines elsewhere, a CI system's language, or events.
//!
//! Reporters are called from runs and must not wait, so they only queue; [`drive`] writes what is queued while it drives the command. It
//! writes before the command goes on, so the queue holds no more than one step of it.

mod tree;

use std::{
    fmt::Debug,
    fs::File,
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flowline_core::{
    Timestamp,
    clock::{Clock, SystemClock},
    error::BoxError,
};
use flowline_pipeline::{
    ci::{CiFiles, CiKind, CiReporter},
    report::{EVENTS_VERSION, EventReporter},
    run::{EveryReporter, PlainReporter, Progress, Reporter},
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Answer, CliError, Surroundings, args::Globals, paint::Paint, session::Wish};
use tree::Tree;

/// How often a live tree is drawn anew.
const FRAME: Duration = Duration::from_millis(100);

/// Who is told what happens.
#[derive(Debug)]
pub(super) struct Telling {
    mode: Mode,
    lines: Pipe,
    queue: Mutex<Option<mpsc::UnboundedReceiver<Vec<u8>>>>,
    events: Option<PathBuf>,
    tree: Arc<Mutex<Tree>>,
    size: (usize, usize),
    paint: Paint,
    ci: Option<Arc<CiReporter<Pipe>>>,
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quiet,
    Plain,
    Live,
    Ci,
    Events,
}

/// A writer that never waits.
#[derive(Debug, Clone)]
pub(super) struct Pipe(mpsc::UnboundedSender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody listens any more: nothing to do about it.
        let _gone = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Telling {
    pub(super) fn new(globals: &Globals, around: &Surroundings) -> Self {
        let (sender, queue) = mpsc::unbounded_channel();
        let lines = Pipe(sender);
        let kind = around.ci();
        let mode = match () {
            () if globals.quiet => Mode::Quiet,
            () if globals.json => Mode::Events,
            () if kind != CiKind::None => Mode::Ci,
            () if around.err_terminal && around.env.get("TERM").is_none_or(|term| term != "dumb") => {
                Mode::Live
            }
            () => Mode::Plain,
        };
        let (mut ci, mut problem) = (None, None);
        if kind != CiKind::None {
            let files = CiFiles::open(kind, &around.env).unwrap_or_else(|error| {
                problem = Some(flowline_core::error::chain(&error));
                CiFiles::default()
            });
            ci = Some(Arc::new(CiReporter::new(
                kind,
                lines.clone(),
                files,
                Arc::new(SystemClock),
                &around.seed,
            )));
        }
        Self {
            mode,
            lines,
            queue: Mutex::new(Some(queue)),
            events: globals.events.clone(),
            tree: Arc::default(),
            size: around.size,
            paint: Paint(around.err_terminal && around.colour()),
            ci,
            problem,
        }
    }

    /// What shows a delivery's runs.
    pub(super) fn reporter(&self, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn Reporter>>, BoxError> {
        let mut reporters: Vec<Arc<dyn Reporter>> = Vec::new();
        if let Some(path) = &self.events {
            let file = events_file(path)?;
            reporters.push(Arc::new(EventReporter::new(file, Arc::clone(clock))));
        }
        match (self.mode, &self.ci) {
            (Mode::Quiet, _) => {}
            (Mode::Events, _) if self.events.is_some() => {}
            (Mode::Events, _) => {
                reporters.push(Arc::new(EventReporter::new(self.lines.clone(), Arc::clone(clock))));
            }
            (Mode::Ci, Some(ci)) => reporters.push(Arc::<CiReporter<Pipe>>::clone(ci)),
            (Mode::Live, _) => {
                let tree = Arc::clone(&self.tree);
                reporters.push(Arc::new(LiveReporter {
                    tree,
                    clock: Arc::clone(clock),
                    wake: self.lines.clone(),
                }));
            }
            (Mode::Plain | Mode::Ci, _) => reporters.push(Arc::new(PlainReporter::new(self.lines.clone()))),
        }
        Ok(if reporters.is_empty() { None } else { Some(Arc::new(EveryReporter::new(reporters))) })
    }

    pub(super) fn say(&self, text: &str) {
        if matches!(self.mode, Mode::Plain | Mode::Live | Mode::Ci) {
            let _queued = self.lines.clone().write(format!("{text}\n").as_bytes());
        }
    }

    /// One event for machines, in the shape of a run's.
    pub(super) fn event(&self, time: Timestamp, event: &str, mut fields: Value) -> Result<(), BoxError> {
        fields["format_version"] = EVENTS_VERSION.into();
        fields["time"] = time.to_string().into();
        fields["event"] = event.into();
        if let Some(path) = &self.events {
            // One write, so that whoever follows the file never reads half a line.
            let line = format!("{fields}\n");
            events_file(path)?.write_all(line.as_bytes()).map_err(|source| unwritable(path, source))?;
        } else if self.mode == Mode::Events {
            let _queued = writeln!(self.lines.clone(), "{fields}");
        }
        Ok(())
    }

    pub(super) fn ci(&self) -> Option<&Arc<CiReporter<Pipe>>> {
        self.ci.as_ref()
    }

    /// Writes what is queued.
    pub(super) fn drain(&self, err: &mut (dyn Write + Send)) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_mut() {
            while let Ok(bytes) = queue.try_recv() {
                // A terminal that is gone must not stop a deployment.
                let _gone = err.write_all(&bytes);
            }
        }
    }
}

fn events_file(path: &Path) -> Result<File, CliError> {
    File::options().append(true).create(true).open(path).map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: io::Error) -> CliError {
    CliError::File { doing: "write events to", file: path.display().to_string(), source }
}

/// Drives `work` to its end, showing what is told meanwhile, unless somebody wishes twice to stop.
pub(super) async fn drive(
    telling: &Telling,
    work: impl Future<Output = Result<Answer, BoxError>>,
    wish: &Wish,
    err: &mut (dyn Write + Send),
) -> Result<Answer, BoxError> {
    let taken = telling.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut queue) = taken else { return work.await };
    let live = telling.mode == Mode::Live;
    let mut screen = Screen { drawn: 0, frame: 0 };
    let mut work = pin!(work);
    let mut frames = tokio::time::interval(FRAME);
    let mut wished = false;
    if let Some(problem) = &telling.problem {
        let _gone = writeln!(err, "warning: {problem}");
    }
    let done = loop {
        tokio::select! {
            biased;
            Some(bytes) = queue.recv() => screen.show(telling, &bytes, err),
            () = wish.heard(2) => break Err(CliError::Interrupted.into()),
            () = wish.heard(1), if !wished => {
                wished = true;
                screen.show(telling, b"stopping; once more to leave at once, and the same call goes on later\n", err);
            }
            done = &mut work => break done,
            _ = frames.tick(), if live => screen.show(telling, b"", err),
        }
    };
    while let Ok(bytes) = queue.try_recv() {
        screen.show(telling, &bytes, err);
    }
    screen.end(telling, err);
    *telling.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
    done
}

/// The lines of a terminal that are drawn over and over.
struct Screen {
    drawn: usize,
    frame: usize,
}

impl Screen {
    /// Shows text above the tree, and the tree below it.
    fn show(&mut self, telling: &Telling, bytes: &[u8], err: &mut (dyn Write + Send)) {
        let mut frame = Vec::new();
        if self.drawn > 0 {
            frame.extend(format!("\x1b[{}A\r\x1b[J", self.drawn).into_bytes());
        }
        frame.extend_from_slice(bytes);
        self.drawn = 0;
        if telling.mode == Mode::Live {
            self.frame += 1;
            let mut tree = telling.tree.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = tree.lines(SystemClock.now(), self.frame, telling.size, telling.paint);
            for line in &lines {
                frame.extend(line.as_bytes());
                frame.push(b'\n');
            }
            // The tree of a run that ended stays where it is.
            self.drawn = if tree.settle() { 0 } else { lines.len() };
        }
        if frame.is_empty() {
            return;
        }
        // A terminal that is gone must not stop a deployment.
        let _gone = err.write_all(&frame).and_then(|()| err.flush());
    }

    /// Leaves the tree as it stands.
    fn end(&mut self, telling: &Telling, err: &mut (dyn Write + Send)) {
        if telling.mode == Mode::Live {
            self.show(telling, b"", err);
        }
    }
}

/// Keeps the tree, and wakes who draws it.
#[derive(Debug)]
struct LiveReporter {
    tree: Arc<Mutex<Tree>>,
    clock: Arc<dyn Clock>,
    wake: Pipe,
}

impl Reporter for LiveReporter {
    fn report(&self, progress: &Progress<'_>) {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).take(progress, self.clock.now());
        // Lines come by the thousand: the next frame shows the last of them.
        if !matches!(progress, Progress::Line { .. }) {
            let _gone = self.wake.0.send(Vec::new());
        }
    }
}
