//! A run as a tree of its steps, as a terminal shows it while it goes on. Pure: what happened, and a time, give the lines.

use flowline_core::{SignedDuration, Timestamp};
use flowline_pipeline::{plan::StepId, run::Progress};

use crate::cli::paint::{Paint, Tone};

/// The turns of the sign before a step that runs.
const TURNS: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// A run as it stands.
#[derive(Debug, Default)]
pub(super) struct Tree {
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    id: String,
    plan: String,
    steps: usize,
    done: usize,
    since: Timestamp,
    undoing: Option<String>,
    ended: Option<(String, Timestamp)>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    step: StepId,
    state: State,
    since: Timestamp,
    note: String,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Running(u32),
    Done(SignedDuration),
    Skipped,
    Failed,
    Again(SignedDuration),
    Waiting,
    Undone,
    UndoFailed,
}

impl Tree {
    pub(super) fn take(&mut self, progress: &Progress<'_>, now: Timestamp) {
        if let Progress::Begun { run, plan, steps, done } = progress {
            self.run = Some(Run {
                id: run.to_string(),
                plan: plan.short(),
                steps: *steps,
                done: *done,
                since: now,
                undoing: None,
                ended: None,
                rows: Vec::new(),
            });
            return;
        }
        let Some(run) = &mut self.run else { return };
        match progress {
            Progress::Started { step, attempt } => {
                run.set(step, State::Running(*attempt), String::new(), now);
            }
            Progress::Line { step, line } => {
                if let Some(row) = run.rows.iter_mut().find(|row| row.step == **step) {
                    row.note = without_colour(&line.text());
                }
            }
            Progress::Finished { step, took, why } => {
                run.done += 1;
                run.set(step, State::Done(*took), why.to_string(), now);
            }
            Progress::Skipped { step, reason } => run.set(step, State::Skipped, (*reason).to_owned(), now),
            Progress::Failed { step, error, again: None } => {
                run.set(step, State::Failed, (*error).to_owned(), now);
            }
            Progress::Failed { step, error, again: Some(delay) } => {
                run.set(step, State::Again(*delay), (*error).to_owned(), now);
            }
            Progress::Waiting { step, reason } => run.set(step, State::Waiting, (*reason).to_owned(), now),
            Progress::Undoing { reason } => run.undoing = Some((*reason).to_owned()),
            Progress::Undone { step } => run.set(step, State::Undone, String::new(), now),
            Progress::UndoFailed { step, error } => {
                run.set(step, State::UndoFailed, (*error).to_owned(), now);
            }
            Progress::Ended { outcome } => run.ended = Some(((*outcome).to_owned(), now)),
            _ => {}
        }
    }

    /// Forgets a run that ended, as its lines were drawn for the last time; whether there was one.
    pub(super) fn settle(&mut self) -> bool {
        let over = self.run.as_ref().is_some_and(|run| run.ended.is_some());
        if over {
            self.run = None;
        }
        over
    }

