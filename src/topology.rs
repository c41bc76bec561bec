//! What is delivered, as code: the application's `flowline.toml`, read, checked and turned into plain data.
//!
//! ```toml
//! app = "storefront"
//! shepherd = "ada"
//!
//! [components.web]
//! kind = "static"
//! path = "web"
//! address = "http://app.localhost"
//!
//! [environments.production]
//! after = ["preview"]
//!
//! [previews]
//! base = "production"
//! ttl = "72h"
//! ```
//!
//! Everything that can be wrong with the file is found when it is read, all at once, each with its place. What the application may
//! touch does not stand here: that is the owner's file (see [`flowline_core::grant`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use flowline_core::{
    SignedDuration,
    config::{ConfigError, Document},
    diagnostic::{Diagnostic, suggestion},
    error::{ErrorKind, Kinded},
    name::{AppName, ComponentName, EnvironmentName, Person},
};
use flowline_envs::{
    address::{Address, Style},
    promotion::{GraphError, PromotionGraph},
};
use flowline_pipeline::steps::ApprovalGate;
use flowline_toggles::format::flowline::{Definition, FlagKey};
use serde::{Deserialize, Serialize};

/// The name that stands for a change's own preview in `after = ["preview"]`.
pub const PREVIEW: &str = "preview";

/// One application's delivery: its components, environments, promotion, verification and flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The application.
    pub app: AppName,
    /// Who hears first when a change without a shepherd of its own is stuck.
    pub shepherd: Person,
    /// The branch that production is deployed from.
    #[serde(default = "main_branch")]
    pub branch: String,
    /// What it is made of.
    pub components: BTreeMap<ComponentName, Component>,
    /// The environments that stay. Start with one.
    pub environments: BTreeMap<EnvironmentName, Persistent>,
    /// How a pull request gets an environment of its own; absent: it gets none.
    #[serde(default)]
    pub previews: Option<Previews>,
    /// How a deployment is found to be well.
    #[serde(default)]
    pub verify: Verification,
    /// The flags that release features to people. Their state is changed at run time and does not stand here.
    #[serde(default)]
    pub flags: BTreeMap<FlagKey, Definition>,
}

/// One deployable part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// What it is.
    pub kind: ComponentKind,
    /// Its files: a directory in the repository.
    pub path: String,
    /// Where the base environment's users find it.
    pub address: Address,
    /// The program and its arguments, for a process. `{release}` is the release directory, `{port}` the port to listen on,
    /// `{deployer}` the program that runs flowline.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables for the process; it sees no others.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The path that answers 2xx when the process is ready.
    #[serde(default)]
    pub ready: Option<String>,
    /// How long it may take to become ready.
    #[serde(default = "thirty_seconds")]
    pub ready_timeout: SignedDuration,
    /// How long it may take to stop before it is killed.
    #[serde(default = "ten_seconds")]
    pub stop_grace: SignedDuration,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// Files that the router serves.
    Static,
    /// A program that answers HTTP on a port that it is given.
    Process,
}

/// An environment that stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistent {
    /// Where a release must have been verified first: other environments, or `preview` for the change's own.
    #[serde(default)]
    pub after: BTreeSet<EnvironmentName>,
    /// Addresses of its own; a component that is not named here gets one by rule (see [`Topology::address_in`]).
    #[serde(default)]
    pub addresses: BTreeMap<ComponentName, Address>,
    /// Who must approve a deployment's plan before users are led to it; absent: nobody. Going back to an earlier release needs nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalGate>,
}

/// How a pull request gets an environment of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Previews {
    /// The environment that they mirror, and that answers for every component that a change leaves alone.
    pub base: EnvironmentName,
    /// How long one lives after its last deployment.
    #[serde(default = "three_days")]
    pub ttl: SignedDuration,
}

/// How a deployment is found to be well.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Requests that must be answered well.
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// A command that must end with 0. `{COMPONENT}` is that component's address in the environment that is verified.
    #[serde(default)]
    pub smoke: Vec<String>,
    /// How long each probe may take, and the smoke command.
    #[serde(default = "thirty_seconds")]
    pub timeout: SignedDuration,
}

