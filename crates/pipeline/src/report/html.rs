//! The page of a run: one self-contained HTML file without scripts, whose policy forbids loading anything. The same run, the same bytes.
//!
//! Every text that comes from outside goes through [`Text`]: it can't leave its place, and no control character reaches the reader.

use std::fmt::{self, Display, Write as _};

use base64::Engine;
use flowline_core::{SignedDuration, Timestamp};

use super::{
    logs::StepLog,
    style::STYLE,
    view::{Outcome, RunView, StepView},
};
use crate::{
    exec::Stream,
    plan::{Action, Observed, Undo},
    run::{How, Phase, Why, reporter::short},
};

/// How many of a step's newest lines the page shows.
const LINES: usize = 400;
/// How many bytes of logs the page shows at most, over all steps.
const BYTES: usize = 4 * 1_024 * 1_024;
/// How wide the chart is, in its own units.
const WIDE: i128 = 1_000;

impl RunView {
    /// The page.
    ///
    /// *Guarantees*: no script, no style but its own, nothing is loaded from anywhere (its own `Content-Security-Policy` says so); names,
    /// outputs and logs are text wherever they stand; the same view gives the same bytes. Of each step the newest 400 lines are shown.
    pub fn to_html(&self) -> String {
        let mut page = Page { text: String::new(), room: BYTES };
        // Writing to a String cannot fail.
        page.whole(self).ok();
        page.text
    }
}

struct Page {
    text: String,
    room: usize,
}

impl Page {
    fn whole(&mut self, view: &RunView) -> fmt::Result {
        let plan = view.plan.plan();
        let title = format!("{} · {} · {}", plan.name(), plan.app(), view.outcome().name());
        write!(
            self.text,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '{}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
            style_digest(),
            Text(&title)
        )?;
        self.head(view)?;
        self.undoing(view)?;
        self.chart(view)?;
        self.plan(view)?;
        self.steps(view)?;
        write!(
            self.text,
            "<footer>Run <span class=\"id\">{}</span> of plan <span class=\"id\">{}</span>. Rendered by flowline from the journal; times are UTC.</footer>\n\
             </main>\n</body>\n</html>\n",
            Text(&view.run),
            view.plan.digest()
        )
    }

