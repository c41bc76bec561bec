//! What answers at an ephemeral environment's addresses: what it deploys itself, and the base environment for all the rest.

use flowline_core::name::{ComponentName, EnvironmentName};
use serde::{Deserialize, Serialize};

use super::{Route, RouteError, RouteTable, Target};
use crate::address::{HostName, PathPrefix};

/// An ephemeral environment as the router sees it: an address for each component, a target only for those that it deploys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// The environment whose addresses these are.
    pub environment: EnvironmentName,
    /// The environment that answers for what it does not deploy.
    pub base: EnvironmentName,
    /// Its addresses, in any order.
    pub entries: Vec<OverlayEntry>,
}

/// One address of an ephemeral environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayEntry {
    /// The component that is reached there.
    pub component: ComponentName,
    /// Its host in this environment.
    pub host: HostName,
    /// Its path in this environment.
    pub path: PathPrefix,
    /// What the component itself expects in the place of `path`: usually its path in the base environment. Used for the environment's own
    /// target only; a fall-through uses what the base environment's route says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<PathPrefix>,
    /// What this environment deploys; `None` falls through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// `base` together with the overlay's routes, each resolved: nothing is left to decide when a request comes.
///
/// A component without a target gets the target of the base environment's route for the same component, and the path that this target
/// expects: `api.awesome.com/pr-123-cool/x` becomes `/cool/x` for production's upstream. If the base environment itself falls through, so
/// does this one, to the same place. Later changes of the base need another call, as for all desired state.
///
/// ```
/// use flowline_envs::router::{overlay, Overlay, OverlayEntry, Route, RouteTable, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let production = RouteTable::new([
///     Route::new("app.awesome.com".parse()?, "/".parse()?, Target::Directory("/srv/web/current".into()), "production".parse()?, "web".parse()?),
///     Route::new("api.awesome.com".parse()?, "/cool".parse()?, Target::Upstream("127.0.0.1:8000".parse()?), "production".parse()?, "api".parse()?),
/// ])?;
/// let preview = Overlay {
///     environment: "pr-123".parse()?,
///     base: "production".parse()?,
///     entries: vec![
///         OverlayEntry {
///             component: "web".parse()?, host: "pr-123-app.awesome.com".parse()?, path: "/".parse()?, rewrite: None,
///             target: Some(Target::Directory("/srv/pr-123/web/current".into())),
///         },
///         OverlayEntry { component: "api".parse()?, host: "api.awesome.com".parse()?, path: "/pr-123-cool".parse()?, rewrite: None, target: None },
///     ],
/// };
/// let all = overlay(&production, &preview)?;
/// assert_eq!(
///     all.to_string(),
///     "api.awesome.com/cool -> 127.0.0.1:8000 (production/api)\n\
///      api.awesome.com/pr-123-cool -> 127.0.0.1:8000 as /cool (pr-123/api, falls through to production)\n\
///      app.awesome.com/ -> /srv/web/current (production/web)\n\
///      pr-123-app.awesome.com/ -> /srv/pr-123/web/current (pr-123/web)"
/// );
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`RouteError::Ambiguous`] if an address is taken already; [`RouteError::NothingBelow`] if a component has no target and the base
/// environment has no route for it.
pub fn overlay(base: &RouteTable, own: &Overlay) -> Result<RouteTable, RouteError> {
    let mut table = base.clone();
    for entry in &own.entries {
        table.insert(resolve(base, own, entry)?)?;
    }
    Ok(table)
}

fn resolve(base: &RouteTable, own: &Overlay, entry: &OverlayEntry) -> Result<Route, RouteError> {
    let Overlay { environment, base: below, .. } = own;
    let OverlayEntry { component, host, path, .. } = entry;
    if let Some(target) = &entry.target {
        let route =
            Route::new(host.clone(), path.clone(), target.clone(), environment.clone(), component.clone());
        return Ok(Route { rewrite: entry.rewrite.clone(), ..route });
    }
    let Some(answer) = base.of(below).find(|route| route.component == *component) else {
        return Err(RouteError::NothingBelow {
            owner: environment.clone(),
            component: component.clone(),
            base: below.clone(),
        });
    };
    // An upstream sees its own path unless told otherwise, and that path is the base environment's, not this address's.
    let rewrite = match (&answer.rewrite, &answer.target) {
        (None, Target::Upstream(_)) if answer.path != *path => Some(answer.path.clone()),
        (rewrite, _) => rewrite.clone(),
    };
    Ok(Route {
        host: host.clone(),
        path: path.clone(),
        target: answer.target.clone(),
        rewrite,
        owner: environment.clone(),
        component: component.clone(),
        falls_through_to: Some(answer.served_by().clone()),
    })
}