/// One request and what is expected of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The component that is asked.
    pub component: ComponentName,
    /// The path below its address.
    #[serde(default = "root_path")]
    pub path: String,
    /// The status that it must answer with.
    #[serde(default = "status_ok")]
    pub status: u16,
    /// What the body must contain.
    #[serde(default)]
    pub contains: Option<String>,
}

/// Something in a topology that contradicts itself, and the key that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `["components", "web", "address"]`.
    pub at: Vec<String>,
    /// A stable name for this kind of problem.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Topology {
    /// Everything that contradicts itself, in the order of the file's parts. Pure.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        if self.components.is_empty() {
            problems.add(
                &["components"],
                "topology.empty",
                "there is no component".to_owned(),
                "add `[components.NAME]`",
            );
        }
        if self.environments.is_empty() {
            problems.add(
                &["environments"],
                "topology.empty",
                "there is no environment".to_owned(),
                "add `[environments.production]`",
            );
        }
        for (name, component) in &self.components {
            component.problems(name, &mut problems);
        }
        self.promotion_problems(&mut problems);
        self.address_problems(&mut problems);
        self.verify_problems(&mut problems);
        problems.0
    }

    /// Where `component` is found in `environment`, whether that stays or is a change's; known before anything is deployed.
    ///
    /// An environment's own `addresses` come first. The environment that previews are based on has the components' addresses as they are
    /// written (so has the only environment of a topology without previews); every other one gets them by the rule of
    /// [`flowline_envs::address::rule`].
    ///
    /// # Errors
    /// If there is no such component, or the rule gives no address.
    pub fn address_in(
        &self,
        environment: &EnvironmentName,
        component: &ComponentName,
    ) -> Result<Address, TopologyError> {
        let unknown = || TopologyError::NoComponent {
            component: component.clone(),
            known: list(self.components.keys()),
        };
        let spec = self.components.get(component).ok_or_else(unknown)?;
        if let Some(own) =
            self.environments.get(environment).and_then(|persistent| persistent.addresses.get(component))
        {
            return Ok(own.clone());
        }
        if self.base() == Some(environment) {
            return Ok(spec.address.clone());
        }
        Ok(spec.address.in_environment(environment, Style::Auto)?)
    }

    /// Reads and checks a topology's file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::read(&Document::load(path)?)
    }

    /// Reads and checks a topology from a document's text.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn read(document: &Document) -> Result<Self, ConfigError> {
        let topology: Self = document.read()?;
        let problems = topology.problems();
        if problems.is_empty() {
            return Ok(topology);
        }
        let diagnostic = |problem: Problem| Diagnostic {
            code: problem.code,
            place: document.place_of(&problem.at),
            message: problem.message,
            help: Some(problem.help),
        };
        Err(ConfigError::invalid(problems.into_iter().map(diagnostic).collect()))
    }

    /// Checks a topology that was made in Rust.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = self.problems();
        if problems.is_empty() {
            return Ok(());
        }
        let diagnostic = |problem: Problem| Diagnostic {
            code: problem.code,
            message: format!("{}: {}", problem.at.join("."), problem.message),
            place: None,
            help: Some(problem.help),
        };
        Err(ConfigError::invalid(problems.into_iter().map(diagnostic).collect()))
    }

    /// Which environment comes after which.
    ///
    /// # Errors
    /// If environments wait for each other.
    pub fn promotion(&self) -> Result<PromotionGraph, GraphError> {
        let after =
            |(name, environment): (&EnvironmentName, &Persistent)| (name.clone(), environment.after.clone());
        PromotionGraph::new(self.environments.iter().map(after))
    }

    /// The environment whose addresses are the components' own.
    pub fn base(&self) -> Option<&EnvironmentName> {
        match &self.previews {
            Some(previews) => Some(&previews.base),
            None => self.environments.keys().next(),
        }
    }

    fn promotion_problems(&self, problems: &mut Problems) {
        for (name, environment) in &self.environments {
            let at = |rest: &str| vec!["environments".to_owned(), name.to_string(), rest.to_owned()];
            if name.as_str() == PREVIEW || name.as_str().starts_with("next-") {
                let message = format!(
                    "`{name}` cannot be the name of an environment that stays: it is used for previews and candidates"
                );
                problems.0.push(Problem {
                    at: vec!["environments".to_owned(), name.to_string()],
                    code: "topology.reserved",
                    message,
                    help: "choose another name".to_owned(),
                });
            }
            for upstream in &environment.after {
                if upstream.as_str() == PREVIEW {
                    if self.previews.is_none() {
                        let message = format!("`{name}` comes after previews, but there are none");
                        problems.0.push(Problem {
                            at: at("after"),
                            code: "topology.unknown",
                            message,
                            help: "add `[previews]`".to_owned(),
                        });
                    }
                } else if !self.environments.contains_key(upstream) {
                    problems.0.push(Problem {
                        at: at("after"),
                        code: "topology.unknown",
                        message: format!("`{name}` comes after `{upstream}`, which is not an environment"),
                        help: did_you_mean(
                            upstream.as_str(),
                            self.environments.keys().map(EnvironmentName::as_str),
                        ),
                    });
                }
            }
            for component in environment.addresses.keys().filter(|name| !self.components.contains_key(*name))
            {
                problems.0.push(Problem {
                    at: at("addresses"),
                    code: "topology.unknown",
                    message: format!("there is no component `{component}`"),
                    help: did_you_mean(component.as_str(), self.components.keys().map(ComponentName::as_str)),
                });
            }
        }
        if let Err(cycle) = self.promotion() {
            let first = cycle.cycle().first().map(ToString::to_string).unwrap_or_default();
            problems.0.push(Problem {
                at: vec!["environments".to_owned(), first, "after".to_owned()],
                code: "topology.cycle",
                message: cycle.to_string(),
                help: "let one of them come first".to_owned(),
            });
        }
        if let Some(previews) = &self.previews {
            if !self.environments.contains_key(&previews.base) {
                problems.add(
                    &["previews", "base"],
                    "topology.unknown",
                    format!("previews are based on `{}`, which is not an environment", previews.base),
                    &did_you_mean(
                        previews.base.as_str(),
                        self.environments.keys().map(EnvironmentName::as_str),
                    ),
                );
            }
            if !previews.ttl.is_positive() {
                problems.add(
                    &["previews", "ttl"],
                    "topology.range",
                    "previews would never live".to_owned(),
                    "write a time such as `72h`",
                );
            }
        }
    }

    /// Two components at one address would be one another's users' surprise.
    fn address_problems(&self, problems: &mut Problems) {
        let mut taken: BTreeMap<Address, (EnvironmentName, ComponentName)> = BTreeMap::new();
        for (environment, persistent) in &self.environments {
            for component in self.components.keys() {
                let own = persistent.addresses.contains_key(component);
                let at = if own {
                    vec![
                        "environments".to_owned(),
                        environment.to_string(),
                        "addresses".to_owned(),
                        component.to_string(),
                    ]
                } else {
                    vec!["components".to_owned(), component.to_string(), "address".to_owned()]
                };
                match self.address_in(environment, component) {
                    Ok(address) => {
                        if let Some((other, first)) =
                            taken.insert(address.clone(), (environment.clone(), component.clone()))
                        {
                            problems.0.push(Problem {
                                at,
                                code: "topology.address",
                                message: format!("`{component}` in `{environment}` has the address of `{first}` in `{other}`: {address}"),
                                help: "give one of them another host or path".to_owned(),
                            });
                        }
                    }
                    Err(error) => problems.0.push(Problem {
                        at,
                        code: "topology.address",
                        message: error.to_string(),
                        help: "choose a shorter or another address".to_owned(),
                    }),
                }
            }
        }
    }

    fn verify_problems(&self, problems: &mut Problems) {
        for (index, probe) in self.verify.probes.iter().enumerate() {
            let at =
                |key: &str| vec!["verify".to_owned(), "probes".to_owned(), index.to_string(), key.to_owned()];
            if !self.components.contains_key(&probe.component) {
                problems.0.push(Problem {
                    at: at("component"),
                    code: "topology.unknown",
                    message: format!("there is no component `{}`", probe.component),
                    help: did_you_mean(
                        probe.component.as_str(),
                        self.components.keys().map(ComponentName::as_str),
                    ),
                });
            }
            if !probe.path.starts_with('/') {
                let message = format!("`{}` is not a path", probe.path);
                problems.0.push(Problem {
                    at: at("path"),
                    code: "topology.path",
                    message,
                    help: "start it with `/`".to_owned(),
                });
            }
        }
    }
}

