//! A page is stable, whole and harmless.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use base64::Engine;
use flowline_core::{
    Timestamp,
    clock::ManualClock,
    event::Recorded,
    grant::{Authority, Grant, Grants, Pattern},
    id::{ResourceId, RunId, StreamId},
    journal::Fact,
    secret::Secret,
    store::{MemoryStore, Position, Store},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{EventReporter, KeptLine, Logs, Outcome, RunView};
use crate::{
    Cancel, Pipeline, Plan, Runner, Sealed,
    exec::{Line, Stream},
    plan::{Action, Effect, Fingerprint, Observed, Planner, Preview, StepId, Undo},
    run::{
        Cause, End, EveryReporter, How, Reporter, Why,
        record::{
            Names, RunEnded, RunStarted, StepFailed, StepFinished, StepSignalled, StepStarted, StepUndone,
            UndoBegun,
        },
    },
    step::{Context, PreviewContext, Registry, Secrets, Spec, Step, StepError},
};

/// What tries to leave its place in the page.
const HOSTILE: &str = "</script></pre><script>alert(1)</script> \"'><img src=x onerror=alert(2)> \u{1b}[31mred\u{1b}[0m \u{202e}gpj.exe \0\u{7f}";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Act {
    says: String,
    resource: Option<ResourceId>,
    undo: Undo,
    keep: bool,
}

impl Spec for Act {
    const KIND: &'static str = "test/act";
    type Input = ();
    type Output = ();
}

#[derive(Debug)]
struct Acting;

#[async_trait]
impl Step for Acting {
    type Spec = Act;

    fn effect(&self, _: &Act) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, spec: &Act) -> Undo {
        spec.undo
    }

    fn touches(&self, spec: &Act) -> Vec<ResourceId> {
        spec.resource.clone().into_iter().collect()
    }

    async fn preview(&self, spec: &Act, _: &PreviewContext) -> Result<Preview, StepError> {
        let Some(resource) = spec.resource.clone() else { return Ok(Preview::run(spec.says.clone())) };
        let (action, details) = if spec.keep {
            (Action::Keep, Vec::new())
        } else {
            (Action::Update, vec!["version: 1.0.0 -> 1.1.0".to_owned()])
        };
        let fingerprint = Fingerprint::absent();
        Ok(Preview::of(spec.says.clone(), vec![Observed { resource, action, fingerprint, details }]))
    }

    async fn run(&self, spec: &Act, (): (), context: &Context) -> Result<(), StepError> {
        let password =
            context.secret("password").map(|secret| secret.expose().to_owned()).unwrap_or_default();
        context.say(format!("{}: {password}", spec.says));
        if spec.says.contains("fail") {
            Err(StepError::failed(format!("{} with {password}", spec.says)))
        } else {
            Ok(())
        }
    }

    async fn undo(&self, spec: &Act, _: Option<()>, context: &Context) -> Result<(), StepError> {
        context.say(format!("undoing {}", spec.says));
        Ok(())
    }
}

fn act(says: &str) -> Act {
    Act { says: says.to_owned(), resource: None, undo: Undo::Compensate, keep: false }
}

fn registry() -> Arc<Registry> {
    let mut registry = Registry::new();
    registry.add(Acting).unwrap();
    Arc::new(registry)
}

fn authority() -> Authority {
    let pattern = Pattern::new("dir:*").unwrap();
    let app = "storefront".parse().unwrap();
    let grant = Grant { app, resource: pattern, because: String::new() };
    Authority::new("storefront".parse().unwrap(), &Grants { grants: vec![grant] })
}

async fn sealed(name: &str, steps: Vec<(&str, Act)>) -> Sealed<Plan> {
    let mut pipeline = Pipeline::new(name, "storefront".parse().unwrap());
    pipeline.input("commit", "4fa2b1c37d9e0a5f6b8c1d2e3f405162738495a6");
    let mut before = None;
    for (id, spec) in steps {
        let step = pipeline.step(id, spec);
        if let Some(before) = before {
            pipeline.after(&step, &before);
        }
        before = Some(step);
    }
    let planner = Planner::new(registry(), authority(), Arc::new(ManualClock::default()));
    planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
}

/// A run told by hand, so that every time in it is chosen.
struct Told {
    names: Names,
    events: Vec<Recorded>,
}

