//! What may be written on the command line, and what its help says.

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use flowline_core::SignedDuration;

use super::{Cli, failure::Refused};

const EXITS: &str = "Exit codes:
    0  done, or nothing to do
    1  it failed, or the call is wrong
    2  plan: there is something to do; ci check: the file differs
    3  not now: waits for people, a time or another process; the same call goes on
  130  interrupted; the same call goes on

COMMAND --help shows examples.";

/// Gets changes from a pull request to the people who use them.
#[derive(Debug, Parser)]
#[command(after_help = EXITS, subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(super) struct Root {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// What every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub(super) struct Globals {
    /// Print one JSON object on standard output; events of runs go to standard error, one a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Write the events of runs to FILE, one JSON object a line
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    /// Read the topology from FILE
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) topology: Option<PathBuf>,
    /// Read the owner's grants from FILE
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) grants: Option<PathBuf>,
    /// Keep state in DIR
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Who does it: named in the journal
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) actor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say what a deployment would change, and what it may not touch; nothing happens
    #[command(after_help = "Examples:
  plan production                   what the newest commit of the main branch would change
  plan production --revision v1.2   the same for a tag, a branch or a commit
  plan production --out plan.json   keep the sealed plan, for `apply --plan`
  plan production --markdown        a comment for a pull request

Ends with 0 if there is nothing to do, 2 if there is, 1 if it is denied or fails.")]
    Plan {
        /// The environment; may be left out if there is only one
        environment: Option<String>,
        /// What to deploy: a commit, a branch or a tag [default: what CI checked out, or the main branch]
        #[arg(long, short, value_name = "REV")]
        revision: Option<String>,
        /// Keep the sealed plan in FILE
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write Markdown
        #[arg(long)]
        markdown: bool,
        /// As if nothing had been built before
        #[arg(long)]
        no_cache: bool,
    },
    /// Deploy: build, stage and verify beside what runs, then switch
    #[command(after_help = "Examples:
  apply production                    the newest commit of the main branch
  apply production --plan plan.json   exactly the plan that was looked at, or nothing
  apply production --no-cache         build anew what was built before

Safe to repeat: a deployment that was cut goes on, one that is done changes nothing.")]
    Apply {
        /// The environment; may be left out if there is only one
        environment: Option<String>,
        /// What to deploy: a commit, a branch or a tag [default: what CI checked out, or the main branch]
        #[arg(long, short, value_name = "REV", conflicts_with = "plan")]
        revision: Option<String>,
        /// Deploy the sealed plan in FILE, if it is still exactly what would be done
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Build anew what was built before, and compute every pure step anew; what runs already is left alone
        #[arg(long)]
        no_cache: bool,
        /// Go on with a run whose functions were sealed by another build of this program
        #[arg(long)]
        allow_other_build: bool,
    },
    /// Show what runs where, and what waits
    #[command(after_help = "Examples:
  status              everything
  status production   one environment")]
    Status {
        /// Only this environment
        environment: Option<String>,
    },
    /// Show the deployments of an environment, the newest first, with the run of each
    #[command(after_help = "Examples:
  history                 of every environment
  history production -n 5")]
    History {
        /// Only this environment
        environment: Option<String>,
        /// At most so many
        #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
        limit: usize,
    },
    /// Show what the steps of a run printed
    #[command(after_help = "Examples:
  logs production           of its newest run
  logs production/7         of the run that made deployment 7
  logs deploy-7-4fa2b1c3-0  of this run; any beginning that fits only one will do
  logs production web/build only this step

