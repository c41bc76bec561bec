//! Desired routes as plain data: which address is answered by what, in whose name.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use flowline_core::{
    error::{ErrorKind, Kinded},
    name::{ComponentName, EnvironmentName},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::{HostName, PathPrefix};

/// One address and what answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The host that requests name, compared without case and port.
    pub host: HostName,
    /// The path under which this route answers, by whole segments; `/` for the whole host.
    pub path: PathPrefix,
    /// What answers.
    pub target: Target,
    /// What stands in the place of `path` when the request goes on. Without it an upstream sees the path as it was sent, and a directory
    /// the rest after `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<PathPrefix>,
    /// The environment whose address this is.
    pub owner: EnvironmentName,
    /// The component whose address this is.
    pub component: ComponentName,
    /// The environment that answers in place of the owner, which does not deploy the component itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub falls_through_to: Option<EnvironmentName>,
}

impl Route {
    /// A route to `target` at `host` and `path`, which `component` of `owner` answers itself.
    pub fn new(
        host: HostName,
        path: PathPrefix,
        target: Target,
        owner: EnvironmentName,
        component: ComponentName,
    ) -> Self {
        Self { host, path, target, rewrite: None, owner, component, falls_through_to: None }
    }

    /// With `rewrite` in the place of the path when the request goes on.
    #[must_use]
    pub fn rewritten_to(mut self, rewrite: PathPrefix) -> Self {
        self.rewrite = Some(rewrite);
        self
    }

    /// The environment whose deployment answers: the owner, or the one that it falls through to.
    pub fn served_by(&self) -> &EnvironmentName {
        self.falls_through_to.as_ref().unwrap_or(&self.owner)
    }

    /// Why this target answers, for a person.
    ///
    /// ```
    /// # use flowline_envs::router::{Route, Target};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut route = Route::new(
    ///     "pr-7-api.awesome.com".parse()?, "/".parse()?, Target::Upstream("127.0.0.1:8000".parse()?), "pr-7".parse()?, "api".parse()?,
    /// );
    /// assert_eq!(route.because(), "`pr-7` deploys `api` itself");
    /// route.falls_through_to = Some("production".parse()?);
    /// assert_eq!(route.because(), "`pr-7` does not deploy `api`, so `production` answers");
    /// # Ok(()) }
    /// ```
    pub fn because(&self) -> String {
        let Self { owner, component, .. } = self;
        match &self.falls_through_to {
            Some(base) => format!("`{owner}` does not deploy `{component}`, so `{base}` answers"),
            None => format!("`{owner}` deploys `{component}` itself"),
        }
    }
}

impl fmt::Display for Route {
    /// `pr-7-app.awesome.com/ -> 127.0.0.1:8000 (pr-7/web)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} -> {}", self.host, self.path, self.target)?;
        if let Some(rewrite) = &self.rewrite {
            write!(f, " as {rewrite}")?;
        }
        write!(f, " ({}/{}", self.owner, self.component)?;
        if let Some(base) = &self.falls_through_to {
            write!(f, ", falls through to {base}")?;
        }
        write!(f, ")")
    }
}

/// What answers a route's requests.
///
/// A weighted split between targets (a canary) will be one more variant; match with a wildcard arm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// An HTTP/1.1 server.
    Upstream(SocketAddr),
    /// Files below a directory, such as a release's `current` link, which is followed anew for each request.
    Directory(PathBuf),
    /// Nothing yet, or no longer: requests are answered with 503 and this reason.
    Unavailable(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(address) => write!(f, "{address}"),
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Unavailable(because) => write!(f, "unavailable: {because}"),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Upstream(address)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Directory(path.to_owned())
    }
}

/// All routes that a router is to have: at most one for each host and path, in order of host, then path.
///
/// Serialized as the list of its routes; reading one checks it again. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    routes: Arc<BTreeMap<HostName, BTreeMap<PathPrefix, Route>>>,
}