impl Told {
    fn new() -> Self {
        Self { names: Names::of(&run(), "ada").unwrap(), events: Vec::new() }
    }

    /// `fact`, so many milliseconds after the start.
    fn say<F: Fact>(&mut self, after: i64, fact: &F) {
        let time = Timestamp::from_millisecond(1_782_907_200_000 + after).unwrap();
        let number = self.events.len() as u64 + 1;
        let event = self.names.event(fact, &format!("n{number}"), None, time).unwrap();
        let stream = StreamId::new(format!("run/{}", run())).unwrap();
        self.events.push(Recorded { position: Position(number), stream, sequence: number, event });
    }

    fn started(&mut self, after: i64, step: &str, attempt: u32) {
        self.say(after, &StepStarted { step: step.parse().unwrap(), attempt });
    }

    fn finished(&mut self, after: i64, step: &str, attempt: u32, since: i64) {
        let started = Timestamp::from_millisecond(1_782_907_200_000 + since).unwrap();
        let output = if step.ends_with("build") { json!({ "digest": "sha256:ab12" }) } else { json!(null) };
        let (step, how, why) = (step.parse().unwrap(), How::Ran, Why::Due);
        self.say(after, &StepFinished { step, attempt, started, how, output, why });
    }
}

fn run() -> RunId {
    "deploy-7-4fa2b1c3-0".parse().unwrap()
}

fn line(number: u64, stream: Stream, text: &str) -> KeptLine {
    let line = Line { stream, bytes: text.as_bytes().to_vec(), cut: false };
    KeptLine { number, time: Timestamp::UNIX_EPOCH, attempt: 1, line }
}

/// A deployment that fails at its last step and is undone, with everything that a page can show.
async fn undone() -> RunView {
    let on = |name: &str| ResourceId::of("dir", name).ok();
    let steps = vec![
        ("web/build", act("build `web` from `web` at 4fa2b1c3")),
        ("api/build", act("build `api` from `api` at 4fa2b1c3")),
        ("assets", Act { keep: true, resource: on("assets"), ..act("sync the pictures") }),
        ("web/stage", Act { resource: on("production/web"), ..act("stage `web` beside what runs") }),
        ("api/stage", Act { resource: on("production/api"), ..act("stage `api` beside what runs") }),
        ("migrate", Act { undo: Undo::Irreversible, ..act("add the column `price_cents` to `products`") }),
        ("verify", act("verify at `next-production`: 3 probes and the smoke command")),
        ("switch", Act { resource: on("production"), ..act("switch `production` (deployment 7)") }),
    ];
    let plan = sealed("deploy production", steps).await;
    let mut told = Told::new();
    told.say(0, &RunStarted { plan: plan.digest(), steps: 8 });
    told.say(
        0,
        &StepFinished {
            step: "assets".parse().unwrap(),
            attempt: 0,
            started: Timestamp::UNIX_EPOCH,
            how: How::Skipped,
            output: json!(null),
            why: Why::AsItShouldBe,
        },
    );
    told.started(40, "web/build", 1);
    told.started(45, "api/build", 1);
    let error =
        "`cargo` ended with exit code 101; its last lines: error: connection reset by peer".to_owned();
    told.say(
        6_100,
        &StepFailed { step: "api/build".parse().unwrap(), attempt: 1, error, again: true, started: true },
    );
    told.finished(8_250, "web/build", 1, 40);
    told.started(8_260, "web/stage", 1);
    told.started(9_100, "api/build", 2);
    told.finished(9_800, "web/stage", 1, 8_260);
    told.finished(16_400, "api/build", 2, 9_100);
    told.started(16_410, "api/stage", 1);
    told.finished(18_900, "api/stage", 1, 16_410);
    told.started(18_910, "migrate", 1);
    told.finished(20_100, "migrate", 1, 18_910);
    told.started(20_110, "verify", 1);
    let error = "verification came out as fail: GET http://next-production-api.localhost/cool/products: status 500, 200 was expected".to_owned();
    told.say(
        22_000,
        &StepFailed {
            step: "verify".parse().unwrap(),
            attempt: 1,
            error: error.clone(),
            again: false,
            started: true,
        },
    );
    told.say(22_001, &UndoBegun { cause: Cause::Failed { step: "verify".parse().unwrap(), error } });
    for (after, step) in [
        (22_100, "verify"),
        (23_900, "api/stage"),
        (24_600, "web/stage"),
        (24_700, "api/build"),
        (24_800, "web/build"),
    ] {
        told.say(after, &StepUndone { step: step.parse().unwrap() });
    }
    told.say(24_810, &RunEnded { outcome: End::Undone });
    let mut view = RunView::of(run(), plan, &told.events).unwrap();
    for step in &mut view.steps {
        let lines: &[(Stream, &str)] = match step.planned.id().as_str() {
            "web/build" => {
                &[(Stream::Out, "found 12 files"), (Stream::Out, "built `web` 1.1.0: 73f627af6cdf")]
            }
            "api/build" => &[
                (Stream::Err, "   \u{1b}[32mCompiling\u{1b}[0m storefront v2.0.0 (/release/api)"),
                (Stream::Err, "error: connection reset by peer"),
                (Stream::Err, "   Compiling storefront v2.0.0 (/release/api)"),
                (Stream::Err, "    Finished `release` profile [optimized] target(s) in 6.92s"),
            ],
            "verify" => &[
                (Stream::Out, "pass: GET http://next-production-app.localhost/ (status 200)"),
                (Stream::Out, "fail: GET http://next-production-api.localhost/cool/products (status 500)"),
            ],
            _ => &[],
        };
        for (number, (stream, text)) in (1..).zip(lines) {
            step.log.lines.push(line(number, *stream, text));
        }
    }
    view
}