Secrets are masked. Of each step at most 512 KiB are kept: its first lines and its newest.")]
    Logs {
        /// The run, its beginning, an environment (its newest run), or ENVIRONMENT/N (its deployment N)
        run: String,
        /// Only this step
        step: Option<String>,
        /// With the time of each line
        #[arg(long)]
        times: bool,
    },
    /// Write a run's page in HTML: one self-contained file
    #[command(after_help = "Examples:
  report production > run.html
  report production --out run.html")]
    Report {
        /// The run, its beginning, an environment (its newest run), or ENVIRONMENT/N (its deployment N)
        run: String,
        /// Write to FILE instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Agree with the plan of a run that waits for approval
    #[command(after_help = "Examples:
  approve production                       the deployment that waits there
  approve deploy-7-4fa2b1c3-0 --by grace   in somebody's name, until 8 hours from now

The approval names the digest of the exact plan. The deployment goes on with the next `apply`.

Ends with 0 if nothing is missing, 3 if more people must approve, 1 if this person is not asked.")]
    Approve {
        /// The run, its beginning, an environment (its newest run), or ENVIRONMENT/N (its deployment N)
        run: String,
        /// Only this gate
        #[arg(long)]
        step: Option<String>,
        /// Who agrees [default: who calls]
        #[arg(long, value_name = "PERSON")]
        by: Option<String>,
        /// How long it counts
        #[arg(long = "for", default_value = "8h", value_name = "TIME", value_parser = duration)]
        valid: SignedDuration,
    },
    /// Say what became of a step that was cut, where nobody but a person can know
    #[command(after_help = "Examples:
  resolve production web/migrate --did-not     it did not happen: it runs again
  resolve deploy-7-4fa2b1c3-0 web/migrate --happened --output '{\"rows\": 7}'

`status` and `why RUN` name the steps. The deployment goes on with the next `apply`.")]
    #[command(group = clap::ArgGroup::new("became").required(true))]
    Resolve {
        /// The run, its beginning, an environment (its newest run), or ENVIRONMENT/N (its deployment N)
        run: String,
        /// The step
        step: String,
        /// It took effect
        #[arg(long, group = "became")]
        happened: bool,
        /// It did not; it runs again
        #[arg(long, group = "became")]
        did_not: bool,
        /// What it gave, for the steps that take it [default: null]
        #[arg(long, value_name = "JSON", conflicts_with = "did_not", value_parser = json, allow_negative_numbers = true)]
        output: Option<serde_json::Value>,
    },
    /// Tell a run that waits something from outside
    #[command(after_help = "Examples:
  signal production                            whatever waits for a signal there
  signal nightly-3 '{\"passed\": true}'          with a value
  signal nightly-3 --step load-test --id 4711  heard once, however often it is called

The run goes on when whoever started it calls again.")]
    Signal {
        /// The run, its beginning, an environment (its newest run), or ENVIRONMENT/N (its deployment N)
        run: String,
        /// What it is told: JSON [default: null]
        #[arg(value_parser = json, allow_negative_numbers = true)]
        value: Option<serde_json::Value>,
        /// Only this step
        #[arg(long)]
        step: Option<String>,
        /// What the signal is recognised by, so that a repetition is not heard [default: its value]
        #[arg(long, value_name = "NAME")]
        id: Option<String>,
    },
    /// Bring back the release before, without CI
    #[command(after_help = "Examples:
  rollback production            one release back; each call goes one further
  rollback production --from 7   only if deployment 7 is what runs: safe to repeat")]
    Rollback {
        /// The environment; may be left out if there is only one
        environment: Option<String>,
        /// Only if this deployment is what runs
        #[arg(long, value_name = "N")]
        from: Option<u64>,
    },
    /// Show everything that was recorded about something, with the reasons
    #[command(after_help = "Examples:
  why production
  why pr-123
  why deploy-7-4fa2b1c3-0
  why exposure/production/new-checkout   any stream of the journal")]
    Why {
        /// A change, an environment, a run, or a stream's name
        subject: String,
    },
    /// Draw the steps of a deployment, and what waits for what
    #[command(after_help = "Examples:
  graph production                     of what would be deployed
  graph production --format mermaid    for Markdown
  graph deploy-7-4fa2b1c3-0 --format dot | dot -Tsvg > graph.svg")]
    Graph {
        /// An environment, or a run
        what: Option<String>,
        /// How it is drawn
        #[arg(long, short, value_enum, default_value_t = GraphFormat::Text)]
        format: GraphFormat,
        /// What would be deployed [default: what CI checked out, or the main branch]
        #[arg(long, short, value_name = "REV")]
        revision: Option<String>,
    },
    /// The thin file that starts the deployer in a CI system
    #[command(subcommand)]
    Ci(CiVerb),
    /// Print the JSON Schema of a file, for editors
    #[command(after_help = "Examples:
  schema                         which there are
  schema topology > flowline.schema.json
  schema plan     of what `plan --out` writes")]
    Schema {
        /// Which
        name: Option<String>,
    },
    /// Print what a shell needs to complete this command line
    #[command(after_help = "Examples:
  completions bash > ~/.local/share/bash-completion/completions/deployer
  completions zsh > ~/.zfunc/_deployer
  completions fish > ~/.config/fish/completions/deployer.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Give a change an environment of its own, or move it on after a push
    #[command(after_help = "Examples:
  preview pr-123")]
    Preview {
        /// The change, which `receive` told of
        change: String,
    },
    /// Take in GitHub's `pull_request` webhook: a change opens, moves on, merges or closes
    #[command(after_help = "Examples:
  receive payload.json
  receive - < payload.json
  receive \"$GITHUB_EVENT_PATH\"")]
    Receive {
        /// The payload; `-` for standard input
        file: PathBuf,
    },
    /// Say that there is a change, where no forge tells of it
    #[command(after_help = "Examples:
  propose 123 faster-checkout --title 'Checkout in one step'   called pr-123 from then on