    /// The lines that show it, within `size` columns and rows.
    pub(super) fn lines(
        &self,
        now: Timestamp,
        frame: usize,
        size: (usize, usize),
        paint: Paint,
    ) -> Vec<String> {
        let Some(run) = &self.run else { return Vec::new() };
        let (columns, rows) = (size.0.max(20), size.1.max(6));
        let until = run.ended.as_ref().map_or(now, |(_, at)| *at);
        let mut head = format!("run {}", run.id);
        let (word, tone) = match (&run.ended, &run.undoing) {
            (Some((outcome, _)), None) if outcome == "succeeded" => (outcome.clone(), Tone::Good),
            (Some((outcome, _)), _) => (outcome.clone(), Tone::Bad),
            (None, Some(_)) => ("undoing".to_owned(), Tone::Warn),
            (None, None) => (format!("{} of {} steps", run.done, run.steps), Tone::Soft),
        };
        let took = short(until.duration_since(run.since));
        let facts = if columns < 70 { took } else { format!("plan {}, {took}", run.plan) };
        head = cut(&head, columns.saturating_sub(word.chars().count() + facts.chars().count() + 4));
        let mut lines =
            vec![format!("{}  {}  {}", paint.strong(head), paint.tone(tone, word), paint.soft(facts))];
        if let Some(reason) = &run.undoing {
            lines.push(format!(
                "  {}",
                paint.tone(Tone::Warn, cut(&format!("undoing: {reason}"), columns - 2))
            ));
        }
        let room = rows.saturating_sub(lines.len() + 2);
        // Where there are more steps than rows, those that are done go first.
        let mut surplus = run.rows.len().saturating_sub(room);
        let mut hidden = 0;
        let shown: Vec<&Row> = run
            .rows
            .iter()
            .filter(|row| {
                let hide = surplus > 0 && matches!(row.state, State::Done(_) | State::Skipped);
                if hide {
                    surplus -= 1;
                    hidden += 1;
                }
                !hide
            })
            .take(room)
            .collect();
        if hidden > 0 {
            lines.push(format!("  {}", paint.soft(format!("… {hidden} more that are done"))));
        }
        let mut above = "";
        for row in shown {
            let (group, name) = row.step.as_str().rsplit_once('/').unwrap_or(("", row.step.as_str()));
            if !group.is_empty() && group != above {
                lines.push(format!("  {}", paint.strong(cut(group, columns - 2))));
            }
            above = group;
            let indent = if group.is_empty() { "  " } else { "    " };
            lines.push(row.line(indent, name, until, frame, columns, paint));
        }
        lines.truncate(rows - 1);
        lines
    }
}

impl Run {
    fn set(&mut self, step: &StepId, state: State, note: String, now: Timestamp) {
        match self.rows.iter_mut().find(|row| row.step == *step) {
            Some(row) => {
                row.state = state;
                row.note = note;
                row.since = now;
            }
            None => self.rows.push(Row { step: step.clone(), state, since: now, note }),
        }
        // Steps of one group stand together, in the order in which the first of them began.
        let order: Vec<String> = self.rows.iter().map(|row| group(&row.step).to_owned()).collect();
        self.rows.sort_by_key(|row| order.iter().position(|name| name == group(&row.step)));
    }
}

fn group(step: &StepId) -> &str {
    step.as_str().rsplit_once('/').map_or(step.as_str(), |(group, _)| group)
}

impl Row {
    fn line(
        &self,
        indent: &str,
        name: &str,
        now: Timestamp,
        frame: usize,
        columns: usize,
        paint: Paint,
    ) -> String {
        let turning = TURNS[frame % TURNS.len()].to_string();
        let (sign, tone, time) = match &self.state {
            State::Running(1) => (turning.as_str(), Tone::Warn, short(now.duration_since(self.since))),
            State::Running(attempt) => (
                turning.as_str(),
                Tone::Warn,
                format!("{}, attempt {attempt}", short(now.duration_since(self.since))),
            ),
            State::Done(took) => ("✓", Tone::Good, short(*took)),
            State::Skipped => ("=", Tone::Soft, "not needed".to_owned()),
            State::Failed => ("✗", Tone::Bad, "failed".to_owned()),
            State::Again(delay) => ("↻", Tone::Warn, format!("failed, again in {}", short(*delay))),
            State::Waiting => ("…", Tone::Warn, "waits".to_owned()),
            State::Undone => ("↩", Tone::Warn, "undone".to_owned()),
            State::UndoFailed => ("✗", Tone::Bad, "could not be undone".to_owned()),
        };
        let name = cut(name, columns / 2);
        let used = indent.chars().count() + name.chars().count() + time.chars().count() + 6;
        let note = cut(&self.note, columns.saturating_sub(used));
        let mut line = format!("{indent}{} {name}  {}", paint.tone(tone, sign), paint.soft(time));
        if !note.trim().is_empty() {
            line.push_str("  ");
            line.push_str(&paint.soft(note).to_string());
        }
        line
    }
}