    fn head(&mut self, view: &RunView) -> fmt::Result {
        let plan = view.plan.plan();
        let took = view.last.duration_since(view.started);
        write!(
            self.text,
            "<header class=\"head\"><h1>{}</h1> <span class=\"badge {}\">{}</span>\n<dl class=\"facts\">\n",
            Text(plan.name()),
            outcome_class(view.outcome()),
            view.outcome().name()
        )?;
        let mut fact = |name: &str, value: &dyn Display| {
            writeln!(self.text, "<div><dt>{name}</dt><dd>{}</dd></div>", Text(value))
        };
        fact("Application", plan.app())?;
        fact("Started", &moment(view.started))?;
        fact("Took", &short(took))?;
        fact("By", &view.actor)?;
        fact("Run", &view.run)?;
        fact("Plan", &view.plan.digest().short())?;
        for (name, value) in plan.inputs() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // A commit is known by its first digits.
            let value = if value.len() > 24 {
                format!("{}…", value.chars().take(12).collect::<String>())
            } else {
                value
            };
            fact(&Text(capital(name)).to_string(), &value)?;
        }
        self.text.push_str("</dl></header>\n");
        Ok(())
    }

    fn undoing(&mut self, view: &RunView) -> fmt::Result {
        let Some((at, cause)) = &view.undoing else { return Ok(()) };
        write!(
            self.text,
            "<section><h2>What was undone, and why</h2>\n<p class=\"why\">{}</p>\n<p class=\"soft\">Undoing began at {}, after {}.</p>\n<ul>\n",
            Named(&sentence(&cause.to_string())),
            moment(*at),
            short(at.duration_since(view.started)),
        )?;
        let mut undone: Vec<_> =
            view.steps.iter().filter_map(|step| Some((step.undone?, step.planned.id()))).collect();
        undone.sort();
        for (time, step) in undone {
            let after = short(time.duration_since(view.started));
            writeln!(self.text, "<li><code>{}</code> was undone, after {after}</li>", Text(step))?;
        }
        for (step, error) in view.state.undo_failures() {
            writeln!(
                self.text,
                "<li class=\"bad-text\"><code>{}</code> could not be undone: {}</li>",
                Text(&step),
                Named(&error)
            )?;
        }
        for step in view.steps.iter().filter(|step| {
            step.planned.undo == Undo::Irreversible
                && !matches!(step.phase, Phase::Waiting)
                && step.skipped.is_none()
        }) {
            writeln!(
                self.text,
                "<li class=\"bad-text\"><code>{}</code> cannot be undone, as the plan said</li>",
                Text(step.planned.id())
            )?;
        }
        self.text.push_str("</ul></section>\n");
        Ok(())
    }

    /// One row for each step: when it ran, from the run's start to its last event.
    fn chart(&mut self, view: &RunView) -> fmt::Result {
        let whole = view.last.duration_since(view.started).as_micros().max(1);
        let at =
            |time: Timestamp| (time.duration_since(view.started).as_micros() * WIDE / whole).clamp(0, WIDE);
        self.text.push_str("<section><h2>When each step ran</h2>\n<div class=\"axis\" aria-hidden=\"true\">");
        for quarter in 0..=4_i128 {
            let micros = i64::try_from(whole * quarter / 4).unwrap_or(i64::MAX);
            let class = if quarter % 2 == 1 { " class=\"fine\"" } else { "" };
            write!(self.text, "<span{class}>{}</span>", short(SignedDuration::from_micros(micros)))?;
        }
        self.text.push_str("</div>\n");
        for (index, step) in view.steps.iter().enumerate() {
            let (class, word) = standing(step);
            write!(
                self.text,
                "<div class=\"row\"><a href=\"#s{index}\" title=\"{id}\">{id}</a><svg viewBox=\"0 0 1000 20\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{id}: {word}\">",
                id = Text(step.planned.id()),
            )?;
            for quarter in 1..4 {
                let x = WIDE * quarter / 4;
                write!(self.text, "<line class=\"lane\" x1=\"{x}\" y1=\"0\" x2=\"{x}\" y2=\"20\"/>")?;
            }
            for attempt in &step.attempts {
                // An attempt without a recorded start is a mark at its end.
                let Some(start) = attempt.started.or(attempt.ended) else { continue };
                let (x, end) = (at(start), at(attempt.ended.unwrap_or(view.last)));
                let width = (end - x).max(4);
                let x = x.min(WIDE - width);
                let class = if attempt.error.is_some() {
                    "bad"
                } else if attempt.how.is_none() {
                    "warn"
                } else {
                    class
                };
                write!(
                    self.text,
                    "<rect class=\"bar {class}\" x=\"{x}\" y=\"3\" width=\"{width}\" height=\"14\"><title>attempt {}, {}</title></rect>",
                    attempt.number,
                    short(attempt.ended.unwrap_or(view.last).duration_since(start))
                )?;
            }
            if let Some(undone) = step.undone {
                let x = at(undone).clamp(2, WIDE - 2);
                write!(
                    self.text,
                    "<line class=\"undo\" x1=\"{x}\" y1=\"0\" x2=\"{x}\" y2=\"20\"><title>undone</title></line>"
                )?;
            }
            writeln!(
                self.text,
                "</svg><span>{}</span></div>",
                took(step).map_or_else(|| word.to_owned(), short)
            )?;
        }
        self.text.push_str("<ul class=\"key\">");
        for (class, word) in
            [("good", "done"), ("bad", "failed"), ("warn", "cut or running"), ("back", "undone later")]
        {
            write!(
                self.text,
                "<li><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"bar {class}\" width=\"10\" height=\"10\"/></svg>{word}</li>"
            )?;
        }
        self.text.push_str("</ul></section>\n");
        Ok(())
    }

    fn plan(&mut self, view: &RunView) -> fmt::Result {
        self.text.push_str("<section><h2>The plan, and what it changes</h2>\n<ul class=\"plan\">\n");
        for node in view.plan.plan().nodes() {
            let (action, summary) = node
                .preview
                .as_ref()
                .map_or((Action::Run, "denied"), |preview| (preview.action, preview.summary.as_str()));
            let undo = match node.undo {
                Undo::Irreversible => " <span class=\"badge warn\">cannot be undone</span>",
                Undo::None | Undo::Compensate => "",
            };
            write!(
                self.text,
                "<li>{}<div><code>{}</code> {}{undo} <span class=\"soft id\">{}, {}</span>",
                Sign(action),
                Text(node.id()),
                Named(summary),
                Text(&node.node.kind),
                node.effect.name()
            )?;
            let resources = node.preview.iter().flat_map(|preview| &preview.resources);
            self.resources(resources.collect())?;
            self.text.push_str("</div></li>\n");
        }
        self.text.push_str("</ul></section>\n");
        Ok(())
    }

    fn resources(&mut self, resources: Vec<&Observed>) -> fmt::Result {
        if resources.is_empty() {
            return Ok(());
        }
        self.text.push_str("<ul class=\"diff\">");
        for observed in resources {
            write!(
                self.text,
                "<li>{} {} <code>{}</code>",
                Sign(observed.action),
                observed.action.word(),
                Text(&observed.resource)
            )?;
            if !observed.details.is_empty() {
                self.text.push_str("<ul>");
                for detail in &observed.details {
                    write!(self.text, "<li>{}</li>", Text(detail))?;
                }
                self.text.push_str("</ul>");
            }
            self.text.push_str("</li>");
        }
        self.text.push_str("</ul>");
        Ok(())
    }

    fn steps(&mut self, view: &RunView) -> fmt::Result {
        self.text.push_str("<section><h2>Steps and their logs</h2>\n");
        for (index, step) in view.steps.iter().enumerate() {
            let (class, word) = standing(step);
            let open = if class == "bad" { " open" } else { "" };
            let lines = step.log.lines.len() as u64 + step.log.left_out;
            let lines = match lines {
                0 => "no output".to_owned(),
                1 => "1 line".to_owned(),
                more => format!("{more} lines"),
            };
            let took = took(step).map(|took| format!("{}, ", short(took))).unwrap_or_default();
            write!(
                self.text,
                "<details id=\"s{index}\"{open}><summary><span class=\"grow id\">{}</span><span class=\"soft\">{took}{lines}</span><span class=\"badge {class}\">{word}</span></summary>\n<div class=\"body\">",
                Text(step.planned.id()),
            )?;
            self.step(step)?;
            self.text.push_str("</div></details>\n");
        }
        self.text.push_str("</section>\n");
        Ok(())
    }

    fn step(&mut self, step: &StepView) -> fmt::Result {
        if let Some(reason) = &step.skipped {
            write!(self.text, "<p class=\"soft\">It was not run: {}.</p>", Named(reason))?;
        }
        for attempt in &step.attempts {
            let number = attempt.number;
            match (&attempt.error, attempt.how) {
                (Some(error), _) => {
                    write!(self.text, "<p class=\"bad-text\">Attempt {number} failed: {}</p>", Named(error))?;
                }
                (None, Some(How::Probed)) => {
                    write!(
                        self.text,
                        "<p>Attempt {number} was cut; the world says that it had happened.</p>"
                    )?;
                }
                (None, Some(How::Resolved)) => {
                    write!(
                        self.text,
                        "<p>Attempt {number} was cut; a person said that it had happened.</p>"
                    )?;
                }
                (None, None) => write!(self.text, "<p>Attempt {number} has no end on record.</p>")?,
                (None, Some(_)) => {}
            }
        }
        if let Phase::Finished { why, .. } = &step.phase
            && step.skipped.is_none()
            && *why != Why::Happened
        {
            write!(self.text, "<p class=\"soft\">It ran: {}.</p>", Named(why))?;
        }
        if let Phase::UndoFailed { error, .. } = &step.phase {
            write!(self.text, "<p class=\"bad-text\">It could not be undone: {}</p>", Named(error))?;
        }
        for (time, signal) in &step.signals {
            write!(self.text, "<p>{} came from outside: <code>{}</code></p>", moment(*time), Text(signal))?;
        }
        self.log(&step.log)?;
        if let Phase::Finished { output, .. } = &step.phase
            && !output.is_null()
        {
            let output = serde_json::to_string_pretty(output).unwrap_or_default();
            write!(self.text, "<h3>Output for later steps</h3><pre>{}</pre>", Text(&output))?;
        }
        Ok(())
    }

    fn log(&mut self, log: &StepLog) -> fmt::Result {
        if log.lines.is_empty() {
            return Ok(());
        }
        let first = log.lines.len().saturating_sub(LINES);
        self.text.push_str("<pre>");
        let mut expected = log.lines.get(first).map_or(1, |line| line.number);
        if first > 0 || expected > 1 {
            let before = expected.saturating_sub(1);
            writeln!(self.text, "<span class=\"n\">({before} earlier lines are not shown)</span>")?;
        }
        for kept in &log.lines[first..] {
            if kept.number > expected {
                writeln!(
                    self.text,
                    "<span class=\"n\">({} lines are not kept)</span>",
                    kept.number - expected
                )?;
            }
            expected = kept.number + 1;
            if self.room < kept.line.bytes.len() {
                self.text
                    .push_str("<span class=\"n\">(this page holds no more; `logs` shows the rest)</span>\n");
                self.room = 0;
                break;
            }
            self.room -= kept.line.bytes.len();
            let text = without_colour(&kept.line.text());
            match kept.line.stream {
                Stream::Out => write!(self.text, "{}", Text(&text))?,
                Stream::Err => write!(self.text, "<span class=\"e\">{}</span>", Text(&text))?,
            }
            if !kept.line.cut {
                self.text.push('\n');
            }
        }
        self.text.push_str("</pre>");
        Ok(())
    }
}

