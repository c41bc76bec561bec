//! A finished command line for a deployer: `flowline::cli::run(delivery)`.
//!
//! ```no_run
//! use flowline::{cli, prelude::*};
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     cli::run(Setup::new("flowline.toml", "../grants.toml", ".flowline")).await
//! }
//! ```
//!
//! | command | what it does |
//! | --- | --- |
//! | `plan`, `graph` | what a deployment would change, and in which order; nothing happens |
//! | `apply`, `rollback` | deploys; goes back to the release before |
//! | `receive`, `propose`, `merged`, `preview`, `verify`, `promote`, `close` | the way of a change |
//! | `release` | turns a feature on for a share of the people |
//! | `status`, `history`, `timeline`, `why` | what there is, what happened, and for which reason |
//! | `logs`, `report` | what a run printed; its page in HTML |
//! | `approve`, `signal`, `resolve` | let a run go on that waits for people, for something from outside, or for what only a person can know |
//! | `serve`, `halt` | the router and supervisor of this host |
//! | `ci render`, `ci check` | the thin file that starts the deployer in CI |
//! | `init`, `schema`, `completions` | a first project, editors, shells |
//!
//! # Exit codes
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done; for `plan`: nothing to do; for `ci check`: the committed file is up to date |
//! | 1 | it failed, or the call is wrong |
//! | 2 | `plan`: there is something to do; `ci check`: the committed file differs |
//! | 3 | not now: it waits for people, for a time, or for another process; the same call goes on; for `approve`: more people must |
//! | 130 | it was interrupted; the same call goes on, or does it anew if what was done is undone |
//!
//! # For machines
//!
//! `--json` prints one object on standard output, whatever happens: `format_version`, `command`, `exit`, and `result` or `error`. While a
//! run is under way, its [events](crate::pipeline::report::EventReporter) go to standard error, or with `--events FILE` to a file; so does
//! the address at which `serve` listens, before anything is served (`serve.listening`). A plan that is denied stands in `error`, with
//! everything that is denied as a list. `schema answer` prints the JSON Schema.
//!
//! # In a CI system
//!
//! The surrounding CI is known by its variables. Progress then speaks its language: groups, annotations at file and line, outputs, and a
//! summary with the plan. Colours are for terminals alone, and never where `NO_COLOR` is set.
//!
//! # Commands of your own
//!
//! [`Cli::command`] adds one; its code gets a [`Session`] with the delivery, and answers with an [`Answer`] that is shown as text or JSON
//! like any other.

mod answer;
mod args;
mod failure;
mod names;
mod paint;
mod progress;
mod schema;
mod session;
mod surroundings;
mod verbs;

#[cfg(test)]
mod tests;

use std::{ffi::OsString, fmt, future::Future, io::Write, pin::Pin, process::ExitCode, sync::Arc};

use flowline_core::error::BoxError;
use flowline_pipeline::ci::{CiTarget, Wrapper};

pub use clap;

pub use self::{
    answer::{Answer, Exit, FORMAT_VERSION},
    failure::CliError,
    session::{Delivers, Session},
    surroundings::Surroundings,
};

/// Runs the command line of this process with what a deployer delivers: a [`Setup`](crate::Setup), a [`Delivery`](crate::Delivery), or the
/// result of opening one. The same as [`Cli::new`] with the program's name, and [`Cli::run`].
///
/// A `Setup` is opened when a command needs it, so that `--help` works anywhere, and `--topology`, `--grants`, `--state` and `--actor` may
/// override what it says.
pub async fn run(delivery: impl Into<Delivers>) -> ExitCode {
    Cli::new().run(delivery).await
}

/// A deployer's command line: the finished commands, and those of its own.
#[derive(Clone, Default)]
pub struct Cli {
    name: Option<String>,
    version: Option<String>,
    about: Option<String>,
    call: Option<Vec<String>>,
    wrapper: Option<Wrapper>,
    targets: Vec<Arc<dyn CiTarget>>,
    own: Vec<Own>,
    surroundings: Option<Surroundings>,
}

type Answered = Pin<Box<dyn Future<Output = Result<Answer, BoxError>>>>;

/// A command that the deployer adds.
#[derive(Clone)]
struct Own {
    command: clap::Command,
    code: Arc<dyn Fn(Session, clap::ArgMatches) -> Answered + Send + Sync>,
}

impl fmt::Debug for Cli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own: Vec<_> = self.own.iter().map(|own| own.command.get_name()).collect();
        f.debug_struct("Cli").field("name", &self.name).field("own", &own).finish_non_exhaustive()
    }
}

