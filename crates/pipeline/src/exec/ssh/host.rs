//! Which host, as whom, and how it proves who it is.

use std::path::{Path, PathBuf};

use flowline_core::error::{ErrorKind, Kinded};

/// A host that commands run on.
///
/// Its key is always checked against `known_hosts`, and nothing else is believed: no configuration file, no agent that was not named, no
/// password, no prompt.
///
/// ```
/// use flowline_pipeline::exec::SshHost;
/// let host = SshHost::new("deploy@web-1.awesome.com", "/etc/flowline/known_hosts").unwrap()
///     .with_identity("/etc/flowline/deploy_key");
/// assert!(SshHost::new("-oProxyCommand=evil", "/etc/flowline/known_hosts").is_err());
/// # let _ = host;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshHost {
    user: Option<String>,
    host: String,
    port: u16,
    known_hosts: PathBuf,
    identity: Option<PathBuf>,
    agent: Option<PathBuf>,
}

/// What was given names no host, or a file that `ssh` would not read as it is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no host: write `user@host` or `host`")]
pub struct SshHostError(String);

impl Kinded for SshHostError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl SshHost {
    /// `user@host` or `host` at port 22, whose key stands in the file `known_hosts`.
    ///
    /// # Errors
    /// [`SshHostError`] if it is neither.
    pub fn new(address: &str, known_hosts: impl Into<PathBuf>) -> Result<Self, SshHostError> {
        let (user, host) = match address.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, address),
        };
        let plain = |text: &str, more: &[u8]| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_' || first == ':')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        if !plain(host, b".-_:") || user.is_some_and(|user| !plain(user, b".-_")) {
            return Err(SshHostError(address.to_owned()));
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: 22,
            known_hosts: known_hosts.into(),
            identity: None,
            agent: None,
        })
    }

    /// The same at another port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The same with this private key, which has no passphrase; no other is tried.
    #[must_use]
    pub fn with_identity(mut self, file: impl Into<PathBuf>) -> Self {
        self.identity = Some(file.into());
        self
    }

    /// The same with the keys of the agent that listens at `socket`.
    #[must_use]
    pub fn with_agent(mut self, socket: impl Into<PathBuf>) -> Self {
        self.agent = Some(socket.into());
        self
    }

    /// How errors name it.
    pub(super) fn shown(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{user}{}:{}", self.host, self.port)
    }

    /// The options of every `ssh` that goes there, in order; then come those of the caller, the host and the far command.
    pub(super) fn options(&self, seconds: u64) -> Vec<String> {
        let mut words =
            vec!["-F".to_owned(), "/dev/null".to_owned(), "-T".to_owned(), "-x".to_owned(), "-a".to_owned()];
        let mut option = |text: String| words.extend(["-o".to_owned(), text]);
        for fixed in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "UpdateHostKeys=no",
            "VerifyHostKeyDNS=no",
            "PasswordAuthentication=no",
            "KbdInteractiveAuthentication=no",
            "PermitLocalCommand=no",
            "ControlPersist=no",
            "ServerAliveInterval=10",
            "ServerAliveCountMax=3",
            "LogLevel=ERROR",
        ] {
            option(fixed.to_owned());
        }
        option(format!("ConnectTimeout={seconds}"));
        option(format!("UserKnownHostsFile={}", option_path(&self.known_hosts)));
        option(format!(
            "IdentityAgent={}",
            self.agent.as_deref().map_or_else(|| "none".to_owned(), option_path)
        ));
        if let Some(identity) = &self.identity {
            option(format!("IdentityFile={}", option_path(identity)));
            option("IdentitiesOnly=yes".to_owned());
        }
        option(format!("Port={}", self.port));
        if let Some(user) = &self.user {
            option(format!("User={user}"));
        }
        words
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A file that `ssh` would not read as it is meant: its options know `%` and `${…}`, which can be escaped only in part.
    pub(super) fn odd_file(&self) -> Option<&Path> {
        let files = [Some(&self.known_hosts), self.identity.as_ref(), self.agent.as_ref()];
        let odd = |file: &&Path| {
            file.to_str().is_none_or(|text| text.contains(['"', '\n', '$', '\\']) || !text.starts_with('/'))
        };
        files.into_iter().flatten().map(PathBuf::as_path).find(odd)
    }
}

/// A path as the value of an option: quoted, its `%` not read as a token.
pub(super) fn option_path(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_an_option_is_no_host() {
        for bad in ["", "-v", "a b", "user@-v", "-l@host", "@host", "user@", "a;b", "host\n"] {
            assert!(SshHost::new(bad, "/k").is_err(), "{bad}");
        }
        for good in ["host", "deploy@10.0.0.1", "deploy@fe80::1", "a.b-c_d"] {
            assert!(SshHost::new(good, "/k").is_ok(), "{good}");
        }
    }

    #[test]
    fn every_connection_checks_the_host_and_asks_nothing() {
        let host = SshHost::new("deploy@web-1", "/etc/known hosts")
            .unwrap()
            .with_identity("/k/100%")
            .with_port(2222);
        let options = host.options(10).join(" ").replace(" -o ", "\n");
        insta::assert_snapshot!(options, @r#"
        -F /dev/null -T -x -a
        BatchMode=yes
        StrictHostKeyChecking=yes
        GlobalKnownHostsFile=/dev/null
        UpdateHostKeys=no
        VerifyHostKeyDNS=no
        PasswordAuthentication=no
        KbdInteractiveAuthentication=no
        PermitLocalCommand=no
        ControlPersist=no
        ServerAliveInterval=10
        ServerAliveCountMax=3
        LogLevel=ERROR
        ConnectTimeout=10
        UserKnownHostsFile="/etc/known hosts"
        IdentityAgent=none
        IdentityFile="/k/100%%"
        IdentitiesOnly=yes
        Port=2222
        User=deploy
        "#);
        assert_eq!(host.odd_file(), None);
        assert!(SshHost::new("web", "relative").unwrap().odd_file().is_some());
    }
}