/// `text` without the sequences that colour a terminal.
fn without_colour(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest = rest.strip_prefix('m').unwrap_or(rest);
    }
    plain + rest
}

/// `text` on one line, without control characters, in at most `columns` columns (letters that are wider than one are counted as one).
fn cut(text: &str, columns: usize) -> String {
    let clean: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.len() <= columns {
        return clean.into_iter().collect();
    }
    let mut cut: String = clean.into_iter().take(columns.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A duration for people, to a tenth of a second.
fn short(duration: SignedDuration) -> String {
    let ms = duration.as_millis().max(0);
    match ms {
        ..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::digest::Digest;
    use flowline_pipeline::{
        exec::{Line, Stream},
        run::Why,
    };

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn told() -> Tree {
        let step = |name: &str| -> StepId { name.parse().unwrap() };
        let mut tree = Tree::default();
        let run = "deploy-7-4fa2b1c3-0".parse().unwrap();
        tree.take(&Progress::Begun { run: &run, plan: Digest::of("plan"), steps: 6, done: 0 }, at(0));
        tree.take(&Progress::Started { step: &step("web/build"), attempt: 1 }, at(0));
        tree.take(&Progress::Started { step: &step("api/build"), attempt: 1 }, at(0));
        let took = SignedDuration::from_millis(1_250);
        tree.take(&Progress::Finished { step: &step("web/build"), took, why: &Why::Due }, at(1));
        tree.take(&Progress::Started { step: &step("web/stage"), attempt: 1 }, at(1));
        let line = Line { stream: Stream::Out, bytes: b"copying\x1b[31m \xff files\r".to_vec(), cut: false };
        tree.take(&Progress::Line { step: &step("web/stage"), line: &line }, at(2));
        let again = Some(SignedDuration::from_secs(3));
        tree.take(&Progress::Failed { step: &step("api/build"), error: "exit code 1", again }, at(2));
        tree
    }

    #[test]
    fn a_run_is_shown_as_a_tree_of_its_steps() {
        let tree = told();
        insta::assert_snapshot!(tree.lines(at(4), 3, (60, 24), Paint(false)).join("\n"), @r"
        run deploy-7-4fa2b1c3-0  1 of 6 steps  4.0 s
          web
            ✓ build  1.2 s  it was its turn
            ⠸ stage  3.0 s  copying � files 
          api
            ↻ build  failed, again in 3.0 s  exit code 1
        ");
    }

    #[test]
    fn what_is_undone_says_why_and_stays_where_it_is() {
        let mut tree = told();
        let step: StepId = "web/build".parse().unwrap();
        tree.take(&Progress::Undoing { reason: "step `api/build` failed: exit code 1" }, at(5));
        tree.take(&Progress::Undone { step: &step }, at(6));
        assert!(!tree.settle());
        tree.take(&Progress::Ended { outcome: "undone" }, at(7));
        insta::assert_snapshot!(tree.lines(at(99), 3, (60, 24), Paint(false)).join("\n"), @r"
        run deploy-7-4fa2b1c3-0  undone  7.0 s
          undoing: step `api/build` failed: exit code 1
          web
            ↩ build  undone
            ⠸ stage  6.0 s  copying � files 
          api
            ↻ build  failed, again in 3.0 s  exit code 1
        ");
        assert!(tree.settle());
        assert!(tree.lines(at(99), 3, (60, 24), Paint(false)).is_empty());
    }

    #[test]
    fn a_small_terminal_shows_what_still_runs() {
        let mut tree = told();
        for number in 0..50 {
            let step: StepId = format!("host-{number}").parse().unwrap();
            tree.take(&Progress::Started { step: &step, attempt: 1 }, at(3));
            let took = SignedDuration::from_secs(1);
            if number != 7 {
                tree.take(&Progress::Finished { step: &step, took, why: &Why::Due }, at(4));
            }
        }
        let lines = tree.lines(at(4), 0, (40, 10), Paint(false));
        assert!(lines.len() <= 10, "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("host-7 ")), "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
    }
}
