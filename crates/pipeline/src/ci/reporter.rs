//! A run shown in a CI system: a group for each step, annotations for failures, masks, outputs and a summary.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowline_core::{clock::Clock, digest::Digest, secret::Secret};

use super::{
    facts::CiKind,
    files::{CiError, CiFiles},
    findings::Findings,
    kept::Kept,
    speech::{self, Annotation, Level},
    text::Variable,
};
use crate::{
    exec::Masker,
    plan::StepId,
    run::{PlainReporter, Progress, Reporter},
};

/// How many annotations of a level GitHub shows for a step; what comes after is a plain line.
const ANNOTATIONS: usize = 10;
/// How much of a summary GitHub takes.
const SUMMARY: usize = 1_024 * 1_024;
/// What stands at the end of a summary that was cut.
const CUT: &str = "\n\n(cut here: a summary holds 1 MiB)\n";
/// Shorter secrets are words that occur anywhere.
const SHORTEST_MASK: usize = 4;

/// Shows runs in a CI system, in its own language; on a laptop ([`CiKind::None`]) in plain lines.
///
/// Steps run beside each other, but groups can't nest or mix: the step that began first streams into the open group, the lines of the
/// others are kept (the last 400 of each, 128 KiB at most) and shown as a group when they end. What a program prints is shown such that
/// the system can't take it for a command. When a run ends, a table of its steps goes to the summary.
///
/// *Concurrency*: one lock; a line is written whole. *Errors*: a log that can't be written doesn't stop a run; outputs and summary say so.
///
/// ```
/// use std::sync::Arc;
/// use flowline_core::{clock::ManualClock, secret::Secret};
/// use flowline_pipeline::ci::{Annotation, CiFiles, CiKind, CiReporter, Level, Variable};
///
/// let clock = Arc::new(ManualClock::default());
/// let reporter = CiReporter::new(CiKind::GitHub, Vec::new(), CiFiles::default(), clock, b"random bytes");
/// reporter.mask(&Secret::new("hunter2!"));
/// let mut note = Annotation::new(Level::Error, "unknown key");
/// (note.file, note.line) = (Some("deploy.toml".to_owned()), Some(3));
/// reporter.annotate(&note);
/// assert!(reporter.output(&Variable::new("password")?, "is hunter2!").is_err(), "never a secret in an output");
/// let log = String::from_utf8(reporter.into_inner())?;
/// assert_eq!(log, "::add-mask::hunter2!\n::error file=deploy.toml,line=3::unknown key\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CiReporter<W> {
    kind: CiKind,
    clock: Arc<dyn Clock>,
    seed: Digest,
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    log: W,
    files: CiFiles,
    masker: Masker,
    /// The step whose lines are shown at once.
    live: Option<StepId>,
    /// The name of the group that is open.
    group: Option<String>,
    groups: u64,
    kept: BTreeMap<StepId, Kept>,
    annotations: [usize; 3],
    summary_left: usize,
    summary_told: bool,
    table: Vec<(String, String)>,
    findings: Option<Findings>,
}

impl<W: Write + fmt::Debug + Send> CiReporter<W> {
    /// Writes to `log`, which is what the system reads as the job's output, and to `files`.
    ///
    /// `seed` must be random, so that nobody can guess the delimiter of an output beforehand.
    pub fn new(
        kind: CiKind,
        log: W,
        mut files: CiFiles,
        clock: Arc<dyn Clock>,
        seed: impl AsRef<[u8]>,
    ) -> Self {
        let path = files.findings.take();
        let findings = path.map(Findings::open).transpose();
        let lost = findings.is_err();
        let state = State {
            log,
            files,
            masker: Masker::default(),
            live: None,
            group: None,
            groups: 0,
            kept: BTreeMap::new(),
            annotations: [0; 3],
            summary_left: SUMMARY,
            summary_told: false,
            table: Vec::new(),
            findings: findings.unwrap_or_default(),
        };
        let reporter = Self { kind, clock, seed: Digest::of(seed), state: Mutex::new(state) };
        if lost {
            let warning =
                b"warning: the code-quality report cannot be written; annotations are in the log alone";
            reporter.lock().line(kind, warning).ok();
        }
        reporter
    }

