//! What the cases act on: the router, upstreams that say who they are and which path they see, and requests that can be held.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{Seen, Sending};
use crate::{
    probe::{Client, HttpResponse, Reply, Server, serve},
    router::{Route, RouteDiff, RouteTable, Router, Target},
};

/// How long anything may take before it counts as lost.
pub(super) const LONG: Duration = Duration::from_secs(10);

pub(super) struct Stage<'a> {
    pub(super) router: &'a dyn Router,
    send: &'a dyn Fn(&str, &str) -> Sending<'a>,
    /// Requests that reached an upstream at `/held`, and permits for them to be answered.
    pub(super) arrived: Arc<Semaphore>,
    pub(super) released: Arc<Semaphore>,
}

impl<'a> Stage<'a> {
    /// A stage whose router has an empty table.
    pub(super) async fn new(
        router: &'a dyn Router,
        send: &'a dyn Fn(&str, &str) -> Sending<'a>,
    ) -> Result<Self, Seen> {
        let stage = Self {
            router,
            send,
            arrived: Arc::new(Semaphore::new(0)),
            released: Arc::new(Semaphore::new(0)),
        };
        stage.apply([]).await?;
        Ok(stage)
    }

    /// An upstream that answers `name path`, at paths that end with `/held` only when [`released`](Self::released) lets it.
    pub(super) async fn upstream(&self, name: &'static str) -> Result<Server, Seen> {
        let (arrived, released) = (Arc::clone(&self.arrived), Arc::clone(&self.released));
        let serving = serve(([127, 0, 0, 1], 0).into(), move |request| {
            let (arrived, released) = (Arc::clone(&arrived), Arc::clone(&released));
            async move {
                if request.path.ends_with("/held") {
                    arrived.add_permits(1);
                    if let Ok(permit) = released.acquire().await {
                        permit.forget();
                    }
                }
                Reply::text(format!("{name} {}", request.path))
            }
        });
        serving
            .await
            .map_err(|error| Seen::Broken(format!("the suite's own upstream cannot listen: {error}")))
    }

    /// Applies the table of `routes`.
    pub(super) async fn apply(&self, routes: impl IntoIterator<Item = Route>) -> Result<RouteDiff, Seen> {
        self.apply_table(table(routes)?).await
    }

    pub(super) async fn apply_table(&self, table: RouteTable) -> Result<RouteDiff, Seen> {
        self.router.apply(table).await.map_err(|error| Seen::Broken(format!("`apply` failed: {error}")))
    }

    /// The response to a request, within the time that a request may take.
    pub(super) async fn get(&self, host: &str, path: &str) -> Result<HttpResponse, Seen> {
        match tokio::time::timeout(LONG, (self.send)(host, path)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Seen::Broken(format!("`{host}{path}` was lost: {error}"))),
            Err(_late) => Err(Seen::Broken(format!("`{host}{path}` was not answered within {LONG:?}"))),
        }
    }

    /// Checks that a request is answered with 200 and exactly this text.
    pub(super) async fn expect(&self, host: &str, path: &str, text: &str) -> Result<HttpResponse, Seen> {
        let response = self.get(host, path).await?;
        if response.status != 200 || response.text() != text {
            return Err(Seen::Broken(format!(
                "`{host}{path}` was answered with {} `{}`, expected 200 `{text}`",
                response.status,
                response.text()
            )));
        }
        Ok(response)
    }

    /// Checks that a request is answered with this status.
    pub(super) async fn expect_status(&self, host: &str, path: &str, status: u16) -> Result<(), Seen> {
        let response = self.get(host, path).await?;
        if response.status != status {
            return Err(Seen::Broken(format!(
                "`{host}{path}` was answered with {} `{}`, expected {status}",
                response.status,
                response.text()
            )));
        }
        Ok(())
    }

    /// Runs `act` while a request to `host` is in flight, then lets the request go; its response and what `act` gave.
    pub(super) async fn while_held<T>(
        &self,
        host: &str,
        act: impl Future<Output = Result<T, Seen>>,
    ) -> Result<(HttpResponse, T), Seen> {
        let acting = async {
            let permit = tokio::time::timeout(LONG, self.arrived.acquire()).await;
            let Ok(Ok(permit)) = permit else {
                return Err(Seen::Broken("a request did not reach its upstream".to_owned()));
            };
            permit.forget();
            let acted = act.await;
            self.released.add_permits(1);
            acted
        };
        let (response, acted) = tokio::join!(self.get(host, "/held"), acting);
        let acted = acted?;
        Ok((response?, acted))
    }
}

/// A route of `production`.
pub(super) fn route(host: &str, path: &str, target: impl Into<Target>) -> Result<Route, Seen> {
    owned("production", "web", host, path, target)
}

/// A route of any environment and component.
pub(super) fn owned(
    owner: &str,
    component: &str,
    host: &str,
    path: &str,
    target: impl Into<Target>,
) -> Result<Route, Seen> {
    let own = |problem: String| Seen::Broken(format!("the suite's own route is wrong: {problem}"));
    Ok(Route::new(
        host.parse().map_err(|error| own(format!("{error}")))?,
        path.parse().map_err(|error| own(format!("{error}")))?,
        target.into(),
        owner.parse().map_err(|error| own(format!("{error}")))?,
        component.parse().map_err(|error| own(format!("{error}")))?,
    ))
}

pub(super) fn table(routes: impl IntoIterator<Item = Route>) -> Result<RouteTable, Seen> {
    RouteTable::new(routes).map_err(|error| Seen::Broken(format!("the suite's own table is wrong: {error}")))
}

/// A response that was made up rather than received.
pub(super) fn play(status: u16, text: &str, environment: &str) -> HttpResponse {
    HttpResponse {
        status,
        headers: vec![("x-flowline-environment".to_owned(), environment.to_owned())],
        body: text.as_bytes().to_vec(),
        truncated: false,
    }
}

/// The response of the upstream at `address`.
pub(super) async fn ask(address: SocketAddr, host: &str, path: &str) -> Result<HttpResponse, String> {
    Client::new().get(address, host, path, LONG).await.map_err(|error| error.to_string())
}
