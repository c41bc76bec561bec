//! Who may touch what: nothing, unless a resource's owner granted it.
//!
//! An application's pipeline configures `awesome.com` and can never touch `fun.com`. Three parts make that so: [`Grants`] come from an
//! owner's file and never from the repository that they bind; an [`Authority`] answers for one application; backends take a
//! [`Granted`] resource, which only an authority makes, and never a name.
//!
//! These types stop accidents inside one process. Against malice the credentials themselves must be scoped as well: whoever can run
//! code in the deployer's process can do what its credentials can.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorKind, Kinded},
    id::ResourceId,
    name::AppName,
};

/// What one application may touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The application that it is for.
    pub app: AppName,
    /// What it covers.
    pub resource: Pattern,
    /// Who granted it and why, for people.
    #[serde(default)]
    pub because: String,
}

/// A set of resources: one exactly, all host names under one, or all paths under one.
///
/// | written | covers |
/// | --- | --- |
/// | `host:awesome.com` | that host and every path on it |
/// | `host:*.awesome.com` | every host one or more labels below it, not itself, and every path on these |
/// | `host:*-app.awesome.com` | every host beside `app.awesome.com` whose first label ends in `-app`: its previews |
/// | `path:api.awesome.com/cool` | that path and everything below it, by whole segments |
/// | `path:api.awesome.com/*-cool` | every path beside `/cool` whose segment ends in `-cool`, and what is below: its previews |
/// | `process:production/*` | everything of that kind whose name starts with `production/` |
/// | `process:*` | everything of that kind; not for hosts and paths |
///
/// Hosts are compared label by label from the right, never as text: `host:*.awesome.com` does not cover `notawesome.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

/// A pattern that can't be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` cannot be granted: {problem}")]
pub struct PatternError {
    pattern: String,
    problem: &'static str,
}

impl Kinded for PatternError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Pattern {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// If it is not `kind:name`, or has a `*` anywhere but in front of a host or at the end of a name after `/`, or would cover a
    /// whole top-level domain.
    pub fn new(text: impl Into<String>) -> Result<Self, PatternError> {
        let text = text.into();
        let refuse = |problem| Err(PatternError { pattern: text.clone(), problem });
        let Some((kind, name)) = text.split_once(':') else {
            return refuse("it needs the form `kind:name`");
        };
        let plain = match kind {
            "host" => name.strip_prefix("*.").or_else(|| name.strip_prefix("*-")).unwrap_or(name),
            "path" => match name.rsplit_once("/*-") {
                Some((parent, rest)) if !rest.is_empty() && !rest.contains('/') => parent,
                _ => name.strip_suffix("/*").unwrap_or(name),
            },
            _ if name == "*" => "all",
            _ => name.strip_suffix("/*").unwrap_or(name),
        };
        if plain.contains('*') {
            return refuse(
                "`*` may stand only in front of a host (`*.awesome.com`, `*-app.awesome.com`) or at the end (`production/*`)",
            );
        }
        if kind == "host" && plain.len() < name.len() && !plain.contains('.') && plain != "localhost" {
            return refuse("it would cover a whole top-level domain");
        }
        if ResourceId::of(kind, plain).is_err() {
            return refuse("it is not a well-formed resource");
        }
        Ok(Self(text))
    }

