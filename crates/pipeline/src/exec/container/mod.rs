//! Commands in containers, through the Docker API on a unix socket: Docker, or Podman's service.
//!
//! The order of things: the container is made with everything that it may have, its outputs are attached, it is started, its end is
//! awaited, and it is removed, whatever happened in between. A cancel and the limit count from the beginning, also while the engine makes or
//! starts it. Its log driver is `none`: what it prints comes here and is kept nowhere else.

mod engine;
mod image;
mod made;
mod memory;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType},
    query_parameters::{
        AttachContainerOptionsBuilder, KillContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use flowline_core::{
    SignedDuration,
    clock::Clock,
    error::{BoxError, ErrorKind},
};
use futures_util::{
    FutureExt, TryStreamExt,
    future::{BoxFuture, Either, select},
    stream::BoxStream,
};
use tokio::sync::OnceCell;

pub use self::{
    engine::{Engine, EngineError},
    image::{Image, ImageError},
};
use self::{
    engine::{LIFETIME, OWNER, Owner},
    made::Container,
};
use super::{
    Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines, Stream,
    local::{before, wish},
    output::{Ending, Output, Stop},
};
use crate::cancel::Cancel;

/// Variables that engines set by themselves.
const ENGINE_VARIABLES: [&str; 5] = ["HOME", "HOSTNAME", "PATH", "TERM", "container"];
/// How much longer than its command's limit and grace a container may be there: it has to be made and removed too. In seconds.
const AROUND: i64 = 600;
/// Numbers the containers of this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Runs commands in containers of one image on this host.
///
/// What a command gets: the image, read-only; an empty `/tmp` in memory; its declared files at the same paths as on this host, inputs
/// read-only; no network unless it is declared; no capabilities, no new privileges; bounded memory and processes. What it does not get: any
/// other file of this host, a variable that was not declared, an answer to a prompt. A file that it makes in its working directory without
/// declaring it would be lost with the container, so that is an error (`Read-only file system`), unless the directory was made scratch space
/// ([`with_scratch_dir`](Self::with_scratch_dir)).
///
/// Inside, only the first process is asked to stop, as an engine signals no others; its end takes them all. A rootless engine maps users:
/// there, user 0 is the one that the engine runs as ([`with_user`](Self::with_user)). Images are never pulled: an image that is missing is
/// an error, so that nothing waits for a registry in the middle of a deployment.
///
/// The image needs `/usr/bin/env`, which drops the variables that engines add ([`with_env_program`](Self::with_env_program)); the engine
/// needs its small init program (Docker has one; Podman: catatonit), so that signals mean the same as elsewhere. Secrets are variables of
/// the container: whoever may use the engine's socket can read them while it runs.
///
/// Dropped, it is stopped and removed by a task of the runtime; if the process dies, by the next one ([`Engine::sweep`]). So that this holds
/// also for a process that the next one can't see, a container's time is always limited: a command without a limit of its own has one of a
/// day ([`with_longest`](Self::with_longest)).
#[derive(Debug, Clone)]
pub struct ContainerExecutor {
    engine: Engine,
    image: Image,
    clock: Arc<dyn Clock>,
    grace: SignedDuration,
    user: String,
    memory: u64,
    pids: u32,
    scratch: u64,
    scratch_dir: bool,
    longest: SignedDuration,
    network: String,
    env_program: String,
    variables: Arc<OnceCell<BTreeSet<String>>>,
}

impl ContainerExecutor {
    /// Runs commands in `image`: as the user and group of this process, with 512 MiB of memory, 512 processes, 64 MiB of scratch space, and
    /// 5 s between SIGTERM and SIGKILL.
    pub fn new(engine: Engine, image: Image, clock: Arc<dyn Clock>) -> Self {
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        Self {
            engine,
            image,
            clock,
            grace: SignedDuration::from_secs(5),
            user: format!("{}:{}", user.as_raw(), group.as_raw()),
            memory: 512 << 20,
            pids: 512,
            scratch: 64 << 20,
            scratch_dir: false,
            longest: SignedDuration::from_hours(24),
            network: "bridge".to_owned(),
            env_program: "/usr/bin/env".to_owned(),
            variables: Arc::default(),
        }
    }

    /// The same with this time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn with_grace(mut self, grace: SignedDuration) -> Self {
        self.grace = grace;
        self
    }

    /// The same as another user and group. Declared outputs must be writable for them.
    #[must_use]
    pub fn with_user(mut self, user: u32, group: u32) -> Self {
        self.user = format!("{user}:{group}");
        self
    }

    /// The same with this many bytes of memory; there is no swap beyond it.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// The same with at most this many processes and threads.
    #[must_use]
    pub fn with_pids(mut self, pids: u32) -> Self {
        self.pids = pids;
        self
    }

    /// The same with this many bytes for `/tmp`, and for the working directory if that is scratch space. They count as memory.
    #[must_use]
    pub fn with_scratch(mut self, bytes: u64) -> Self {
        self.scratch = bytes;
        self
    }

    /// The same with a working directory that can be written: what a command makes there without declaring it is in memory, and lost with
    /// the container. For tools that keep intermediate files beside what they read.
    #[must_use]
    pub fn with_scratch_dir(mut self) -> Self {
        self.scratch_dir = true;
        self
    }

    /// The same with this limit for commands that have none of their own.
    #[must_use]
    pub fn with_longest(mut self, limit: SignedDuration) -> Self {
        self.longest = limit;
        self
    }

    /// The same with this network of the engine for commands that declare one; by default `bridge`.
    #[must_use]
    pub fn with_network(mut self, name: impl Into<String>) -> Self {
        self.network = name.into();
        self
    }

    /// The same for an image that keeps `env` elsewhere.
    #[must_use]
    pub fn with_env_program(mut self, path: impl Into<String>) -> Self {
        self.env_program = path.into();
        self
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn docker(&self) -> &Docker {
        &self.engine.docker
    }

    fn unreachable(&self, command: &Command, source: impl Into<BoxError>) -> ExecError {
        ExecError::Unreachable {
            program: command.shown(),
            place: self.place(),
            kind: ErrorKind::Unavailable,
            source: source.into(),
        }
    }

    fn place(&self) -> String {
        format!("the container engine at {}", self.engine.socket().display())
    }

    /// The variables that a container of this image would have without being asked.
    async fn variables(&self, command: &Command) -> Result<&BTreeSet<String>, ExecError> {
        let inspect = async || {
            let image = match self.docker().inspect_image(self.image.reference()).await {
                Ok(image) => image,
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                    return Err(ExecError::NoImage {
                        program: command.shown(),
                        image: self.image.to_string(),
                    });
                }
                Err(source) => return Err(self.unreachable(command, source)),
            };
            let env = image.config.and_then(|config| config.env).unwrap_or_default();
            let names = env.iter().map(|variable| variable.split('=').next().unwrap_or_default().to_owned());
            Ok(names.chain(ENGINE_VARIABLES.map(str::to_owned)).collect())
        };
        self.variables.get_or_try_init(inspect).await
    }

    /// The container that `command` needs. `env` drops what was not declared and then becomes the command.
    fn container(
        &self,
        command: &Command,
        variables: &BTreeSet<String>,
    ) -> Result<ContainerCreateBody, ExecError> {
        if command.program.is_empty() || command.program.contains('=') || command.program.starts_with('-') {
            return Err(
                command.invalid("a program in a container may not be empty, hold `=` or begin with `-`")
            );
        }
        let declared =
            |name: &String| command.env.contains_key(name) || command.secret_env.contains_key(name);
        let mut words = Vec::new();
        for name in variables.iter().filter(|name| !declared(name)) {
            words.extend(["-u".to_owned(), name.clone()]);
        }
        words.push(command.program.clone());
        words.extend(command.args.iter().cloned());
        let secrets = command.secret_env.iter().map(|(name, value)| format!("{name}={}", value.expose()));
        let env = command.env.iter().map(|(name, value)| format!("{name}={value}")).chain(secrets).collect();
        let owner = (OWNER.to_owned(), Owner::this().to_string());
        let limit = command.limit.unwrap_or(self.longest).as_secs();
        let lifetime = limit.saturating_add(self.grace.as_secs()).saturating_add(AROUND);
        let lifetime = (LIFETIME.to_owned(), lifetime.to_string());
        let labels = command.labels.iter().map(|(name, value)| (format!("flowline.{name}"), value.clone()));
        Ok(ContainerCreateBody {
            image: Some(self.image.reference().to_owned()),
            entrypoint: Some(vec![self.env_program.clone()]),
            cmd: Some(words),
            env: Some(env),
            working_dir: Some(command.dir.to_string_lossy().into_owned()),
            user: Some(self.user.clone()),
            labels: Some(labels.chain([owner, lifetime]).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            network_disabled: Some(!command.network),
            stop_timeout: Some(0),
            host_config: Some(self.limits(command)),
            ..ContainerCreateBody::default()
        })
    }

    fn limits(&self, command: &Command) -> HostConfig {
        let whole = Path::new(".");
        let mount = |path: &PathBuf, read_only: bool| {
            let path = if path == whole { command.dir.clone() } else { command.dir.join(path) };
            let path = path.to_string_lossy().into_owned();
            Mount {
                typ: Some(MountType::BIND),
                source: Some(path.clone()),
                target: Some(path),
                read_only: Some(read_only),
                ..Mount::default()
            }
        };
        let read_only = command.reads.difference(&command.writes).map(|path| mount(path, true));
        let mounts = read_only.chain(command.writes.iter().map(|path| mount(path, false))).collect();
        let scratch = format!("rw,nosuid,nodev,size={},mode=1777", self.scratch);
        let mut empty = BTreeMap::from([("/tmp".to_owned(), scratch.clone())]);
        let mounted = command.reads.contains(whole) || command.writes.contains(whole);
        if !mounted && command.dir != Path::new("/") {
            let read_only = "ro,nosuid,nodev,size=64k,mode=0555".to_owned();
            let dir = if self.scratch_dir { scratch } else { read_only };
            empty.insert(command.dir.to_string_lossy().into_owned(), dir);
        }
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        HostConfig {
            mounts: Some(mounts),
            tmpfs: Some(empty.into_iter().collect()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            network_mode: Some(if command.network { self.network.clone() } else { "none".to_owned() }),
            memory: Some(bytes(self.memory)),
            memory_swap: Some(bytes(self.memory)),
            pids_limit: Some(i64::from(self.pids)),
            init: Some(true),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }
    }

    async fn make(&self, command: &Command) -> Result<Container, ExecError> {
        self.engine.sweep_once().await.map_err(|error| self.unreachable(command, error))?;
        let body = self.container(command, self.variables(command).await?)?;
        Container::make(&self.engine, name_of(command), body, &self.clock, self.grace)
            .await
            .map_err(|source| self.refused(command, source))
    }

    /// Attaches the outputs of a container that was made, and starts it.
    async fn start(&self, container: &mut Container, command: &Command) -> Result<Printed, ExecError> {
        let name = container.name();
        let attach = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        let attached = self.docker().attach_container(&name, Some(attach)).await;
        let printed = attached.map_err(|source| self.refused(command, source))?.output;
        container.running = true;
        self.docker().start_container(&name, None).await.map_err(|source| self.refused(command, source))?;
        Ok(printed)
    }

    /// Waits for the engine to do `work`. Once the command should stop, it has the grace to answer: then it is known what there is to stop
    /// or remove, else that is left to a task.
    async fn or_stop<T>(
        &self,
        work: impl Future<Output = T> + Send,
        stop: &mut BoxFuture<'_, Option<Stop>>,
    ) -> Raced<T> {
        match select(std::pin::pin!(work), stop).await {
            Either::Left((done, _)) => Raced::Done(done),
            Either::Right((None, work)) => Raced::Done(work.await),
            Either::Right((Some(why), work)) => {
                Raced::Stopped(why, before(work, &mut self.clock.sleep(self.grace)).await)
            }
        }
    }

    /// Why a container was not made or started.
    fn refused(&self, command: &Command, source: Error) -> ExecError {
        match source {
            Error::DockerResponseServerError { status_code, ref message } => {
                let text = message.to_lowercase();
                let kind = match status_code {
                    404 if text.contains("image") => {
                        let image = self.image.to_string();
                        return ExecError::NoImage { program: command.shown(), image };
                    }
                    400 | 404 => ErrorKind::Invalid,
                    409 => ErrorKind::Conflict,
                    _ => ErrorKind::Unavailable,
                };
                ExecError::Start { program: command.shown(), kind, source: source.into() }
            }
            source => self.unreachable(command, source),
        }
    }

    /// Waits for the end of a container and answers its exit code.
    async fn end_of(&self, id: &str) -> Result<i32, Error> {
        loop {
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let waited = self.docker().wait_container(id, Some(options)).try_collect::<Vec<_>>().await;
            let code = match waited {
                Ok(answers) => match answers.last() {
                    Some(answer) => answer.status_code,
                    None => continue,
                },
                Err(Error::DockerContainerWaitError { code, .. }) => code,
                // A request may end before a container does.
                Err(Error::RequestTimeoutError) => continue,
                Err(error) => return Err(error),
            };
            return Ok(i32::try_from(code).unwrap_or(i32::MAX));
        }
    }
}

#[async_trait]
impl Executor for ContainerExecutor {
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities {
            hermetic_files: true,
            own_files: true,
            hermetic_network: true,
            limits: true,
            ..ExecutorCapabilities::NONE
        }
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        if cancel.is_cancelled() {
            return Err(ExecError::Cancelled { program: command.shown(), killed: false });
        }
        command.prepare()?;
        if !command.dir.is_dir() {
            return Err(ExecError::NoDirectory {
                program: command.shown(),
                dir: command.shown_path(&command.dir),
            });
        }
        // What nobody can see the owner of is removed after its time, so nothing may take longer.
        let mut limited = command.clone();
        limited.limit.get_or_insert(self.longest);
        let command = &limited;
        let mut stop: BoxFuture<'_, Option<Stop>> = wish(command, cancel, &self.clock);
        let mut container = match self.or_stop(self.make(command), &mut stop).await {
            Raced::Done(made) => made?,
            Raced::Stopped(why, made) => {
                if let Some(Ok(container)) = made {
                    container.remove().await.ok();
                }
                return Err(Output::new(command, lines).stopped(command, why, false));
            }
        };
        let ran = self.walk(&mut container, command, lines, stop).await;
        let gone = container.remove().await;
        let exited = ran?;
        // It ended well, but something of it may be left: that is never passed over.
        gone.map_err(|source| ExecError::Lost { program: command.shown(), source: source.into() })?;
        Ok(exited)
    }
}

impl ContainerExecutor {
    /// Starts a container that was made, and follows it to its end.
    async fn walk(
        &self,
        container: &mut Container,
        command: &Command,
        lines: &mut dyn Lines,
        mut stop: BoxFuture<'_, Option<Stop>>,
    ) -> Result<Exited, ExecError> {
        let mut output = Output::new(command, lines);
        let id = container.name();
        let killed_before = memory::kills();
        let mut printed = match self.or_stop(self.start(container, command), &mut stop).await {
            Raced::Done(started) => started?,
            Raced::Stopped(why, Some(Ok(printed))) => {
                stop = std::future::ready(Some(why)).boxed();
                printed
            }
            Raced::Stopped(why, _) => return Err(output.stopped(command, why, false)),
        };

        let interrupted = |source: Error| ExecError::Interrupted {
            program: command.shown(),
            place: self.place(),
            source: source.into(),
        };
        let (mut asked, mut killed, mut open) = (None, false, true);
        let mut ending = self.end_of(&id).boxed();
        let code = loop {
            let event = {
                let reading =
                    async { if open { printed.try_next().await } else { std::future::pending().await } };
                match select(select(&mut ending, reading.boxed()), &mut stop).await {
                    Either::Left((Either::Left((code, _)), _)) => Event::Ended(code),
                    Either::Left((Either::Right((read, _)), _)) => Event::Read(read),
                    Either::Right((why, _)) => Event::Stop(why),
                }
            };
            match event {
                Event::Ended(code) => break code.map_err(interrupted)?,
                Event::Read(Ok(Some(read))) => take(&mut output, &read),
                Event::Read(Ok(None)) => {
                    open = false;
                    // Mostly that is its end, which engines tell whoever waits only some time later.
                    if let Some(code) = self.exited(&id).await {
                        break code;
                    }
                }
                Event::Read(Err(source)) => return Err(interrupted(source)),
                Event::Stop(Some(why)) => {
                    asked = Some(why);
                    self.signal(&id, "TERM").await;
                    let (clock, grace) = (Arc::clone(&self.clock), self.grace);
                    stop = async move {
                        clock.sleep(grace).await;
                        None
                    }
                    .boxed();
                }
                Event::Stop(None) => {
                    killed = self.exited(&id).await.is_none();
                    self.signal(&id, "KILL").await;
                    stop = std::future::pending().boxed();
                }
            }
        };
        container.running = false;
        // Everything that it printed is on its way; nobody is left who could print more.
        let mut patience = self.clock.sleep(self.grace.max(SignedDuration::from_secs(1)));
        while open {
            let Some(read) = before(printed.try_next(), &mut patience).await else { break };
            match read {
                Ok(Some(read)) => take(&mut output, &read),
                Ok(None) => open = false,
                Err(source) => {
                    return Err(ExecError::Lost { program: command.shown(), source: source.into() });
                }
            }
        }
        output.end(Stream::Out);
        output.end(Stream::Err);
        if let Some(why) = asked {
            return Err(output.stopped(command, why, killed));
        }
        if let Some(error) = self.not_started(command, code, output.last_line(), output.only_line()) {
            return Err(error);
        }
        let ending = self.ending(&id, code, killed_before).await;
        output.ended(command, ending, 0)
    }

    async fn signal(&self, id: &str, signal: &str) {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        // It fails only if the container is at its end; a lost engine is noticed by whoever waits.
        self.docker().kill_container(id, Some(options)).await.ok();
    }

    /// Its exit code, if it is known to have ended.
    async fn exited(&self, id: &str) -> Option<i32> {
        let state = self.docker().inspect_container(id, None).await.ok()?.state?;
        let ended = state.running == Some(false) && state.finished_at.is_some();
        let over =
            state.status.is_some_and(|status| matches!(status.to_string().as_str(), "exited" | "dead"));
        state.exit_code.filter(|_| ended && over).and_then(|code| i32::try_from(code).ok())
    }

    /// How a container ended by itself that began when the kernel had killed `before` times for want of memory.
    async fn ending(&self, name: &str, code: i32, before: Option<u64>) -> Ending {
        let ending = Ending::of_shell(code);
        let Ok(found) = self.docker().inspect_container(name, None).await else { return ending };
        let said = found.state.and_then(|state| state.oom_killed).unwrap_or(false);
        let seen = || {
            ending == Ending::Signal(9) && memory::killed_in(found.id.as_deref().unwrap_or_default(), before)
        };
        if code != 0 && (said || seen()) { Ending::OutOfMemory(self.memory) } else { ending }
    }

    /// What was printed tells a program that is not there from one that ends with the same code: `env` and the init programs say so. `env`
    /// then prints one line that names the program, and nothing else is printed; a command may run `env` too, but not for itself.
    fn not_started(&self, command: &Command, code: i32, last: &str, only: &str) -> Option<ExecError> {
        let looked = || match command.env.get("PATH") {
            _ if command.program.contains('/') => format!("the image `{}`", self.image),
            Some(path) => format!("PATH `{path}` of the image `{}`", self.image),
            None => format!("the default PATH of the image `{}`", self.image),
        };
        if last.contains("failed to exec pid1") || last.contains("[FATAL tini") {
            let looked = format!("the image `{}`; each command is started by it", self.image);
            return Some(ExecError::NoProgram { program: self.env_program.clone(), looked });
        }
        let names = |(open, close): (&str, &str)| only.contains(&format!("{open}{}{close}", command.shown()));
        let quoted = [("'", "'"), ("\u{2018}", "\u{2019}"), ("exec ", ":")].into_iter().any(names);
        if !only.contains("env: ") || !quoted {
            return None;
        }
        match code {
            127 => Some(ExecError::NoProgram { program: command.shown(), looked: looked() }),
            126 => Some(ExecError::Start {
                program: command.shown(),
                kind: ErrorKind::Denied,
                source: only.to_owned().into(),
            }),
            _ => None,
        }
    }
}

/// What a container prints, as it comes.
type Printed = BoxStream<'static, Result<LogOutput, Error>>;

/// What the engine did, or why it does not matter any more and what it did all the same.
enum Raced<T> {
    Done(T),
    Stopped(Stop, Option<T>),
}

enum Event {
    Ended(Result<i32, Error>),
    Read(Result<Option<LogOutput>, Error>),
    Stop(Option<Stop>),
}

fn take(output: &mut Output<'_>, read: &LogOutput) {
    match read {
        LogOutput::StdErr { message } => output.take(Stream::Err, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => output.take(Stream::Out, message),
        LogOutput::StdIn { .. } => {}
    }
}

/// A name that says whose it is: `flowline-RUN-STEP-PID-NUMBER`.
fn name_of(command: &Command) -> String {
    let mut name = "flowline".to_owned();
    for label in ["run", "step"].iter().filter_map(|label| command.labels.get(*label)) {
        let known = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        name.push('-');
        name.extend(label.chars().take(40).map(known));
    }
    let start = Owner::this().started();
    format!("{name}-{}-{start}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