impl Component {
    fn problems(&self, name: &ComponentName, problems: &mut Problems) {
        let mut add = |key: &str, code, message: String, help: &str| {
            problems.add(&["components", name.as_str(), key], code, message, help);
        };
        let inside = |segment: std::path::Component<'_>| matches!(segment, std::path::Component::Normal(_));
        if self.path.is_empty() || !Path::new(&self.path).components().all(inside) {
            add(
                "path",
                "topology.path",
                format!("`{}` is not a directory inside the repository", self.path),
                "write it relative to the repository, without `..`",
            );
        }
        match self.kind {
            ComponentKind::Static => {
                if !self.command.is_empty() {
                    add(
                        "command",
                        "topology.kind",
                        format!("`{name}` is static, so it runs no command"),
                        "leave `command` out, or make its kind `process`",
                    );
                }
                if self.ready.is_some() {
                    add(
                        "ready",
                        "topology.kind",
                        format!("`{name}` is static, so it is always ready"),
                        "leave `ready` out, or make its kind `process`",
                    );
                }
            }
            ComponentKind::Process if self.command.is_empty() => {
                add(
                    "kind",
                    "topology.kind",
                    format!("`{name}` is a process without a command"),
                    "add `command = [\"PROGRAM\", …]`",
                );
            }
            ComponentKind::Process => {}
        }
        for (key, duration) in [("ready_timeout", self.ready_timeout), ("stop_grace", self.stop_grace)] {
            if !duration.is_positive() {
                add(
                    key,
                    "topology.range",
                    format!("{key} must be longer than nothing"),
                    "write a time such as `30s`",
                );
            }
        }
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, at: &[&str], code: &'static str, message: String, help: &str) {
        let at = at.iter().map(ToString::to_string).collect();
        self.0.push(Problem { at, code, message, help: help.to_owned() });
    }
}

/// Why a topology has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// There is no such component.
    #[error("there is no component `{component}`; there is {known}")]
    NoComponent {
        /// What was asked for.
        component: ComponentName,
        /// What there is.
        known: String,
    },
    /// The rule gives no address.
    #[error(transparent)]
    Address(#[from] flowline_envs::address::rule::RuleError),
    /// A name does not fit.
    #[error(transparent)]
    Name(#[from] flowline_core::name::NameError),
}

impl Kinded for TopologyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoComponent { .. } => ErrorKind::NotFound,
            Self::Address(_) | Self::Name(_) => ErrorKind::Invalid,
        }
    }
}

fn did_you_mean<'a>(text: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match suggestion(text, known.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("there is {}", list(known)),
    }
}

fn list(names: impl Iterator<Item = impl ToString>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{}`", name.to_string())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn main_branch() -> String {
    "main".to_owned()
}

fn root_path() -> String {
    "/".to_owned()
}

fn status_ok() -> u16 {
    200
}

fn thirty_seconds() -> SignedDuration {
    SignedDuration::from_secs(30)
}

fn ten_seconds() -> SignedDuration {
    SignedDuration::from_secs(10)
}

fn three_days() -> SignedDuration {
    SignedDuration::from_hours(72)
}