impl Cli {
    /// The finished commands, called like the program.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, called `name` in help and messages.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same, with what `--version` says of the deployer.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The same, with a line about the deployer at the top of its help.
    #[must_use]
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = Some(about.into());
        self
    }

    /// The same, with the words by which a CI system calls the deployer: `["cargo", "run", "--release", "--"]`. Its name, unless told.
    #[must_use]
    pub fn called_as<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.call = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// The same, where `ci render` renders `wrapper` instead of the usual one, which applies to the base environment on each push to the
    /// main branch.
    #[must_use]
    pub fn wrapper(mut self, wrapper: Wrapper) -> Self {
        self.wrapper = Some(wrapper);
        self
    }

    /// The same, where `ci render` and `ci check` take `target` for its system instead of the usual one: another runner, actions pinned by
    /// commit, or a server that knows less, such as Forgejo. Of two for one system the last counts.
    ///
    /// ```
    /// use flowline::{cli::Cli, pipeline::ci::GitHub};
    /// let pinned = GitHub { checkout: "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8".into(), ..GitHub::portable() };
    /// let cli = Cli::new().ci_target(pinned);
    /// # let _ = cli;
    /// ```
    #[must_use]
    pub fn ci_target(mut self, target: impl CiTarget + 'static) -> Self {
        self.targets.push(Arc::new(target));
        self
    }

    /// The same with a command of the deployer's own. One that is called like a finished command takes its place.
    ///
    /// ```
    /// use flowline::cli::{Answer, Cli, clap};
    /// let cli = Cli::new().command(
    ///     clap::Command::new("greet").about("Says hello").arg(clap::Arg::new("who").required(true)),
    ///     async |_session, matches| {
    ///         let who = matches.get_one::<String>("who").map_or("", String::as_str);
    ///         Ok(Answer::text(format!("hello, {who}\n")).with("who", who))
    ///     },
    /// );
    /// # let (mut out, mut err) = (Vec::new(), Vec::new());
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # let exit = runtime.block_on(cli.try_run(["deployer", "greet", "ada"], flowline::Setup::new("a.toml", "b.toml", "c"), &mut out, &mut err));
    /// # assert_eq!((exit, String::from_utf8(out)?.as_str()), (flowline::cli::Exit::Done, "hello, ada\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn command<C, F>(mut self, command: clap::Command, code: C) -> Self
    where
        C: Fn(Session, clap::ArgMatches) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, BoxError>> + 'static,
    {
        let code = Arc::new(move |session, matches| Box::pin(code(session, matches)) as Answered);
        self.own.push(Own { command, code });
        self
    }

    /// The same in made-up surroundings: for tests, and for programs that are not on a terminal of their own.
    #[must_use]
    pub fn surroundings(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = Some(surroundings);
        self
    }

    /// Runs the command line of this process. The first wish to stop (Ctrl-C, SIGTERM) ends a run orderly, undoing what it did; the second
    /// leaves at once, and the same call goes on later.
    pub async fn run(mut self, delivery: impl Into<Delivers>) -> ExitCode {
        let surroundings = self.surroundings.take().unwrap_or_else(Surroundings::of_process);
        let cli = self.surroundings(surroundings);
        let wish = session::Wish::listen();
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        let args = std::env::args_os().collect();
        Box::pin(cli.answer(args, delivery.into(), wish, &mut out, &mut err)).await.into()
    }

    /// Runs `args`, whose first is the program's name, and writes to `out` and `err` instead of the process' own. Without
    /// [`surroundings`](Self::surroundings) there is no terminal, no CI and no environment.
    pub async fn try_run<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
        delivery: impl Into<Delivers>,
        out: &mut (dyn Write + Send),
        err: &mut (dyn Write + Send),
    ) -> Exit {
        let args = args.into_iter().map(Into::into).collect();
        Box::pin(self.answer(args, delivery.into(), session::Wish::never(), out, err)).await
    }

    async fn answer(
        &self,
        args: Vec<OsString>,
        delivers: Delivers,
        wish: session::Wish,
        out: &mut (dyn Write + Send),
        err: &mut (dyn Write + Send),
    ) -> Exit {
        let surroundings = self.surroundings.clone().unwrap_or_else(Surroundings::none);
        let parsed = args::parse(self, &args, surroundings.out_terminal && surroundings.colour());
        let call = match parsed {
            Ok(call) => call,
            Err(refused) => return refused.show(out, err),
        };
        let session = Session::new(&call, delivers, surroundings, wish.cancel());
        let work = verbs::run(self, session.clone(), call.verb);
        let done = progress::drive(session.telling(), work, &wish, err).await;
        session.finish(done, out, err)
    }
}