    /// The system that is spoken to.
    pub fn kind(&self) -> CiKind {
        self.kind
    }

    /// Hides `secret` in everything that is written from now on, and tells the system to hide it in what other steps print. Secrets under
    /// 4 bytes are not hidden: they are words that occur anywhere, and a warning says so. Doing it again changes nothing.
    pub fn mask(&self, secret: &Secret) {
        let mut state = self.lock();
        if state.masker.knows(secret) {
            return;
        }
        let value = secret.expose();
        if value.len() < SHORTEST_MASK {
            state
                .line(self.kind, b"warning: a secret of less than 4 bytes is not hidden; choose a longer one")
                .ok();
            return;
        }
        state.masker = state.masker.with([secret]);
        let lines = value.lines().map(str::trim).filter(|line| *line != value && line.len() >= SHORTEST_MASK);
        for value in std::iter::once(value).chain(lines) {
            if let Some(command) = speech::mask(self.kind, value) {
                state.command(&command).ok();
            }
        }
    }

    /// Shows a message beside a file, or at the top of the run. After ten of a level, GitHub would drop more: they become plain lines.
    pub fn annotate(&self, annotation: &Annotation) {
        let mut state = self.lock();
        // A log that can't be written must not stop a deployment.
        self.show(&mut state, annotation).ok();
    }

    /// Gives an output to the system, for later jobs.
    ///
    /// # Errors
    /// [`CiError::HoldsSecret`] if the value holds, in any usual encoding, a secret that was masked before; [`CiError::NotOneLine`] where
    /// outputs are lines; [`CiError::Write`].
    pub fn output(&self, name: &Variable, value: &str) -> Result<(), CiError> {
        let mut state = self.lock();
        if state.masker.finds_in(value.as_bytes()) {
            return Err(CiError::HoldsSecret { output: name.clone() });
        }
        let one_line = !value.contains(['\n', '\r']) && value.trim() == value;
        let written = match (self.kind, &mut state.files.outputs) {
            (CiKind::GitHub, Some(file)) => {
                file.write_all(speech::github_output(&self.seed, name.as_str(), value).as_bytes())
            }
            (CiKind::Azure, _) => {
                let value = speech::azure(value);
                state.command(&format!("##vso[task.setvariable variable={name};isOutput=true]{value}"))
            }
            (system, Some(_)) if !one_line => {
                return Err(CiError::NotOneLine { output: name.clone(), system });
            }
            (_, Some(file)) => file.write_all(format!("{name}={value}\n").as_bytes()),
            (kind, None) => state.line(kind, format!("output {name}: {value}").as_bytes()),
        };
        written.map_err(|source| CiError::Write { what: "an output", system: self.kind, source })
    }

    /// Adds Markdown to the job's summary; without a place for one, to the log. Secrets are hidden. After 1 MiB it is cut, and says so.
    ///
    /// # Errors
    /// [`CiError::Write`].
    pub fn summary(&self, markdown: &str) -> Result<(), CiError> {
        let mut state = self.lock();
        self.add_summary(&mut state, markdown)
    }

    /// Closes what is open and hands the summary over. A run that ended did so itself.
    ///
    /// # Errors
    /// [`CiError::Write`].
    pub fn finish(&self) -> Result<(), CiError> {
        let mut state = self.lock();
        let written = self.close(&mut state).and_then(|()| self.tell_summary(&mut state));
        written.map_err(|source| CiError::Write { what: "the log", system: self.kind, source })
    }

