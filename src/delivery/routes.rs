//! Which address is answered by what: the whole route table, as a pure function of the topology and of what runs where.

use std::collections::BTreeMap;

use flowline_core::name::{ComponentName, EnvironmentName};
use flowline_envs::router::{Overlay, OverlayEntry, Route, RouteError, RouteTable, Target, overlay};

use super::{EnvironmentRecord, Instance, InstanceTarget};
use crate::topology::{Topology, TopologyError};

/// What a candidate's environment is called while it is verified beside `environment`: `next-production`.
///
/// It is an environment like any preview: an overlay with addresses by the same rule, so that the same probes find it.
///
/// # Errors
/// If the name would be too long for a label.
pub fn candidate_of(environment: &EnvironmentName) -> Result<EnvironmentName, TopologyError> {
    EnvironmentName::new(format!("next-{environment}")).map_err(TopologyError::from)
}

/// The table for everything that runs.
///
/// Environments that stay come first; a preview, and a candidate, is an overlay on its base: what it does not deploy itself falls
/// through. A component whose base does not run it either gets no route at all.
///
/// # Errors
/// If an address can't be derived, or two environments claim the same one.
pub fn table(topology: &Topology, environments: &[EnvironmentRecord]) -> Result<RouteTable, RoutingError> {
    let mut routes = RouteTable::default();
    for environment in environments.iter().filter(|environment| environment.base.is_none()) {
        for (component, instance) in &environment.running {
            // A component that left the topology keeps running until the next deployment retires it, but nobody is led there.
            let Ok(address) = topology.address_in(&environment.name, component) else { continue };
            routes.insert(Route::new(
                address.host().clone(),
                address.path().clone(),
                target(instance),
                environment.name.clone(),
                component.clone(),
            ))?;
        }
    }
    for environment in environments {
        if let Some(base) = &environment.base {
            routes = laid_over(topology, &routes, &environment.name, base, &environment.running)?;
        }
        if !environment.candidate.is_empty() {
            let name = candidate_of(&environment.name)?;
            let base = environment.base.as_ref().unwrap_or(&environment.name);
            routes = laid_over(topology, &routes, &name, base, &environment.candidate)?;
        }
    }
    Ok(routes)
}

fn laid_over(
    topology: &Topology,
    routes: &RouteTable,
    name: &EnvironmentName,
    base: &EnvironmentName,
    own: &BTreeMap<ComponentName, Instance>,
) -> Result<RouteTable, RoutingError> {
    let mut entries = Vec::new();
    for (component, spec) in &topology.components {
        let deployed = own.get(component);
        let below = routes.of(base).any(|route| route.component == *component);
        if deployed.is_none() && !below {
            continue;
        }
        let address = topology.address_in(name, component)?;
        let rewrite = (deployed.is_some()
            && address.path() != spec.address.path()
            && matches!(deployed.map(|instance| &instance.target), Some(InstanceTarget::Process(_))))
        .then(|| spec.address.path().clone());
        entries.push(OverlayEntry {
            component: component.clone(),
            host: address.host().clone(),
            path: address.path().clone(),
            rewrite,
            target: deployed.map(target),
        });
    }
    Ok(overlay(routes, &Overlay { environment: name.clone(), base: base.clone(), entries })?)
}

fn target(instance: &Instance) -> Target {
    match &instance.target {
        InstanceTarget::Directory(path) => Target::Directory(path.clone()),
        InstanceTarget::Process(address) => Target::Upstream(*address),
    }
}

/// Why there is no route table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// An address can't be derived.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Two routes claim the same address.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl flowline_core::error::Kinded for RoutingError {
    fn kind(&self) -> flowline_core::error::ErrorKind {
        match self {
            Self::Topology(error) => error.kind(),
            Self::Route(error) => error.kind(),
        }
    }
}