Call it again after a commit; the change moves on.")]
    Propose {
        /// Its number
        number: u64,
        /// Its branch
        branch: String,
        /// One line that says what it does
        #[arg(long, default_value = "")]
        title: String,
    },
    /// Say that a change was merged, where no forge tells of it
    #[command(after_help = "Examples:
  merged pr-123                   the main branch is what came out
  merged pr-123 --revision 4fa2b1c3")]
    Merged {
        /// The change
        change: String,
        /// What came out of the merge [default: the main branch]
        #[arg(long, short, value_name = "REV")]
        revision: Option<String>,
    },
    /// Ask the topology's probes and smoke command of what runs in an environment
    #[command(after_help = "Examples:
  verify pr-123")]
    Verify {
        /// The environment
        environment: String,
    },
    /// Move a merged change on: what was verified, by digest
    #[command(after_help = "Examples:
  promote pr-123 production")]
    Promote {
        /// The change
        change: String,
        /// Where to; may be left out if there is only one
        environment: Option<String>,
    },
    /// Turn a feature on for a share of its audience, without a deployment
    #[command(after_help = "Examples:
  release new-checkout 10                        10 % in the only environment
  release new-checkout 100 production --change pr-123")]
    Release {
        /// The flag
        flag: String,
        /// For how many percent, 0 to 100
        percent: f64,
        /// Where; may be left out if there is only one
        environment: Option<String>,
        /// The change that this releases
        #[arg(long)]
        change: Option<String>,
    },
    /// Remove a change's preview
    #[command(after_help = "Examples:
  close pr-123")]
    Close {
        /// The change
        change: String,
    },
    /// Show how far a change has got, and when it reached what
    #[command(after_help = "Examples:
  timeline pr-123")]
    Timeline {
        /// The change
        change: String,
    },
    /// Hold the router and keep alive what should run, until told to stop
    #[command(after_help = "Examples:
  serve               at 127.0.0.1:8080
  serve --port 0      at any free port

With --json the address is an event on standard error, before anything is served: `serve.listening`.")]
    Serve {
        /// The port on 127.0.0.1; 0 for any free one
        #[arg(long, short, default_value_t = 8080)]
        port: u16,
    },
    /// Stop every process that this deployer runs on this host; `serve` starts them again
    #[command(after_help = "Examples:
  halt   before the machine is turned off, or the state folder removed")]
    Halt,
    /// Write a first topology, the grants beside it, and a page to deliver
    #[command(after_help = "Examples:
  init shop   in the new folder shop, with the owner's grants where the deployer looks for them")]
    Init {
        /// The folder, which becomes the repository
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// One of the deployer's own
    #[command(skip)]
    Own(usize, clap::ArgMatches),
}