    /// The log, with everything that was written.
    pub fn into_inner(self) -> W {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).log
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &mut State<W>, annotation: &Annotation) -> io::Result<()> {
        let masked = Annotation {
            message: state.masker.mask_text(&annotation.message),
            file: annotation.file.as_deref().map(|file| state.masker.mask_text(file)),
            ..annotation.clone()
        };
        let shown = &mut state.annotations[annotation.level as usize];
        let room = self.kind != CiKind::GitHub || *shown < ANNOTATIONS;
        *shown += 1;
        if let Some(findings) = &mut state.findings {
            findings.add(&masked)?;
        }
        match speech::annotation(self.kind, &masked).filter(|_| room) {
            Some(command) => state.command(&command),
            None => state.lines(self.kind, masked.plain().as_bytes()),
        }
    }

    /// An annotation about what the log has said already: nothing where it would be the same line again.
    fn announce(&self, state: &mut State<W>, level: Level, message: String) -> io::Result<()> {
        let annotation = Annotation::new(level, message);
        match speech::annotation(self.kind, &annotation) {
            Some(_) => self.show(state, &annotation),
            None => Ok(()),
        }
    }

    fn add_summary(&self, state: &mut State<W>, markdown: &str) -> Result<(), CiError> {
        let text = state.masker.mask_text(markdown);
        let Some(file) = &mut state.files.summary else {
            let shown = state.lines(self.kind, text.trim_end().as_bytes());
            return shown.map_err(|source| CiError::Write { what: "the summary", system: self.kind, source });
        };
        let room = state.summary_left.saturating_sub(CUT.len());
        let written = if text.len() <= room {
            state.summary_left -= text.len();
            file.write_all(text.as_bytes())
        } else if state.summary_left > 0 {
            let mut end = room;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            state.summary_left = 0;
            file.write_all(&text.as_bytes()[..end]).and_then(|()| file.write_all(CUT.as_bytes()))
        } else {
            Ok(())
        };
        let written = written.and_then(|()| file.flush());
        written.map_err(|source| CiError::Write { what: "the summary", system: self.kind, source })
    }

    fn tell_summary(&self, state: &mut State<W>) -> io::Result<()> {
        if self.kind == CiKind::Azure
            && !state.summary_told
            && let Some(path) = &state.files.summary_path
        {
            let command = format!("##vso[task.uploadsummary]{}", speech::azure(&path.display().to_string()));
            state.summary_told = true;
            state.command(&command)?;
        }
        state.log.flush()
    }

    fn take(&self, state: &mut State<W>, progress: &Progress<'_>) -> io::Result<()> {
        match progress {
            Progress::Started { step, .. } => {
                if state.live.is_none() {
                    state.live = Some((*step).clone());
                } else if state.live.as_ref() != Some(*step) {
                    state.kept.entry((*step).clone()).or_default();
                }
                Ok(())
            }
            Progress::Line { step, line } => {
                let mut bytes = state.masker.mask(&line.bytes);
                if line.cut {
                    bytes.extend_from_slice(b" \\");
                }
                // What is undone has lines without having started.
                let live = state.live.get_or_insert_with(|| (*step).clone());
                if live == *step {
                    return self.grouped(state, step, [bytes]);
                }
                state.kept.entry((*step).clone()).or_default().push(bytes);
                Ok(())
            }
            Progress::Finished { step, why, .. } => {
                state.table.push((step.to_string(), format!("finished; {why}")));
                self.ended(state, step, progress)
            }
            Progress::Skipped { step, reason } => {
                state.table.push((step.to_string(), format!("skipped, {}", state.cell(reason))));
                self.plain(state, progress)
            }
            Progress::Failed { step, error, again: None } => {
                state.table.push((step.to_string(), format!("**failed**: {}", state.cell(error))));
                self.ended(state, step, progress)?;
                self.announce(state, Level::Error, format!("step `{step}` failed: {error}"))
            }
            Progress::UndoFailed { step, error } => {
                state
                    .table
                    .push((step.to_string(), format!("**could not be undone**: {}", state.cell(error))));
                self.ended(state, step, progress)?;
                self.announce(state, Level::Error, format!("step `{step}` could not be undone: {error}"))
            }
            Progress::Undone { step } => {
                state.table.push((step.to_string(), "undone".to_owned()));
                self.ended(state, step, progress)
            }
            Progress::Waiting { step, reason } => {
                state.table.push((step.to_string(), format!("waits, {}", state.cell(reason))));
                self.ended(state, step, progress)?;
                self.announce(state, Level::Notice, format!("step `{step}` waits: {reason}"))
            }
            Progress::Ended { outcome } => {
                self.close(state)?;
                self.plain(state, progress)?;
                let mut text = format!("### run {outcome}\n\n| step | what happened |\n| --- | --- |\n");
                for (step, what) in std::mem::take(&mut state.table) {
                    text.extend(["| `", &step, "` | ", &what, " |\n"]);
                }
                if state.files.summary.is_some() {
                    self.add_summary(state, &text).ok();
                }
                self.tell_summary(state)
            }
            Progress::Failed { again: Some(_), .. } | Progress::Begun { .. } | Progress::Undoing { .. } => {
                self.plain(state, progress)
            }
        }
    }

    /// A step ended: its kept lines are shown, then what became of it.
    fn ended(&self, state: &mut State<W>, step: &StepId, progress: &Progress<'_>) -> io::Result<()> {
        if let Some(kept) = state.kept.remove(step) {
            if !kept.is_empty() {
                state.close_group(self.kind, &*self.clock)?;
                self.grouped(state, step, kept.into_lines())?;
            }
        } else if state.live.as_ref() == Some(step) {
            state.live = None;
        }
        self.plain(state, progress)?;
        // The next one that runs is shown as it goes.
        if state.live.is_none()
            && let Some((next, kept)) = state.kept.pop_first()
        {
            state.live = Some(next.clone());
            if !kept.is_empty() {
                self.grouped(state, &next, kept.into_lines())?;
            }
        }
        Ok(())
    }

    /// Lines of one step, in its group.
    fn grouped(
        &self,
        state: &mut State<W>,
        step: &StepId,
        lines: impl IntoIterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        if state.live.as_ref() != Some(step) {
            state.close_group(self.kind, &*self.clock)?;
        }
        if state.group.is_none() {
            state.groups += 1;
            let name = format!("step_{}", state.groups);
            let title = speech::group(self.kind, &name, step.as_str(), self.clock.now());
            state.group = Some(name);
            state.command(&title)?;
        }
        lines.into_iter().try_for_each(|line| state.line(self.kind, &line))?;
        if state.live.as_ref() == Some(step) { Ok(()) } else { state.close_group(self.kind, &*self.clock) }
    }

    /// Everything that is kept or open is brought to its end.
    fn close(&self, state: &mut State<W>) -> io::Result<()> {
        state.live = None;
        state.close_group(self.kind, &*self.clock)?;
        while let Some((step, kept)) = state.kept.pop_first() {
            if !kept.is_empty() {
                self.grouped(state, &step, kept.into_lines())?;
            }
        }
        Ok(())
    }

    /// What a plain log says, outside of any group.
    fn plain(&self, state: &mut State<W>, progress: &Progress<'_>) -> io::Result<()> {
        state.close_group(self.kind, &*self.clock)?;
        let plain = PlainReporter::new(Vec::new());
        plain.report(progress);
        let text = plain.into_inner();
        state.lines(self.kind, text.strip_suffix(b"\n").unwrap_or(&text))
    }
}

