//! Routers with one flaw each: the suite must name the sentence that each of them breaks, and every sentence must be breakable.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use flowline_core::clock::SystemClock;
use tokio::sync::Notify;

use super::{cases::CASES, send_through, stage::play, suite};
use crate::{
    probe::HttpResponse,
    router::{
        Drained, MemoryRouter, Route, RouteDiff, RouteTable, Router, RouterCapabilities, RouterError, Target,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    KeepsRemovedRoutes,
    ForgetsWhatItServes,
    ReportsChangesThatAreNone,
    KeepsChangedTargets,
    DropsRequestsOnSwitch,
    DropsTheFirstAfterASwitch,
    MatchesCharacters,
    TakesTheShortestPath,
    MindsTheCaseOfHosts,
    AnswersAnyHost,
    IgnoresRewrites,
    ResolvesLinksOnApply,
    AnswersForWhatIsUnavailable,
    HasNoFallThrough,
    AlwaysFallsThrough,
    HidesFallThrough,
    DrainsWhatIsRouted,
    DrainsAtOnce,
    NeverEndsADrain,
    IgnoresTheLimit,
    AppliesHalf,
}

/// Each flaw, with sentences that must be found broken.
const FLAWS: &[(Flaw, &[&str])] = &[
    (Flaw::KeepsRemovedRoutes, &["a route that the next table leaves out is not answered any more"]),
    (Flaw::ForgetsWhatItServes, &["what was applied is current, and applying it again changes nothing"]),
    (
        Flaw::ReportsChangesThatAreNone,
        &["what was applied is current, and applying it again changes nothing"],
    ),
    (Flaw::KeepsChangedTargets, &["a target that the next table changes answers the next request"]),
    (
        Flaw::DropsRequestsOnSwitch,
        &[
            "a request in flight finishes on its old target",
            "a drain gives up after its limit and leaves the requests alone",
        ],
    ),
    (Flaw::DropsTheFirstAfterASwitch, &["no request is lost while tables are switched"]),
    (Flaw::MatchesCharacters, &["a path covers whole segments, not characters"]),
    (Flaw::TakesTheShortestPath, &["the longest path takes the request"]),
    (Flaw::MindsTheCaseOfHosts, &["case and port of the host do not matter"]),
    (Flaw::AnswersAnyHost, &["an unknown host is answered with 404"]),
    (Flaw::IgnoresRewrites, &["a rewrite stands in the place of the route's path"]),
    (Flaw::ResolvesLinksOnApply, &["files of a directory answer, also after its link was switched"]),
    (Flaw::AnswersForWhatIsUnavailable, &["a target that is unavailable is answered with 503"]),
    (Flaw::HasNoFallThrough, &["a component that a preview does not deploy is answered by its base"]),
    (Flaw::AlwaysFallsThrough, &["a component that a preview deploys is answered by the preview"]),
    (Flaw::HidesFallThrough, &["a response says which environment answered"]),
    (Flaw::DrainsWhatIsRouted, &["a target that is still routed cannot be drained"]),
    (
        Flaw::DrainsAtOnce,
        &[
            "a drain waits for requests in flight",
            "a drain gives up after its limit and leaves the requests alone",
        ],
    ),
    (Flaw::NeverEndsADrain, &["a target that nobody uses is drained at once"]),
    (Flaw::IgnoresTheLimit, &["a drain gives up after its limit and leaves the requests alone"]),
    (Flaw::AppliesHalf, &["applying a table makes its routes answer"]),
];

#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    inner: MemoryRouter,
    /// What was asked for last, before the flaw had its way with it.
    wanted: Mutex<RouteTable>,
    switched: Notify,
    fresh: Mutex<bool>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        let inner = MemoryRouter::new(Arc::new(SystemClock));
        Self { flaw, inner, wanted: Mutex::default(), switched: Notify::new(), fresh: Mutex::new(false) }
    }

    async fn send(&self, host: String, path: String) -> Result<HttpResponse, String> {
        let host = self.host(&host);
        match self.flaw {
            Flaw::DropsRequestsOnSwitch => {
                return tokio::select! {
                    response = send_through(&self.inner, &host, &path) => response,
                    () = self.switched.notified() => Err("the connection was cut".to_owned()),
                };
            }
            Flaw::DropsTheFirstAfterASwitch if std::mem::take(&mut *locked(&self.fresh)) => {
                return Err("the connection was refused".to_owned());
            }
            Flaw::MatchesCharacters | Flaw::TakesTheShortestPath => {
                if let Some(route) = self.chosen(&host, &path)
                    && let Target::Upstream(address) = route.target
                {
                    return super::stage::ask(address, &host, &path).await;
                }
            }
            Flaw::AnswersForWhatIsUnavailable => {
                let response = send_through(&self.inner, &host, &path).await?;
                return Ok(if response.status == 503 { play(200, "", "production") } else { response });
            }
            Flaw::HidesFallThrough => {
                let table = locked(&self.wanted).clone();
                let mut response = send_through(&self.inner, &host, &path).await?;
                if let Some(matched) = table.find(&host, &path) {
                    response.headers =
                        vec![("x-flowline-environment".to_owned(), matched.route.owner.to_string())];
                }
                return Ok(response);
            }
            _ => {}
        }
        send_through(&self.inner, &host, &path).await
    }

    fn host(&self, host: &str) -> String {
        let table = locked(&self.wanted);
        let known = table.hosts().any(|known| known.as_str() == host);
        match self.flaw {
            Flaw::MindsTheCaseOfHosts if !known => "unknown.test".to_owned(),
            Flaw::AnswersAnyHost if table.find(host, "/").is_none() => {
                table.hosts().next().map_or_else(|| host.to_owned(), ToString::to_string)
            }
            _ => host.to_owned(),
        }
    }

    fn chosen(&self, host: &str, path: &str) -> Option<Route> {
        let table = locked(&self.wanted);
        let covering = table.at_host(host).filter(|route| match self.flaw {
            Flaw::MatchesCharacters => path.starts_with(route.path.as_str()),
            _ => table.find(host, path).is_some_and(|matched| matched.route.path >= route.path),
        });
        let by_length = |route: &&Route| route.path.as_str().len();
        match self.flaw {
            Flaw::MatchesCharacters => covering.max_by_key(by_length).cloned(),
            _ => covering.min_by_key(by_length).cloned(),
        }
    }

    fn bent(&self, wanted: &RouteTable, before: &RouteTable) -> Vec<Route> {
        let routes = wanted.routes().cloned();
        match self.flaw {
            Flaw::KeepsRemovedRoutes => {
                let gone =
                    before.routes().filter(|route| wanted.get(&route.host, &route.path).is_none()).cloned();
                routes.chain(gone).collect()
            }
            Flaw::KeepsChangedTargets => {
                routes.map(|route| before.get(&route.host, &route.path).cloned().unwrap_or(route)).collect()
            }
            Flaw::IgnoresRewrites => routes.map(|route| Route { rewrite: None, ..route }).collect(),
            Flaw::ResolvesLinksOnApply => routes
                .map(|route| match &route.target {
                    Target::Directory(root) => {
                        Route { target: Target::Directory(root.canonicalize().unwrap()), ..route }
                    }
                    _ => route,
                })
                .collect(),
            Flaw::HasNoFallThrough => routes.filter(|route| route.falls_through_to.is_none()).collect(),
            Flaw::AlwaysFallsThrough => {
                let production = wanted.routes().find(|route| route.owner.as_str() == "production");
                let target = production.map(|route| route.target.clone());
                routes
                    .map(|route| match &target {
                        Some(target) if route.owner.as_str() != "production" => {
                            Route { target: target.clone(), ..route }
                        }
                        _ => route,
                    })
                    .collect()
            }
            Flaw::AppliesHalf => routes.take(1).collect(),
            _ => routes.collect(),
        }
    }
}