#[cfg(test)]
mod tests {
    use flowline_core::error::{ErrorKind, Kinded};

    use super::*;

    fn production() -> RouteTable {
        let route = |host: &str, path: &str, target: Target, component: &str| {
            Route::new(
                host.parse().unwrap(),
                path.parse().unwrap(),
                target,
                "production".parse().unwrap(),
                component.parse().unwrap(),
            )
        };
        let upstream = |port: u16| Target::Upstream(([127, 0, 0, 1], port).into());
        RouteTable::new([
            route("api.awesome.com", "/cool", upstream(8000), "api"),
            route("api.awesome.com", "/v1", upstream(8001), "old").rewritten_to("/legacy".parse().unwrap()),
            route("app.awesome.com", "/docs", Target::Directory("/srv/docs".into()), "docs"),
        ])
        .unwrap()
    }

    fn entry(component: &str, host: &str, path: &str, target: Option<Target>) -> OverlayEntry {
        OverlayEntry {
            component: component.parse().unwrap(),
            host: host.parse().unwrap(),
            path: path.parse().unwrap(),
            rewrite: None,
            target,
        }
    }

    fn preview(environment: &str, base: &str, entries: Vec<OverlayEntry>) -> Overlay {
        Overlay { environment: environment.parse().unwrap(), base: base.parse().unwrap(), entries }
    }

    #[test]
    fn a_fall_through_keeps_the_path_that_the_bases_target_expects() {
        let own = preview(
            "pr-7",
            "production",
            vec![
                entry("api", "api.awesome.com", "/pr-7-cool", None),
                entry("old", "pr-7-api.awesome.com", "/v1", None),
                entry("docs", "app.awesome.com", "/pr-7-docs", None),
            ],
        );
        insta::assert_snapshot!(overlay(&production(), &own).unwrap(), @r"
        api.awesome.com/cool -> 127.0.0.1:8000 (production/api)
        api.awesome.com/pr-7-cool -> 127.0.0.1:8000 as /cool (pr-7/api, falls through to production)
        api.awesome.com/v1 -> 127.0.0.1:8001 as /legacy (production/old)
        app.awesome.com/docs -> /srv/docs (production/docs)
        app.awesome.com/pr-7-docs -> /srv/docs (pr-7/docs, falls through to production)
        pr-7-api.awesome.com/v1 -> 127.0.0.1:8001 as /legacy (pr-7/old, falls through to production)
        ");
    }

    #[test]
    fn a_preview_of_a_preview_falls_through_to_who_deploys() {
        let one = preview("pr-7", "production", vec![entry("api", "pr-7-api.awesome.com", "/cool", None)]);
        let two = preview("pr-8", "pr-7", vec![entry("api", "pr-8-api.awesome.com", "/cool", None)]);
        let table = overlay(&overlay(&production(), &one).unwrap(), &two).unwrap();
        let route = table.find("pr-8-api.awesome.com", "/cool").unwrap().route;
        assert_eq!(route.served_by().as_str(), "production");
        assert_eq!(route.because(), "`pr-8` does not deploy `api`, so `production` answers");
    }

    #[test]
    fn an_address_that_is_taken_and_a_component_that_nobody_has_are_refused() {
        let taken = preview("pr-7", "production", vec![entry("api", "api.awesome.com", "/cool", None)]);
        let nobody = preview("pr-7", "production", vec![entry("new", "new.awesome.com", "/", None)]);
        let said = [taken, nobody].map(|own| overlay(&production(), &own).unwrap_err());
        assert_eq!(said.each_ref().map(Kinded::kind), [ErrorKind::Conflict, ErrorKind::NotFound]);
        insta::assert_snapshot!(said.map(|error| error.to_string()).join("\n"), @r"
        two routes claim `api.awesome.com/cool`: production/api and pr-7/api; give one of them another host or path
        `pr-7` does not deploy `new`, and its base `production` has no route for it; deploy it, or leave its address out
        ");
    }
}