impl RouteTable {
    /// The table of `routes`, in any order.
    ///
    /// # Errors
    /// [`RouteError::Ambiguous`] if two of them have the same host and path.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Result<Self, RouteError> {
        let mut table = Self::default();
        for route in routes {
            table.insert(route)?;
        }
        Ok(table)
    }

    /// Adds `route`. Adding the same route again changes nothing.
    ///
    /// # Errors
    /// [`RouteError::Ambiguous`] if another route has the same host and path; the table is then unchanged.
    pub fn insert(&mut self, route: Route) -> Result<(), RouteError> {
        if let Some(present) = self.get(&route.host, &route.path) {
            if *present == route {
                return Ok(());
            }
            return Err(RouteError::Ambiguous(Box::new(Ambiguity { first: present.clone(), second: route })));
        }
        Arc::make_mut(&mut self.routes)
            .entry(route.host.clone())
            .or_default()
            .insert(route.path.clone(), route);
        Ok(())
    }

    /// The route at exactly `host` and `path`.
    pub fn get(&self, host: &HostName, path: &PathPrefix) -> Option<&Route> {
        self.routes.get(host)?.get(path)
    }

    /// All routes, in order of host, then path.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values().flat_map(BTreeMap::values)
    }

    /// The routes of one host, in order of path; none if the host is unknown.
    pub fn at_host(&self, host: &str) -> impl Iterator<Item = &Route> {
        self.routes.get(host).into_iter().flat_map(BTreeMap::values)
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.routes.keys()
    }

    /// The routes at addresses of `owner`.
    pub fn of(&self, owner: &EnvironmentName) -> impl Iterator<Item = &Route> {
        self.routes().filter(move |route| route.owner == *owner)
    }

    /// This table without the routes at addresses of `owner`.
    #[must_use]
    pub fn without(&self, owner: &EnvironmentName) -> Self {
        let mut routes = BTreeMap::<_, BTreeMap<_, _>>::new();
        for route in self.routes().filter(|route| route.owner != *owner) {
            routes.entry(route.host.clone()).or_default().insert(route.path.clone(), route.clone());
        }
        Self { routes: Arc::new(routes) }
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.values().map(BTreeMap::len).sum()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// What changes if this table gives way to `next`.
    pub fn diff(&self, next: &Self) -> RouteDiff {
        let mut diff = RouteDiff::default();
        for route in next.routes() {
            match self.get(&route.host, &route.path) {
                None => diff.added.push(route.clone()),
                Some(before) if before == route => diff.unchanged += 1,
                Some(before) => diff.changed.push((before.clone(), route.clone())),
            }
        }
        diff.removed =
            self.routes().filter(|route| next.get(&route.host, &route.path).is_none()).cloned().collect();
        diff
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes().map(ToString::to_string)).finish()
    }
}

impl fmt::Display for RouteTable {
    /// One route on each line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, route) in self.routes().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{route}")?;
        }
        Ok(())
    }
}

impl Serialize for RouteTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.routes())
    }
}

impl<'de> Deserialize<'de> for RouteTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<Route>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What changes between two tables. Each list is in order of host, then path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteDiff {
    /// Addresses that are answered from now on.
    pub added: Vec<Route>,
    /// Addresses that are answered otherwise: before and after.
    pub changed: Vec<(Route, Route)>,
    /// Addresses that are no longer answered.
    pub removed: Vec<Route>,
    /// How many routes stay as they are.
    pub unchanged: usize,
}

impl RouteDiff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Why routes do not make a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Two routes have the same host and path.
    #[error(
        "two routes claim `{}{}`: {}/{} and {}/{}; give one of them another host or path",
        .0.first.host, .0.first.path, .0.first.owner, .0.first.component, .0.second.owner, .0.second.component
    )]
    Ambiguous(Box<Ambiguity>),
    /// An environment names a component that neither it nor its base answers.
    #[error(
        "`{owner}` does not deploy `{component}`, and its base `{base}` has no route for it; deploy it, or leave its address out"
    )]
    NothingBelow {
        /// The environment whose address would have no answer.
        owner: EnvironmentName,
        /// The component without an answer.
        component: ComponentName,
        /// The environment that it was to fall through to.
        base: EnvironmentName,
    },
}

