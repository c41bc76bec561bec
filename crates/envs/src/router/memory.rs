//! A router that only remembers: for plans, simulations and tests, without a socket.

use std::{
    collections::BTreeMap,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::Clock};

use super::{
    Drained, Route, RouteDiff, RouteTable, Router, RouterCapabilities, RouterError, Target, still_routed,
};

/// A [`Router`] in memory. Clones share their table.
///
/// Requests are played with [`enter`](Self::enter), which answers which route would take one and counts it as in flight until the
/// [`Passage`] is dropped.
#[derive(Debug, Clone)]
pub struct MemoryRouter {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    table: RouteTable,
    in_flight: BTreeMap<Target, usize>,
    waiting: Vec<Waker>,
}

impl MemoryRouter {
    /// A router without routes whose time limits run on `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// The passage of a request to `path` with the `Host` field `host`; `None` if no route answers it.
    pub fn enter(&self, host: &str, path: &str) -> Option<Passage> {
        let mut state = self.state();
        let (route, target_path) = {
            let matched = state.table.find(host, path)?;
            (matched.route.clone(), matched.target_path().into_owned())
        };
        *state.in_flight.entry(route.target.clone()).or_default() += 1;
        Some(Passage { route, target_path, state: Arc::clone(&self.state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// A request in flight. Dropping it ends the request.
#[derive(Debug)]
pub struct Passage {
    route: Route,
    target_path: String,
    state: Arc<Mutex<State>>,
}

impl Passage {
    /// The route that took the request.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The path that its target sees.
    pub fn target_path(&self) -> &str {
        &self.target_path
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let waiting = {
            let mut state = locked(&self.state);
            if let Some(count) = state.in_flight.get_mut(&self.route.target) {
                *count -= 1;
                if *count == 0 {
                    state.in_flight.remove(&self.route.target);
                }
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[async_trait]
impl Router for MemoryRouter {
    async fn apply(&self, table: RouteTable) -> Result<RouteDiff, RouterError> {
        let mut state = self.state();
        let diff = state.table.diff(&table);
        state.table = table;
        Ok(diff)
    }

    async fn current(&self) -> Result<RouteTable, RouterError> {
        Ok(self.state().table.clone())
    }

    async fn drain(&self, target: &Target, limit: Duration) -> Result<Drained, RouterError> {
        still_routed(&self.state().table, target)?;
        let mut late = pin!(async {
            match SignedDuration::try_from(limit) {
                Ok(limit) => self.clock.sleep(limit).await,
                Err(_longer_than_time) => pending().await,
            }
        });
        std::future::poll_fn(|context| {
            let in_flight = {
                let mut state = self.state();
                let in_flight = state.in_flight.get(target).copied().unwrap_or_default();
                if in_flight > 0 {
                    state.waiting.push(context.waker().clone());
                }
                in_flight
            };
            if in_flight == 0 {
                return Poll::Ready(Ok(Drained { target: target.clone() }));
            }
            late.as_mut()
                .poll(context)
                .map(|()| Err(RouterError::DrainTimedOut { target: target.clone(), in_flight, limit }))
        })
        .await
    }

    fn capabilities(&self) -> RouterCapabilities {
        RouterCapabilities { rewrites: true, directories: true, drains: true }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