impl<W: Write + fmt::Debug + Send> Reporter for CiReporter<W> {
    fn report(&self, progress: &Progress<'_>) {
        let mut state = self.lock();
        // A log that can't be written must not stop a deployment.
        self.take(&mut state, progress).ok();
    }
}

impl<W: Write> State<W> {
    /// What somebody else says, as a cell of the summary's table: masked before it is escaped, as an escape may stand in a secret.
    fn cell(&self, text: &str) -> String {
        speech::cell(&self.masker.mask_text(text))
    }

    /// A command of ours, as it is.
    fn command(&mut self, command: &str) -> io::Result<()> {
        self.log.write_all(format!("{command}\n").as_bytes())
    }

    /// A line of somebody else: without secrets, and no command.
    fn line(&mut self, kind: CiKind, line: &[u8]) -> io::Result<()> {
        let masked = self.masker.mask(line);
        let mut line = speech::inert(kind, &masked).into_owned();
        line.push(b'\n');
        self.log.write_all(&line)
    }

    fn lines(&mut self, kind: CiKind, text: &[u8]) -> io::Result<()> {
        // Masked as a whole, as a secret may have several lines.
        let masked = self.masker.mask(text);
        masked.split(|byte| *byte == b'\n').try_for_each(|line| self.line(kind, line))
    }

    fn close_group(&mut self, kind: CiKind, clock: &dyn Clock) -> io::Result<()> {
        match self.group.take().and_then(|name| speech::group_end(kind, &name, clock.now())) {
            Some(end) => self.command(&end),
            None => Ok(()),
        }
    }
}