/// Two routes with the same host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ambiguity {
    /// The route that was there first.
    pub first: Route,
    /// The route that could not be added.
    pub second: Route,
}

impl Kinded for RouteError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Ambiguous(_) => ErrorKind::Conflict,
            Self::NothingBelow { .. } => ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::error::{ErrorKind, Kinded};

    use super::*;

    fn route(host: &str, path: &str, owner: &str) -> Route {
        let target = Target::Upstream("127.0.0.1:8000".parse().unwrap());
        Route::new(
            host.parse().unwrap(),
            path.parse().unwrap(),
            target,
            owner.parse().unwrap(),
            "web".parse().unwrap(),
        )
    }

    #[test]
    fn two_routes_at_one_address_name_both_owners() {
        let one = route("app.awesome.com", "/", "production");
        let error = RouteTable::new([one.clone(), route("app.awesome.com", "/", "pr-7")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        insta::assert_snapshot!(
            error,
            @"two routes claim `app.awesome.com/`: production/web and pr-7/web; give one of them another host or path"
        );
        assert_eq!(RouteTable::new([one.clone(), one]).unwrap().len(), 1);
    }

    #[test]
    fn a_table_is_read_back_from_what_it_was_written_as() {
        let mut through = route("pr-7-app.awesome.com", "/", "pr-7").rewritten_to("/cool".parse().unwrap());
        through.falls_through_to = Some("production".parse().unwrap());
        let mut files = route("app.awesome.com", "/", "production");
        files.target = Target::Directory("/srv/web/current".into());
        let table = RouteTable::new([through, files]).unwrap();
        let written = serde_json::to_string_pretty(&table).unwrap();
        insta::assert_snapshot!(written, @r#"
        [
          {
            "host": "app.awesome.com",
            "path": "/",
            "target": {
              "directory": "/srv/web/current"
            },
            "owner": "production",
            "component": "web"
          },
          {
            "host": "pr-7-app.awesome.com",
            "path": "/",
            "target": {
              "upstream": "127.0.0.1:8000"
            },
            "rewrite": "/cool",
            "owner": "pr-7",
            "component": "web",
            "falls_through_to": "production"
          }
        ]
        "#);
        assert_eq!(serde_json::from_str::<RouteTable>(&written).unwrap(), table);
    }

    #[test]
    fn reading_refuses_two_routes_at_one_address() {
        let one = serde_json::to_string(&route("a.com", "/", "production")).unwrap();
        let two = serde_json::to_string(&route("a.com", "/", "pr-7")).unwrap();
        assert!(serde_json::from_str::<RouteTable>(&format!("[{one},{one}]")).is_ok());
        let error = serde_json::from_str::<RouteTable>(&format!("[{one},{two}]")).unwrap_err();
        assert!(error.to_string().contains("two routes claim `a.com/`"), "{error}");
    }

    #[test]
    fn a_diff_says_what_comes_changes_and_goes() {
        let before =
            RouteTable::new([route("a.com", "/", "x"), route("b.com", "/", "x"), route("c.com", "/", "x")]);
        let after =
            RouteTable::new([route("b.com", "/", "y"), route("c.com", "/", "x"), route("d.com", "/", "y")]);
        let (before, after) = (before.unwrap(), after.unwrap());
        let diff = before.diff(&after);
        assert_eq!(diff.added, [route("d.com", "/", "y")]);
        assert_eq!(diff.changed, [(route("b.com", "/", "x"), route("b.com", "/", "y"))]);
        assert_eq!(diff.removed, [route("a.com", "/", "x")]);
        assert_eq!(diff.unchanged, 1);
        assert!(before.diff(&before).is_empty());
        assert_eq!(
            after.without(&"y".parse().unwrap()),
            RouteTable::new([route("c.com", "/", "x")]).unwrap()
        );
    }
}
