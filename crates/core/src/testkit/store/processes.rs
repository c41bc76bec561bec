//! What holds over several processes and over the sudden death of one: checked with real children that are really killed.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use serde_json::json;

use super::{
    super::{Outcome, Report, SEED, Seeded, Why, block_on, fail, same, within_patience},
    cases::{event, key, stream},
};
use crate::store::{Batch, Durability, EventQuery, Position, Store, StoreExt};

pub(super) const KILLED: &str = "what was committed survives SIGKILL, whole, and what was not is absent";
pub(super) const TOGETHER: &str = "several processes write at once and nothing is lost or repeated";
pub(super) const HEARD: &str = "whoever waits for a change hears of another process's";

/// Tells a child what to do: the folder, its number, how many commits (0: until it is killed).
const ORDER: &str = "FLOWLINE_TESTKIT_STORE";
const ACKNOWLEDGED: &str = "flowline-acknowledged ";

/// Checks what the contract promises over several processes, as far as the store's capabilities claim it, in new folders below `base`.
///
/// `open` opens the store in a folder; `again` makes a command that starts this test program so that it comes to [`child`] with the same
/// `open`:
///
/// ```no_run
/// # use std::{path::Path, process::Command};
/// # use flowline_core::{store::SqliteStore, testkit};
/// # let folder = Path::new("");
/// let open = |folder: &Path| SqliteStore::open(folder).expect("a store");
/// let again = || {
///     let mut command = Command::new(std::env::current_exe().expect("this test"));
///     command.args(["the_child", "--exact", "--nocapture"]);
///     command
/// };
/// testkit::store::check_processes("sqlite", folder, open, again).assert();
/// // and in the test `the_child`: testkit::store::child(open);
/// ```
pub fn check_processes<S: Store + 'static>(
    backend: &str,
    base: &Path,
    open: impl Fn(&Path) -> S,
    again: impl Fn() -> Command,
) -> Report {
    check_processes_seeded(backend, SEED, base, open, again)
}

/// The same with the seed that a failure named, or one of your own.
pub fn check_processes_seeded<S: Store + 'static>(
    backend: &str,
    seed: u64,
    base: &Path,
    open: impl Fn(&Path) -> S,
    again: impl Fn() -> Command,
) -> Report {
    let mut report = Report::new("store", backend);
    let suite = Suite { open: &open, again: &again };
    let capabilities = open(&base.join("capabilities")).capabilities();
    if capabilities.survives_restart {
        report.note(KILLED, seed, block_on(suite.killed(&base.join("killed"), Seeded::new(seed))));
    } else {
        report.skipped.push(KILLED);
    }
    if capabilities.several_processes {
        report.note(TOGETHER, seed, block_on(suite.together(&base.join("together"))));
        report.note(HEARD, seed, suite.heard(&base.join("heard")));
    } else {
        report.skipped.extend([TOGETHER, HEARD]);
    }
    report
}

/// Does a child's part, if this process is one that the suite started; nothing otherwise.
///
/// # Panics
/// If the store refuses what it must do: the suite reports that.
#[expect(clippy::disallowed_methods, reason = "the environment is how the parent talks to its child")]
pub fn child<S: Store>(open: impl Fn(&Path) -> S) {
    let Ok(order) = std::env::var(ORDER) else { return };
    let outcome = block_on(work(&order, open));
    assert!(outcome.is_ok(), "{outcome:?}");
}

