//! The one long-running process of a host: it holds the router, follows the store, and keeps alive what should run.
//!
//! Everything it does is level-triggered: it looks at the environments' documents, derives what should be, and makes it so. It does not
//! matter who changed a document, or whether this process was alive then.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use flowline_core::{
    SignedDuration, Timestamp,
    id::Key,
    lease::{Lease, LeaseError, Leases},
    store::{Batch, Durability, Position},
};
use flowline_envs::router::{HttpRouter, Router, RouterLimits};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle};

use super::{Delivery, DeliveryError, process, routes};

/// How long the serving process may be silent before another may take its place.
const LEASE: SignedDuration = SignedDuration::from_secs(15);
/// How often it says that it is alive.
const RENEW: Duration = Duration::from_secs(5);
/// How long a stop waits for requests in flight.
const FINISH: Duration = Duration::from_secs(10);

/// What the serving process says of itself, for other processes: the document `serve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeStatus {
    /// Where the router listens.
    pub address: SocketAddr,
    /// Every event up to here is reflected in the router's table.
    pub applied: Position,
    /// What was wrong with the last table, if it could not be applied; the one before still stands.
    pub problem: Option<String>,
    /// When it was written.
    pub time: Timestamp,
}

pub(super) fn status_key() -> Result<Key, DeliveryError> {
    Ok(Key::new("serve/status")?)
}

fn lease_key() -> Result<Key, DeliveryError> {
    Ok(Key::new("lease/serve")?)
}

/// The router and the supervisor of this host, running. Dropping it cuts requests in flight; [`stop`](Self::stop) lets them finish.
///
/// Processes that were started go on without it, and the next one adopts them.
#[derive(Debug)]
pub struct Serving {
    delivery: Delivery,
    router: Arc<HttpRouter>,
    stop: watch::Sender<bool>,
    following: JoinHandle<()>,
    renewing: JoinHandle<()>,
    lease: Lease,
}

impl Serving {
    /// Where the router listens.
    pub fn address(&self) -> SocketAddr {
        self.router.address()
    }

    /// Stops listening, lets requests in flight finish (10 seconds at most), and gives the place free. What was started keeps running.
    ///
    /// # Errors
    /// The store's, if the place can't be given free; another process may take it after 15 seconds then.
    pub async fn stop(self) -> Result<(), DeliveryError> {
        self.stop.send_replace(true);
        self.renewing.abort();
        self.router.shutdown(FINISH).await;
        self.following.abort();
        self.delivery.set_router(None);
        self.delivery
            .leases()
            .release(&self.lease)
            .await
            .map_err(|error| DeliveryError::part("giving the router's place free", error))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.following.abort();
        self.renewing.abort();
        self.delivery.set_router(None);
    }
}

pub(super) async fn start(delivery: &Delivery, port: u16) -> Result<Serving, DeliveryError> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // The port comes first: whoever has it is alive, whatever an old lease says, so a killed process's place is free at once.
    let router = Arc::new(
        HttpRouter::bind_on_own_thread(address, RouterLimits::default())
            .await
            .map_err(|source| DeliveryError::Listen { address, source: source.into() })?,
    );
    let lease = take_place(delivery).await?;
    delivery.set_router(Some(Arc::clone(&router)));
    revive(delivery).await?;
    let applied = apply(delivery, &router).await?;
    let (stop, stopped) = watch::channel(false);
    let following = tokio::spawn(follow(delivery.clone(), Arc::clone(&router), applied, stopped));
    let renewing = tokio::spawn(renew(delivery.clone(), lease.clone()));
    Ok(Serving { delivery: delivery.clone(), router, stop, following, renewing, lease })
}

/// Takes the lease `serve`, at once if its holder is a dead process of this host.
async fn take_place(delivery: &Delivery) -> Result<Lease, DeliveryError> {
    match delivery.take(lease_key()?, LEASE, "router and supervisor of this host").await {
        Err(LeaseError::Held { held, .. }) => Err(DeliveryError::ServedElsewhere { holder: held.holder }),
        taken => taken.map_err(|error| DeliveryError::part("taking the router's place", error)),
    }
}

/// Whether some process serves this directory right now.
pub(super) async fn is_served(delivery: &Delivery) -> Result<bool, DeliveryError> {
    let held = delivery.leases().holder(&lease_key()?).await;
    let held = held.map_err(|error| DeliveryError::part("looking for the serving process", error))?;
    Ok(held.is_some_and(|held| !held.expired(delivery.clock().now()) && !process::is_dead(&held.holder)))
}

/// Starts again what should run and does not: after a restart of the host, or when a process died while nobody looked.
async fn revive(delivery: &Delivery) -> Result<(), DeliveryError> {
    for environment in delivery.environments().await? {
        delivery.revive(environment).await?;
    }
    Ok(())
}

/// Makes the router's table what the environments' documents say, and tells others how far it got.
pub(super) async fn apply(delivery: &Delivery, router: &HttpRouter) -> Result<Position, DeliveryError> {
    let _one_after_another = delivery.inner.routing.lock().await;
    let store = delivery.store();
    let position = store.head().await.map_err(DeliveryError::store("reading what changed"))?;
    let environments = delivery.environments().await?;
    let problem = match routes::table(delivery.topology(), &environments) {
        Ok(table) => router.apply(table).await.err().map(|error| flowline_core::error::chain(&error)),
        Err(error) => Some(flowline_core::error::chain(&error)),
    };
    let time = delivery.clock().now();
    let status = ServeStatus { address: router.address(), applied: position, problem, time };
    let value = serde_json::to_value(&status).unwrap_or_default();
    let batch = Batch::new().put(status_key()?, value).durably(Durability::Written);
    store.commit(batch).await.map_err(DeliveryError::store("telling how far the router got"))?;
    Ok(position)
}

/// Follows the store until told to stop. A store that fails for a while is asked again; the router keeps the table that it has.
async fn follow(
    delivery: Delivery,
    router: Arc<HttpRouter>,
    mut applied: Position,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let store = Arc::clone(delivery.store());
        let changed = tokio::select! {
            changed = store.changed(applied) => changed.is_ok(),
            _stopped = stop.changed() => return,
            () = delivery.clock().sleep(SignedDuration::from_secs(30)) => true,
        };
        let done = if changed { apply(&delivery, &router).await } else { Ok(applied) };
        match done {
            Ok(position) => applied = position,
            Err(_) => delivery.clock().sleep(SignedDuration::from_millis(200)).await,
        }
        // What expired goes away by itself; failing to remove it now is not final, the next round tries again.
        let _later = delivery.sweep().await;
    }
}

async fn renew(delivery: Delivery, lease: Lease) {
    loop {
        tokio::time::sleep(RENEW).await;
        // A lease that was lost is not taken back: whoever has it now serves.
        if delivery
            .leases()
            .renew(&lease, LEASE)
            .await
            .is_err_and(|error| matches!(error, LeaseError::Lost { .. }))
        {
            return;
        }
    }
}