#[tokio::test]
async fn a_small_run_has_this_page() {
    let plan = sealed("deploy production", vec![("web", act("stage `web`"))]).await;
    let mut told = Told::new();
    told.say(0, &RunStarted { plan: plan.digest(), steps: 1 });
    told.started(10, "web", 1);
    told.finished(1_510, "web", 1, 10);
    told.say(1_520, &RunEnded { outcome: End::Succeeded });
    let mut view = RunView::of(run(), plan, &told.events).unwrap();
    view.steps[0].log.lines.push(line(1, Stream::Out, "12 files"));
    let page = view.to_html();
    assert_eq!(page, view.to_html(), "the same run, the same bytes");
    let (before, rest) = page.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    insta::assert_snapshot!(format!("{before}<style>…</style>{after}"), @r##"
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-WGrRpPclh0VUKXoePkM6tgkpA7xXZOQwkObwrW7ixjQ='; base-uri 'none'; form-action 'none'">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>deploy production · storefront · succeeded</title>
    <style>…</style>
    </head>
    <body>
    <main>
    <header class="head"><h1>deploy production</h1> <span class="badge good">succeeded</span>
    <dl class="facts">
    <div><dt>Application</dt><dd>storefront</dd></div>
    <div><dt>Started</dt><dd>2026-07-01 12:00:00 UTC</dd></div>
    <div><dt>Took</dt><dd>1.5 s</dd></div>
    <div><dt>By</dt><dd>ada</dd></div>
    <div><dt>Run</dt><dd>deploy-7-4fa2b1c3-0</dd></div>
    <div><dt>Plan</dt><dd>38d167080756</dd></div>
    <div><dt>Commit</dt><dd>4fa2b1c37d9e…</dd></div>
    </dl></header>
    <section><h2>When each step ran</h2>
    <div class="axis" aria-hidden="true"><span>0 ms</span><span class="fine">380 ms</span><span>760 ms</span><span class="fine">1.1 s</span><span>1.5 s</span></div>
    <div class="row"><a href="#s0" title="web">web</a><svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label="web: done"><line class="lane" x1="250" y1="0" x2="250" y2="20"/><line class="lane" x1="500" y1="0" x2="500" y2="20"/><line class="lane" x1="750" y1="0" x2="750" y2="20"/><rect class="bar good" x="6" y="3" width="987" height="14"><title>attempt 1, 1.5 s</title></rect></svg><span>1.5 s</span></div>
    <ul class="key"><li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="bar good" width="10" height="10"/></svg>done</li><li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="bar bad" width="10" height="10"/></svg>failed</li><li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="bar warn" width="10" height="10"/></svg>cut or running</li><li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="bar back" width="10" height="10"/></svg>undone later</li></ul></section>
    <section><h2>The plan, and what it changes</h2>
    <ul class="plan">
    <li><span class="sign" title="run">&gt;</span><div><code>web</code> stage <code>web</code> <span class="soft id">test/act@1, idempotent</span></div></li>
    </ul></section>
    <section><h2>Steps and their logs</h2>
    <details id="s0"><summary><span class="grow id">web</span><span class="soft">1.5 s, 1 line</span><span class="badge good">done</span></summary>
    <div class="body"><p class="soft">It ran: it was its turn.</p><pre>12 files
    </pre></div></details>
    </section>
    <footer>Run <span class="id">deploy-7-4fa2b1c3-0</span> of plan <span class="id">sha256:38d167080756d0d33d0edc04a08f0df1db36e54d32a4a36016116c7906ab17f9</span>. Rendered by flowline from the journal; times are UTC.</footer>
    </main>
    </body>
    </html>
    "##);
}

#[tokio::test]
async fn what_was_undone_and_why_stands_first() {
    let page = undone().await.to_html();
    let box_of = page.split("<section>").nth(1).unwrap();
    insta::assert_snapshot!(box_of, @r#"
    <h2>What was undone, and why</h2>
    <p class="why">Step <code>verify</code> failed: verification came out as fail: GET http://next-production-api.localhost/cool/products: status 500, 200 was expected.</p>
    <p class="soft">Undoing began at 2026-07-01 12:00:22 UTC, after 22.0 s.</p>
    <ul>
    <li><code>verify</code> was undone, after 22.1 s</li>
    <li><code>api/stage</code> was undone, after 23.9 s</li>
    <li><code>web/stage</code> was undone, after 24.6 s</li>
    <li><code>api/build</code> was undone, after 24.7 s</li>
    <li><code>web/build</code> was undone, after 24.8 s</li>
    <li class="bad-text"><code>migrate</code> cannot be undone, as the plan said</li>
    </ul></section>
    "#);
    let failed = page.split("<details").find(|details| details.contains(">verify</span>")).unwrap();
    assert!(failed.starts_with(" id=\"s6\" open>"), "what failed is open: {failed}");
    assert!(page.contains("<span class=\"grow id\">assets</span>") && page.contains("not needed"));
    assert!(!page.contains('\u{1b}'), "colours of a terminal are left out");
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let mut view = undone().await;
    view.actor = HOSTILE.to_owned();
    let step = &mut view.steps[0];
    step.log.lines.push(line(3, Stream::Out, HOSTILE));
    step.attempts[0].error = Some(HOSTILE.to_owned());
    step.skipped = Some(HOSTILE.to_owned());
    step.signals.push((view.started, json!({ HOSTILE: HOSTILE })));
    let cause = Cause::Failed { step: "verify".parse().unwrap(), error: HOSTILE.to_owned() };
    view.undoing = Some((view.started, cause));
    let hostile = Act { resource: None, ..act(HOSTILE) };
    // A name with control characters is refused when the plan is made.
    view.plan = sealed(&HOSTILE.replace(char::is_control, ""), vec![("web", hostile)]).await;
    let page = view.to_html();
    for forbidden in ["<script", "<img", "onerror=alert(2)>", "\u{1b}", "\u{202e}", "\0", "\u{7f}", "</pre><"]
    {
        let found = page.match_indices(forbidden).next();
        // The page's own `</pre>` is followed by its own markup.
        if forbidden == "</pre><" {
            assert!(!page.contains("</pre><script"), "{forbidden:?}");
        } else {
            assert_eq!(found, None, "{forbidden:?}");
        }
    }
    assert!(page.contains("&lt;/script&gt;&lt;/pre&gt;&lt;script&gt;alert(1)"));
    // Every tag that is opened is one of the page's own, and all that need it are closed.
    let tags: BTreeSet<&str> = page
        .split('<')
        .skip(1)
        .filter_map(|tag| tag.trim_start_matches(['/', '!']).split([' ', '>', '/', '\n']).next())
        .collect();
    let known = [
        "a", "body", "code", "dd", "details", "div", "dl", "doctype", "dt", "footer", "h1", "h2", "h3",
        "head", "header", "html", "li", "line", "main", "meta", "p", "pre", "rect", "section", "span",
        "style", "summary", "svg", "title", "ul",
    ];
    assert!(tags.iter().all(|tag| known.contains(tag)), "{tags:?}");
    for tag in [
        "a", "code", "dd", "details", "div", "dl", "dt", "li", "main", "p", "pre", "section", "span",
        "style", "svg", "title", "ul",
    ] {
        let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[tokio::test]
async fn a_page_loads_nothing_and_runs_nothing() {
    let page = undone().await.to_html();
    for forbidden in [
        "src=",
        "url(",
        "@import",
        "http-equiv=\"refresh\"",
        "<script",
        "<link",
        " style=\"",
        "javascript:",
        "onload",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let policy = page.split("content=\"default-src 'none'; style-src '").nth(1).unwrap();
    let digest = policy.split('\'').next().unwrap();
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let found = flowline_core::digest::Digest::of(style);
    let found = base64::engine::general_purpose::STANDARD.encode(found.as_bytes());
    assert_eq!(digest, format!("sha256-{found}"));
}

#[tokio::test]
async fn a_step_that_printed_much_shows_its_newest_lines_and_says_so() {
    let mut view = undone().await;
    for number in 3..=1_000 {
        view.steps[0].log.lines.push(line(number, Stream::Out, &format!("file {number}")));
    }
    view.steps[0].log.lines.retain(|line| !(700..=750).contains(&line.number));
    let page = view.to_html();
    assert!(page.contains("(549 earlier lines are not shown)"), "newest of what is kept");
    assert!(page.contains("(51 lines are not kept)"));
    assert!(!page.contains("file 548\n") && page.contains("file 1000\n"));
}

#[tokio::test]
async fn a_secret_reaches_neither_logs_nor_events_nor_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let (logs, run) = (Logs::new(directory.path()), run());
    let plan = sealed("deploy production", vec![("web", act("stage")), ("verify", act("fail"))]).await;
    let secrets: Secrets = [("password".parse().unwrap(), Secret::new("hunter2-hunter2"))].into();
    let events = Arc::new(EventReporter::new(Vec::new(), Arc::<ManualClock>::clone(&clock)));
    let keeper = Arc::new(logs.keep(&run, Arc::<ManualClock>::clone(&clock)));
    let reporters: [Arc<dyn Reporter>; 2] = [keeper, Arc::<EventReporter<Vec<u8>>>::clone(&events)];
    let runner = Runner::new(Arc::clone(&store), registry(), authority(), clock)
        .secrets(Arc::new(secrets))
        .reporter(Arc::new(EveryReporter::new(reporters)));
    drop(runner.run(&run, &plan, &Cancel::new()).await.unwrap());
    drop(runner);
    let view = RunView::read(&store, Some(&logs), &run).await.unwrap();
    assert_eq!(view.outcome(), Outcome::Undone);
    let step: StepId = "web".parse().unwrap();
    let kept: Vec<_> = logs.read(&run, &step).unwrap().lines.iter().map(|line| line.line.text()).collect();
    assert_eq!(kept, ["stage: ***", "undoing stage"]);
    let mut everything = view.to_html() + &format!("{view:?}");
    for file in std::fs::read_dir(directory.path().join(run.as_str())).unwrap() {
        everything.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap());
    }
    let events = String::from_utf8(Arc::into_inner(events).unwrap().into_inner()).unwrap();
    assert!(events.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{events}");
    everything.push_str(&events);
    assert!(!everything.contains("hunter2"), "{everything}");
}

#[tokio::test]
async fn what_came_from_outside_is_shown_with_its_time() {
    let plan = sealed("deploy production", vec![("approval", act("wait"))]).await;
    let mut told = Told::new();
    told.say(0, &RunStarted { plan: plan.digest(), steps: 1 });
    told.say(1_000, &StepSignalled { step: "approval".parse().unwrap(), signal: json!({ "by": "grace" }) });
    let view = RunView::of(run(), plan, &told.events).unwrap();
    assert_eq!((view.outcome(), view.steps[0].signals.len()), (Outcome::Unfinished, 1));
    assert!(view.to_html().contains("came from outside: <code>{&quot;by&quot;:&quot;grace&quot;}</code>"));
}

#[tokio::test]
async fn a_run_that_was_never_started_is_a_typed_error() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let error = RunView::read(&store, None, &run()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no run `deploy-7-4fa2b1c3-0`; `history` lists those that there are"
    );
}
