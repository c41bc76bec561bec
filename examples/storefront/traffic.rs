//! The people in this story: a browser that asks, a thousand users, and the traffic that must never fail.

use std::{
    collections::BTreeSet,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use flowline::envs::probe::{Client, HttpResponse, HttpUrl};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the router for a URL, as a browser does: the name goes into the `Host` field, the connection to this machine.
#[derive(Clone)]
pub(crate) struct Browser {
    client: Client,
    router: SocketAddr,
}

impl Browser {
    /// A browser whose names all lead to `router`.
    pub(crate) fn new(router: SocketAddr) -> Self {
        Self { client: Client::keeping_alive(), router }
    }

    /// Asks for `url`.
    pub(crate) async fn get(&self, url: &str) -> Result<HttpResponse, Box<dyn Error + Send + Sync>> {
        let url = HttpUrl::new(url)?;
        Ok(self.client.get(self.router, url.authority(), url.path(), PATIENCE).await?)
    }

    /// Returns once the API knows that the feature is on for `percent`: it follows the store by itself, a moment behind.
    pub(crate) async fn until_rolled_out(
        &self,
        api: &str,
        percent: f64,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for _ in 0..1_000 {
            if self.get(&format!("{api}/rollout")).await?.text() == percent.to_string() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{api} does not follow the flag to {percent} %").into())
    }

    /// The users among `count` whom the API gives the new checkout.
    pub(crate) async fn exposed(
        &self,
        api: &str,
        count: u32,
    ) -> Result<BTreeSet<u32>, Box<dyn Error + Send + Sync>> {
        let mut exposed = BTreeSet::new();
        for user in 0..count {
            let answer = self.get(&format!("{api}/checkout?user=user-{user}")).await?;
            if answer.status != 200 {
                return Err(format!("user-{user} was answered with status {}", answer.status).into());
            }
            if answer.text().contains("new") {
                exposed.insert(user);
            }
        }
        Ok(exposed)
    }
}

/// Requests that go on all the while.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    users: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// One user for each of `urls`, asking again as soon as an answer came.
    pub(crate) fn start(browser: &Browser, urls: impl IntoIterator<Item = String>) -> Self {
        let (stop, sent, failed) = (Arc::default(), Arc::default(), Arc::default());
        let users = urls
            .into_iter()
            .map(|url| {
                tokio::spawn(user(
                    browser.clone(),
                    url,
                    Arc::clone(&stop),
                    Arc::clone(&sent),
                    Arc::clone(&failed),
                ))
            })
            .collect();
        Self { stop, sent, failed, users }
    }

    /// Stops once each user has asked at least 100 times; how many requests were sent, and how many of them failed.
    pub(crate) async fn stop(self) -> (u64, u64) {
        while self.sent.load(Ordering::Relaxed) < 200 && !self.users.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        for user in self.users {
            let _ended = user.await;
        }
        (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

async fn user(
    browser: Browser,
    url: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
) {
    while !stop.load(Ordering::Relaxed) {
        sent.fetch_add(1, Ordering::Relaxed);
        match browser.get(&url).await {
            Ok(answer) if answer.status == 200 => {}
            _ => {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