#[async_trait]
impl Router for Flawed {
    async fn apply(&self, table: RouteTable) -> Result<RouteDiff, RouterError> {
        let before = self.inner.current().await?;
        let bent = RouteTable::new(self.bent(&table, &before)).unwrap();
        self.inner.apply(bent).await?;
        let diff = {
            let mut wanted = locked(&self.wanted);
            let diff = wanted.diff(&table);
            *wanted = table.clone();
            diff
        };
        *locked(&self.fresh) = !diff.changed.is_empty();
        self.switched.notify_waiters();
        if self.flaw == Flaw::ReportsChangesThatAreNone {
            return Ok(RouteTable::default().diff(&table));
        }
        Ok(diff)
    }

    async fn current(&self) -> Result<RouteTable, RouterError> {
        if self.flaw == Flaw::ForgetsWhatItServes {
            return Ok(RouteTable::default());
        }
        Ok(locked(&self.wanted).clone())
    }

    async fn drain(&self, target: &Target, limit: Duration) -> Result<Drained, RouterError> {
        match self.flaw {
            Flaw::DrainsWhatIsRouted
                if self.inner.current().await?.routes().any(|route| route.target == *target) =>
            {
                Ok(Drained::of(target.clone()))
            }
            Flaw::DrainsAtOnce
                if self.inner.current().await?.routes().all(|route| route.target != *target) =>
            {
                Ok(Drained::of(target.clone()))
            }
            Flaw::NeverEndsADrain if self.inner.current().await?.is_empty() => pending().await,
            Flaw::IgnoresTheLimit => self.inner.drain(target, Duration::MAX).await,
            _ => self.inner.drain(target, limit).await,
        }
    }

    fn capabilities(&self) -> RouterCapabilities {
        self.inner.capabilities()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::test]
async fn the_router_in_memory_keeps_the_contract() {
    let router = Flawed::new(Flaw::None);
    suite(&router, async |host, path| router.send(host, path).await).await.verdict().unwrap();
}

#[tokio::test]
async fn every_flaw_is_named_by_the_sentence_that_it_breaks() {
    let mut broken = BTreeSet::new();
    for (flaw, expected) in FLAWS {
        let router = Flawed::new(*flaw);
        let report = suite(&router, async |host, path| router.send(host, path).await).await;
        let found: BTreeSet<_> = report.broken().collect();
        for sentence in *expected {
            assert!(found.contains(sentence), "{flaw:?} does not break `{sentence}`:\n{report}");
        }
        broken.extend(found);
    }
    let unbroken: Vec<_> =
        CASES.iter().map(|(sentence, _)| *sentence).filter(|case| !broken.contains(case)).collect();
    assert!(unbroken.is_empty(), "no flaw breaks {unbroken:#?}");
}