#[derive(Debug, Subcommand)]
pub(super) enum CiVerb {
    /// Print or write the file
    #[command(after_help = "Examples:
  ci render            print it for the CI around, or for GitHub
  ci render gitlab
  ci render github --write")]
    Render {
        /// For which system [default: the one around, or GitHub]
        #[arg(value_enum)]
        system: Option<System>,
        /// Write it where the system looks for it
        #[arg(long)]
        write: bool,
    },
    /// Say whether the committed file is what would be rendered now; ends with 2 if it isn't
    #[command(after_help = "Examples:
  ci check github")]
    Check {
        /// For which system [default: the one around, or GitHub]
        #[arg(value_enum)]
        system: Option<System>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GraphFormat {
    /// Lines for people
    Text,
    /// A Mermaid flow chart
    Mermaid,
    /// Graphviz
    Dot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum System {
    /// GitHub Actions
    Github,
    /// GitLab CI
    Gitlab,
    /// Azure Pipelines
    Azure,
    /// Jenkins
    Jenkins,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is not a time such as `8h` or `30m`"))?;
    if parsed.is_positive() { Ok(parsed) } else { Err("it must be longer than nothing".to_owned()) }
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error}; a text needs quotes of its own: '\"{text}\"'"))
}

/// A call that was understood.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) globals: Globals,
    pub(super) verb: Verb,
    /// The command's name: `ci render`.
    pub(super) name: String,
    /// What the program is called: in help, in hints, in completions and in CI files.
    pub(super) program: String,
}

/// Everything that may be called, the deployer's own commands included.
pub(super) fn command(cli: &Cli, program: &str) -> clap::Command {
    let mut root = Root::command().name(program.to_owned()).bin_name(program.to_owned());
    if let Some(about) = &cli.about {
        root = root.about(about.clone());
    }
    if let Some(version) = &cli.version {
        root = root.version(version.clone());
    }
    // Its examples name files that are called like the program.
    root = root.mut_subcommand("completions", |command| {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        command.after_help(examples.replace("deployer", program))
    });
    for own in &cli.own {
        let name = own.command.get_name().to_owned();
        root = match root.find_subcommand(&name) {
            Some(_) => root.mut_subcommand(name, |_| own.command.clone()),
            None => root.subcommand(own.command.clone()),
        };
    }
    root
}

/// What the program is called: as it was told, or like its file.
fn program(cli: &Cli, args: &[OsString]) -> String {
    let file = || {
        let path = std::path::Path::new(args.first()?);
        Some(path.file_stem()?.to_str()?.to_owned())
    };
    cli.name.clone().or_else(file).unwrap_or_else(|| "deployer".to_owned())
}

pub(super) fn parse(cli: &Cli, args: &[OsString], colour: bool) -> Result<Call, Refused> {
    let program = program(cli, args);
    let json = args.iter().any(|arg| arg == "--json");
    let refused = |error| Refused { error, json, colour };
    let choice = if colour { clap::ColorChoice::Always } else { clap::ColorChoice::Never };
    let mut root = command(cli, &program).color(choice);
    let mut matches = root.try_get_matches_from_mut(args).map_err(refused)?;
    let globals = Globals::from_arg_matches_mut(&mut matches.clone()).map_err(refused)?;
    let mut name = String::new();
    let mut at = Some(&matches);
    while let Some((word, below)) = at.and_then(clap::ArgMatches::subcommand) {
        if !name.is_empty() {
            name.push(' ');
        }
        name.push_str(word);
        at = Some(below);
    }
    if let Some((word, below)) = matches.subcommand()
        && let Some(own) = cli.own.iter().position(|own| own.command.get_name() == word)
    {
        return Ok(Call { globals, verb: Verb::Own(own, below.clone()), name, program });
    }
    let verb = Verb::from_arg_matches_mut(&mut matches).map_err(refused)?;
    Ok(Call { globals, verb, name, program })
}