/// Where a step stands: its class in the style sheet, and a word.
fn standing(step: &StepView) -> (&'static str, &'static str) {
    match &step.phase {
        _ if step.skipped.is_some() => ("", "not needed"),
        Phase::Finished { .. } => ("good", "done"),
        Phase::Failed { .. } => ("bad", "failed"),
        Phase::UndoFailed { .. } => ("bad", "not undone"),
        // What was undone because it failed is still what failed.
        Phase::Undone if step.attempts.last().is_some_and(|attempt| attempt.error.is_some()) => {
            ("bad", "failed")
        }
        Phase::Undone => ("back", "undone"),
        Phase::Started => ("warn", "started"),
        Phase::Waiting => ("", "not started"),
    }
}

fn outcome_class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "good",
        Outcome::Undone => "back",
        Outcome::UndoIncomplete => "bad",
        Outcome::Unfinished => "warn",
    }
}

/// How long its last attempt took, if that is known.
fn took(step: &StepView) -> Option<SignedDuration> {
    let attempt = step.attempts.last()?;
    Some(attempt.ended?.duration_since(attempt.started?))
}

/// `2026-07-01 12:00:00 UTC`: to the second, for people.
fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    let text = text.split(['.', 'Z']).next().unwrap_or_default().replace('T', " ");
    format!("{text} UTC")
}