    /// Whether `resource` is in the set.
    ///
    /// ```
    /// use flowline_core::{grant::Pattern, id::ResourceId};
    /// let covers = |pattern: &str, resource: &str| {
    ///     Pattern::new(pattern).unwrap().covers(&ResourceId::new(resource).unwrap())
    /// };
    /// assert!(covers("host:*.awesome.com", "host:pr-1-app.awesome.com"));
    /// assert!(!covers("host:*.awesome.com", "host:notawesome.com"));
    /// assert!(covers("path:api.awesome.com/cool", "path:api.awesome.com/cool/v2"));
    /// assert!(!covers("path:api.awesome.com/cool", "path:api.awesome.com/coolest"));
    /// ```
    pub fn covers(&self, resource: &ResourceId) -> bool {
        let Some((kind, name)) = self.0.split_once(':') else { return false };
        match (kind, resource.kind()) {
            ("host", "host") => covers_host(name, resource.name()),
            ("host", "path") => {
                let host = resource.name().split('/').next().unwrap_or_default();
                covers_host(name, host) && !steps_out(resource.name())
            }
            _ if kind != resource.kind() => false,
            ("path", _) => {
                if let Some((parent, sibling)) = name.rsplit_once("/*-") {
                    return is_path_beside(resource.name(), parent, sibling);
                }
                let parent = name.strip_suffix("/*").unwrap_or(name);
                is_path_at_or_below(resource.name(), parent)
            }
            _ => match name.strip_suffix('*') {
                Some(start) => resource.name().strip_prefix(start).is_some_and(|rest| !rest.is_empty()),
                None => resource.name() == name,
            },
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn covers_host(pattern: &str, host: &str) -> bool {
    if let Some(parent) = pattern.strip_prefix("*.") {
        return is_below_host(host, parent);
    }
    let Some(sibling) = pattern.strip_prefix('*') else { return host.eq_ignore_ascii_case(pattern) };
    // `*-app.awesome.com`: the same labels but for the first, which has something in front of `-app`.
    let (host, sibling) = (host.to_ascii_lowercase(), sibling.to_ascii_lowercase());
    host.strip_suffix(&sibling).is_some_and(|front| !front.is_empty() && !front.contains('.'))
}

fn is_below_host(host: &str, parent: &str) -> bool {
    let mut host = host.rsplit('.').map(str::to_ascii_lowercase);
    let all =
        parent.rsplit('.').all(|label| host.next().is_some_and(|own| own == label.to_ascii_lowercase()));
    all && host.next().is_some()
}

/// A path that steps up could leave the granted one after normalisation, so it is in no set.
fn steps_out(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// `PARENT/x-SIBLING` or below, with something in front of the hyphen.
fn is_path_beside(path: &str, parent: &str, sibling: &str) -> bool {
    let below = path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/'));
    let segment = below.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let front = segment.strip_suffix(sibling).and_then(|front| front.strip_suffix('-'));
    front.is_some_and(|front| !front.is_empty()) && !steps_out(path)
}

fn is_path_at_or_below(path: &str, parent: &str) -> bool {
    !steps_out(path) && path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All grants that an owner gave out; the content of an owner's file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// The grants, in the owner's order.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// Answers for one application what it may touch.
///
/// Made from grants by whoever embeds flowline, from a place that the application's repository cannot write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    app: AppName,
    patterns: Vec<Pattern>,
}

impl Authority {
    /// The authority over what `grants` give to `app`.
    pub fn new(app: AppName, grants: &Grants) -> Self {
        let patterns = grants
            .grants
            .iter()
            .filter(|grant| grant.app == app)
            .map(|grant| grant.resource.clone())
            .collect();
        Self { app, patterns }
    }

    /// The application that it answers for.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// What it was given, in the owner's order; part of a plan's seal.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether the application may touch `resource`: the handle to it, or the refusal with its reason.
    ///
    /// # Errors
    /// [`Denied`] if no grant covers it.
    pub fn grant(&self, resource: &ResourceId) -> Result<Granted<ResourceId>, Denied> {
        match self.patterns.iter().find(|pattern| pattern.covers(resource)) {
            Some(by) => Ok(Granted { resource: resource.clone(), by: by.clone() }),
            None => Err(Denied {
                app: self.app.clone(),
                resource: resource.clone(),
                granted: self.patterns.clone(),
            }),
        }
    }
}

/// A resource that may be touched. Only an [`Authority`] makes one, so a backend that takes it need not ask again.
///
/// It can't be read from disk: a stored plan names resources, and whoever applies it asks the authority of that moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Granted<R> {
    resource: R,
    by: Pattern,
}

impl<R> Granted<R> {
    /// The resource.
    pub fn resource(&self) -> &R {
        &self.resource
    }

    /// The pattern that allows it.
    pub fn by(&self) -> &Pattern {
        &self.by
    }
}

/// An application asked for what nobody granted it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("`{app}` may not touch `{resource}`: {}; ask the owner of `{resource}` for a grant", has(.granted))]
pub struct Denied {
    /// Who asked.
    pub app: AppName,
    /// For what.
    pub resource: ResourceId,
    /// What it was granted instead.
    pub granted: Vec<Pattern>,
}

impl Kinded for Denied {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Denied
    }
}

fn has(granted: &[Pattern]) -> String {
    if granted.is_empty() {
        return "it was granted nothing".to_owned();
    }
    let list: Vec<_> = granted.iter().map(|pattern| format!("`{pattern}`")).collect();
    format!("it was granted only {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let grant = |pattern: &str| Grant {
            app: "storefront".parse().unwrap(),
            resource: Pattern::new(pattern).unwrap(),
            because: String::new(),
        };
        let mut grants = Grants { grants: vec![grant("host:awesome.com"), grant("host:*.awesome.com")] };
        grants.grants.push(Grant { app: "other".parse().unwrap(), ..grant("host:fun.com") });
        Authority::new("storefront".parse().unwrap(), &grants)
    }

    #[test]
    fn awesome_yes_fun_never() {
        let ask = |host: &str| authority().grant(&ResourceId::of("host", host).unwrap());
        for yes in ["awesome.com", "app.awesome.com", "pr-1-app.awesome.com", "APP.AWESOME.COM"] {
            assert!(ask(yes).is_ok(), "{yes}");
        }
        for no in ["fun.com", "notawesome.com", "awesome.com.fun.com", "com", "awesome.com."] {
            assert!(ask(no).is_err(), "{no}");
        }
        insta::assert_snapshot!(ask("fun.com").unwrap_err(), @"`storefront` may not touch `host:fun.com`: it was granted only `host:awesome.com`, `host:*.awesome.com`; ask the owner of `host:fun.com` for a grant");
    }

    #[test]
    fn a_path_does_not_step_out() {
        let pattern = Pattern::new("path:api.awesome.com/cool").unwrap();
        let covers = |name: &str| pattern.covers(&ResourceId::of("path", name).unwrap());
        assert!(covers("api.awesome.com/cool") && covers("api.awesome.com/cool/x"));
        assert!(!covers("api.awesome.com/cool/../admin") && !covers("api.awesome.com/coolest"));
        assert!(!covers("api.awesome.com"));
    }

    #[test]
    fn a_host_covers_its_paths_and_its_previews_are_beside_it() {
        let covers = |pattern: &str, resource: &str| {
            Pattern::new(pattern).unwrap().covers(&ResourceId::new(resource).unwrap())
        };
        assert!(covers("host:api.awesome.com", "path:api.awesome.com/pr-1-cool"));
        assert!(!covers("host:api.awesome.com", "path:api.awesome.com/../x"));
        assert!(!covers("host:awesome.com", "path:api.awesome.com/cool"));
        assert!(covers("host:*-app.awesome.com", "host:pr-1-app.awesome.com"));
        for no in [
            "host:-app.awesome.com",
            "host:x.pr-1-app.awesome.com",
            "host:app.awesome.com",
            "host:pr-1-app.fun.com",
        ] {
            assert!(!covers("host:*-app.awesome.com", no), "{no}");
        }
        let previews = "path:api.awesome.com/*-cool";
        assert!(
            covers(previews, "path:api.awesome.com/pr-1-cool")
                && covers(previews, "path:api.awesome.com/pr-1-cool/x")
        );
        for no in ["cool", "-cool", "pr-1-coolest", "x/pr-1-cool", "pr-1-cool/../x"] {
            assert!(!covers(previews, &format!("path:api.awesome.com/{no}")), "{no}");
        }
        assert!(covers("process:*", "process:pr-1/api") && !covers("process:*", "dir:pr-1/web"));
    }

    #[test]
    fn wide_patterns_are_refused() {
        for bad in ["host:*.com", "host:*", "*", "host:a.*.com", "path:*", "path:a.com/*-b/c", "awesome.com"]
        {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }
}
