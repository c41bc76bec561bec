//! Where the command line runs: what it may know of its terminal and its environment, as data.

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf};

use flowline_pipeline::ci::CiKind;

/// Where the command line runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Surroundings {
    /// The environment's variables.
    pub env: BTreeMap<String, String>,
    /// Whether standard output is a terminal.
    pub out_terminal: bool,
    /// Whether standard error is a terminal.
    pub err_terminal: bool,
    /// How many columns and rows the terminal has.
    pub size: (usize, usize),
    /// The directory that files are looked for in.
    pub directory: PathBuf,
    /// Unpredictable bytes.
    pub seed: Vec<u8>,
}

impl Surroundings {
    /// No terminal, no environment, this directory.
    pub fn none() -> Self {
        Self {
            env: BTreeMap::new(),
            out_terminal: false,
            err_terminal: false,
            size: (80, 24),
            directory: PathBuf::from("."),
            seed: Vec::new(),
        }
    }

    /// Those of this process: the one place where the command line asks for them.
    pub fn of_process() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let (out, err) = (std::io::stdout(), std::io::stderr());
        Self {
            env: env.collect(),
            out_terminal: out.is_terminal(),
            err_terminal: err.is_terminal(),
            size: size(),
            directory: PathBuf::from("."),
            seed: seed(),
        }
    }

    /// The CI system around.
    pub fn ci(&self) -> CiKind {
        CiKind::detect(&self.env)
    }

    /// Whether colours are wanted where a terminal is: not with `NO_COLOR`, nor on one that can't show any.
    pub fn colour(&self) -> bool {
        let set = |name: &str| self.env.get(name).is_some_and(|value| !value.is_empty());
        !set("NO_COLOR") && self.env.get("TERM").is_none_or(|term| term != "dumb")
    }

    /// Who is at work, as far as it is known: the CI system, or the user.
    pub(super) fn person(&self) -> Option<String> {
        let get = |name: &str| self.ci().given(&self.env, name).map(str::to_owned);
        get("GITHUB_ACTOR")
            .or_else(|| get("GITLAB_USER_LOGIN"))
            .or_else(|| get("USER"))
            .or_else(|| get("USERNAME"))
    }
}

#[cfg(unix)]
fn size() -> (usize, usize) {
    let found = rustix::termios::tcgetwinsize(std::io::stderr());
    match found {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(not(unix))]
fn size() -> (usize, usize) {
    (80, 24)
}

/// The standard library keys its hashes with the system's randomness, which is all that is needed here.
fn seed() -> Vec<u8> {
    use std::hash::BuildHasher;
    let word = || std::collections::hash_map::RandomState::new().hash_one(0_u8).to_le_bytes();
    [word(), word(), word(), word()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_azure_does_not_know_is_nobody() {
        let mut around = Surroundings::none();
        let given = [("TF_BUILD", "True"), ("GITHUB_ACTOR", "$(GITHUB_ACTOR)"), ("USER", "ann")];
        around.env = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(around.person().as_deref(), Some("ann"));
    }
}