fn sentence(text: &str) -> String {
    format!("{}.", capital(text).trim_end_matches('.'))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str())
}

fn style_digest() -> String {
    let digest = flowline_core::digest::Digest::of(STYLE);
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(digest.as_bytes()))
}

/// The sign of an action, coloured.
struct Sign(Action);

impl Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.0 {
            Action::Create => " add",
            Action::Delete => " del",
            Action::Update | Action::Replace => " mod",
            Action::Keep | Action::Run => "",
        };
        write!(f, "<span class=\"sign{class}\" title=\"{}\">{}</span>", self.0.word(), Text(self.0.sign()))
    }
}

/// Text from outside, safe as content and within a quoted attribute. Control characters, and those that turn the direction of writing,
/// are shown as signs, so that what is read is what is there.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.to_string().chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(letter)?,
                '\0'..='\u{1f}' => {
                    f.write_char(char::from_u32(0x2400 + letter as u32).unwrap_or('\u{fffd}'))?;
                }
                '\u{7f}'..='\u{9f}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => {
                    f.write_char('\u{fffd}')?;
                }
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Text from outside whose names in backticks are set apart; an odd backtick is one.
struct Named<T>(T);

impl<T: Display> Display for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut rest = text.as_str();
        while let Some((before, name, after)) = rest
            .split_once('`')
            .and_then(|(before, rest)| rest.split_once('`').map(|(name, after)| (before, name, after)))
        {
            write!(f, "{}<code>{}</code>", Text(before), Text(name))?;
            rest = after;
        }
        Text(rest).fmt(f)
    }
}

/// `text` without the sequences by which programs colour a terminal.
fn without_colour(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        // Parameters, then one final character; what is no such sequence is shown as it is.
        rest = match after.find(|c: char| !matches!(c, '0'..='9' | ';' | '?' | ':')) {
            Some(end) if after[end..].starts_with(|c: char| c.is_ascii_alphabetic()) => &after[end + 1..],
            _ => {
                plain.push_str("\u{1b}[");
                after
            }
        };
    }
    plain.push_str(rest);
    plain
}
