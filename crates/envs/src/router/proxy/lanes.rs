//! The table as it is served: compiled for lookup, switched atomically, with a count of requests in flight for each target.
//!
//! A request reads the table, counts itself in at its target, then looks whether the table was switched meanwhile; if so it counts itself
//! out and starts over. A drain reads the count after the switch. All these accesses are sequentially consistent, so either the request
//! sees the switch or the drain sees the request; neither takes a lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::header::HeaderValue;
use tokio::sync::Notify;

use super::{
    super::{
        Drained, Route, RouteDiff, RouteTable, RouterError, Target,
        matching::{host_of, longest, target_path},
        still_routed,
    },
    forward::RequestBody,
};
use crate::probe::connection::Pool;

/// What happens at one target, over all tables that name it.
pub(super) struct Lane {
    in_flight: AtomicUsize,
    free: Notify,
    /// Idle connections, if the target is an upstream.
    pub(super) pool: Arc<Pool<RequestBody>>,
}

/// A route with everything that a request needs ready-made.
pub(super) struct Entry {
    pub(super) route: Route,
    pub(super) lane: Arc<Lane>,
    /// The environment that answers.
    pub(super) environment: HeaderValue,
    /// The environment and component that answer: `production/api`.
    pub(super) served_by: HeaderValue,
    /// The environment that was asked.
    pub(super) asked: HeaderValue,
    /// The path that a rewrite replaces.
    pub(super) prefix: Option<HeaderValue>,
}

/// A request that is in flight on a lane until this is dropped.
pub(super) struct Passage {
    pub(super) entry: Arc<Entry>,
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.entry.lane.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.entry.lane.free.notify_waiters();
        }
    }
}

impl Passage {
    /// The path that the target sees of a request with `rest` below the route.
    pub(super) fn target_path<'a>(&self, rest: &'a str) -> std::borrow::Cow<'a, str> {
        target_path(&self.entry.route, rest)
    }
}

/// Why no route takes a request.
pub(super) enum NoRoute {
    /// The `Host` field is not one.
    Malformed,
    /// No route has this host.
    Host,
    /// The host is known, the path is not.
    Path,
}

#[derive(Default)]
struct Compiled {
    table: RouteTable,
    hosts: BTreeMap<Box<str>, Vec<Arc<Entry>>>,
    targets: BTreeSet<Target>,
}

/// The routes that are served, and what happens at their targets.
pub(super) struct Lanes {
    compiled: ArcSwap<Compiled>,
    switches: AtomicU64,
    /// Every target with requests in flight or in the table. Locked by `apply` and `drain` only.
    by_target: Mutex<BTreeMap<Target, Arc<Lane>>>,
    idle_connections: usize,
    idle_for: Duration,
}

impl Lanes {
    pub(super) fn new(idle_connections: usize, idle_for: Duration) -> Self {
        Self {
            compiled: ArcSwap::default(),
            switches: AtomicU64::new(0),
            by_target: Mutex::default(),
            idle_connections,
            idle_for,
        }
    }

    /// Takes a request in: its passage, and what of its path lies below the route.
    pub(super) fn enter<'p>(&self, host: &str, path: &'p str) -> Result<(Passage, &'p str), NoRoute> {
        let host = host_of(host).ok_or(NoRoute::Malformed)?;
        loop {
            let before = self.switches.load(SeqCst);
            let compiled = self.compiled.load();
            let entries = compiled.hosts.get(&*host).ok_or(NoRoute::Host)?;
            let (entry, rest) =
                longest(entries.iter(), |entry| entry.route.path.as_str(), path).ok_or(NoRoute::Path)?;
            entry.lane.in_flight.fetch_add(1, SeqCst);
            let passage = Passage { entry: Arc::clone(entry) };
            if self.switches.load(SeqCst) == before {
                return Ok((passage, rest));
            }
        }
    }

    /// Serves exactly `table` from now on.
    pub(super) fn apply(&self, table: &RouteTable) -> RouteDiff {
        let mut by_target = self.by_target.lock().unwrap_or_else(PoisonError::into_inner);
        let diff = self.compiled.load().table.diff(table);
        if diff.is_empty() {
            return diff;
        }
        let mut hosts = BTreeMap::<Box<str>, Vec<Arc<Entry>>>::new();
        for route in table.routes() {
            let lane = by_target.entry(route.target.clone()).or_insert_with(|| self.lane());
            lane.pool.open();
            let entry = Arc::new(compile(route, Arc::clone(lane)));
            hosts.entry(route.host.as_str().into()).or_default().push(entry);
        }
        let targets: BTreeSet<Target> = table.routes().map(|route| route.target.clone()).collect();
        self.compiled.store(Arc::new(Compiled { table: table.clone(), hosts, targets: targets.clone() }));
        self.switches.fetch_add(1, SeqCst);
        by_target.retain(|target, lane| {
            let routed = targets.contains(target);
            if !routed {
                lane.pool.close();
            }
            routed || lane.in_flight.load(SeqCst) > 0
        });
        diff
    }

    /// The table that is served.
    pub(super) fn current(&self) -> RouteTable {
        self.compiled.load().table.clone()
    }

    /// Waits until no request uses `target`.
    pub(super) async fn drain(&self, target: &Target, limit: Duration) -> Result<Drained, RouterError> {
        let lane = {
            let by_target = self.by_target.lock().unwrap_or_else(PoisonError::into_inner);
            still_routed(&self.compiled.load().table, target)?;
            by_target.get(target).map(Arc::clone)
        };
        let Some(lane) = lane else { return Ok(Drained::of(target.clone())) };
        let late = tokio::time::timeout(limit, async {
            loop {
                let mut free = pin!(lane.free.notified());
                free.as_mut().enable();
                if lane.in_flight.load(SeqCst) == 0 {
                    return;
                }
                free.await;
            }
        });
        match late.await {
            Ok(()) => Ok(Drained::of(target.clone())),
            Err(_late) => Err(RouterError::DrainTimedOut {
                target: target.clone(),
                in_flight: lane.in_flight.load(SeqCst),
                limit,
            }),
        }
    }

    /// Closes connections that were idle for too long, and forgets targets that nobody uses.
    pub(super) fn sweep(&self) {
        let mut by_target = self.by_target.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = self.compiled.load();
        by_target.retain(|target, lane| {
            lane.pool.sweep();
            lane.in_flight.load(SeqCst) > 0 || compiled.targets.contains(target)
        });
    }

    fn lane(&self) -> Arc<Lane> {
        Arc::new(Lane {
            in_flight: AtomicUsize::new(0),
            free: Notify::new(),
            pool: Arc::new(Pool::new(self.idle_connections, self.idle_for)),
        })
    }
}

fn compile(route: &Route, lane: Arc<Lane>) -> Entry {
    let environment = route.served_by();
    Entry {
        environment: field(environment.as_str()),
        served_by: field(&format!("{environment}/{}", route.component)),
        asked: field(route.owner.as_str()),
        prefix: route.rewrite.as_ref().map(|_| field(route.path.as_str())),
        route: route.clone(),
        lane,
    }
}

/// Names and paths are printable ASCII, which is always a field's value.
fn field(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