async fn work<S: Store>(order: &str, open: impl Fn(&Path) -> S) -> Outcome {
    let parts: Vec<&str> = order.splitn(3, ' ').collect();
    let [number, count, folder] = parts[..] else { return fail(format!("not an order: {order}")) };
    let count: u64 = count.parse()?;
    let store = open(Path::new(folder));
    let document = key(&format!("child/{number}"))?;
    let found = store.read(&document).await?;
    let mut n = found.and_then(|found| found.value.as_u64()).unwrap_or(0);
    let end = if count == 0 { u64::MAX } else { n + count };
    while n < end {
        n += 1;
        // The events first, so that a torn batch shows.
        let batch = Batch::new()
            .append(stream(&format!("child/{number}"))?, event(&format!("{number}/{n}/a"))?)
            .append(stream("children")?, event(&format!("{number}/{n}/b"))?)
            .put(document.clone(), json!(n))
            .durably(if n % 4 == 0 { Durability::Synced } else { Durability::Written });
        store.commit(batch).await?;
        // Not `println!`, which a test harness keeps back.
        let mut out = io::stdout();
        out.write_all(format!("{ACKNOWLEDGED}{n}\n").as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

struct Suite<'a, S> {
    open: &'a dyn Fn(&Path) -> S,
    again: &'a dyn Fn() -> Command,
}

impl<S: Store + 'static> Suite<'_, S> {
    fn start(&self, number: u64, count: u64, folder: &Path) -> Result<Started, Why> {
        let mut command = (self.again)();
        command.env(ORDER, format!("{number} {count} {}", folder.display()));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let Some(out) = child.stdout.take() else { return Err(Why("a child without output".to_owned())) };
        Ok(Started { child, out: Some(BufReader::new(out)) })
    }

    async fn killed(&self, folder: &Path, mut seeded: Seeded) -> Outcome {
        let mut before = 0;
        for _ in 0..6 {
            let mut started = self.start(1, 0, folder)?;
            let wanted = before + 1 + seeded.below(40);
            let acknowledged = started.acknowledged(wanted)?;
            started.kill()?;
            let store = (self.open)(folder);
            let count = store.read(&key("child/1")?).await?.and_then(|it| it.value.as_u64()).unwrap_or(0);
            if count < acknowledged {
                return fail(format!(
                    "commit {acknowledged} was acknowledged before the kill, {count} survived"
                ));
            }
            let events = store.events(EventQuery::default()).await?;
            same("events beside a document that counts them", &(events.len() as u64), &(count * 2))?;
            for (position, recorded) in (1..).zip(&events) {
                same("position", &recorded.position, &Position(position))?;
            }
            before = count;
        }
        Ok(())
    }

    async fn together(&self, folder: &Path) -> Outcome {
        const CHILDREN: u64 = 3;
        const EACH: u64 = 40;
        let store: Arc<dyn Store> = Arc::new((self.open)(folder));
        let mut children = Vec::new();
        for number in 1..=CHILDREN {
            children.push(self.start(number, EACH, folder)?);
        }
        let last = CHILDREN * EACH * 2;
        let following = Arc::clone(&store);
        within_patience("following the children to the end", move || {
            block_on(async move {
                let mut subscription = following.subscribe(Position::START);
                let mut next = 1;
                while next <= last {
                    for recorded in subscription.next().await? {
                        same("the next position", &recorded.position, &Position(next))?;
                        next += 1;
                    }
                }
                Outcome::Ok(())
            })
        })??;
        for mut child in children {
            child.end()?;
        }
        for number in 1..=CHILDREN {
            let own = stream(&format!("child/{number}"))?;
            let events = store.events(EventQuery::of(own)).await?;
            let ids: Vec<_> = events.iter().map(|recorded| recorded.event.id.to_string()).collect();
            let expected: Vec<_> = (1..=EACH).map(|n| format!("{number}/{n}/a")).collect();
            same("a child's events", &ids, &expected)?;
        }
        Ok(())
    }

    fn heard(&self, folder: &Path) -> Outcome {
        let store: Arc<dyn Store> = Arc::new((self.open)(folder));
        let waiting = Arc::clone(&store);
        let (answer, answers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            answer.send(within_patience("waiting for a child's commit", move || {
                block_on(waiting.changed(Position::START))
            }))
        });
        let mut child = self.start(1, 1, folder)?;
        let heard = answers.recv()???;
        child.end()?;
        same("the change", &heard, &Position(2))
    }
}

/// A running child.
struct Started {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Started {
    /// Reads until the child has acknowledged `wanted`.
    fn acknowledged(&mut self, wanted: u64) -> Result<u64, Why> {
        let Some(out) = self.out.take() else { return Err(Why("the output was read before".to_owned())) };
        let (out, last) = within_patience("a child's commits", move || read_to(out, wanted))??;
        self.out = Some(out);
        Ok(last)
    }

    fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn end(&mut self) -> Outcome {
        // Its output must go somewhere, or it waits for ever.
        if let Some(mut out) = self.out.take() {
            io::copy(&mut out, &mut io::sink())?;
        }
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { fail(format!("a child failed: {status}")) }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn read_to(mut out: BufReader<ChildStdout>, wanted: u64) -> Result<(BufReader<ChildStdout>, u64), Why> {
    let mut line = String::new();
    loop {
        line.clear();
        if out.read_line(&mut line)? == 0 {
            return Err(Why("a child ended early".to_owned()));
        }
        // A harness may have written the start of the line.
        if let Some((_, number)) = line.split_once(ACKNOWLEDGED) {
            let number = number.trim().parse()?;
            if number >= wanted {
                return Ok((out, number));
            }
        }
    }
}
