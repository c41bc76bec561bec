//! The storefront's API, and the command that smokes it. Both are this very executable, started again; what the API does comes from the
//! files of its release, so a broken release is other files and nothing is compiled while the story runs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use flowline::{
    core::{clock::SystemClock, id::ScopeId, store::SqliteStore},
    delivery::Exposure,
    envs::probe::{Client, HttpUrl, Reply, ServedRequest, serve},
    toggles::{Context, Toggles, flags::Flags, format::flowline::FlagKey},
};

/// The flag that this service asks.
const FLAG: &str = "new-checkout";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// `serve-api --release DIR --port N --environment NAME --flags DIR`: answers until it is told to stop.
///
/// | path | answer |
/// | --- | --- |
/// | `/cool/health` | that it runs |
/// | `/cool/products` | the release's price list |
/// | `/cool/version` | the release's version |
/// | `/cool/rollout` | the share of users that it knows of, in percent |
/// | `/cool/checkout?user=U` | `{"checkout":"new"}` for whom the flag is on |
pub(crate) async fn serve_api(
    release: PathBuf,
    port: u16,
    environment: String,
    flags: PathBuf,
) -> Result<(), Failure> {
    let store = Arc::new(SqliteStore::open(flags)?);
    let scope: ScopeId = environment.parse()?;
    let flags = Flags::open(Arc::<SqliteStore>::clone(&store), Arc::new(SystemClock)).await?;
    let service = Arc::new(Service {
        release,
        toggles: flags.toggles(&scope),
        flags: flags.clone(),
        scope: scope.clone(),
        exposure: Exposure::new(store, Arc::new(SystemClock), &scope, FLAG)?,
    });
    // Changes of a flag arrive while requests are answered; a store that fails for a moment is followed again.
    tokio::spawn(async move {
        loop {
            let _failed = flags.follow().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let server = serve(SocketAddr::from(([127, 0, 0, 1], port)), move |request| {
        let service = Arc::clone(&service);
        async move { service.answer(&request).await }
    })
    .await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    terminate.recv().await;
    server.stop(Duration::from_secs(5)).await;
    Ok(())
}

struct Service {
    release: PathBuf,
    toggles: Toggles,
    flags: Flags,
    scope: ScopeId,
    exposure: Exposure,
}

impl Service {
    async fn answer(&self, request: &ServedRequest) -> Reply {
        let file = |name: &str| std::fs::read_to_string(self.release.join(name));
        match request.path.as_str() {
            "/cool/health" => Reply::text("ok"),
            "/cool" | "/cool/" => Reply::text("The storefront's API"),
            "/cool/version" => file("VERSION").map_or_else(broken, |version| Reply::text(version.trim())),
            "/cool/products" => {
                match file("products.json").map(|text| serde_json::from_str::<serde_json::Value>(&text)) {
                    Ok(Ok(products)) => Reply::json(&products),
                    Ok(Err(error)) => broken(error),
                    Err(error) => broken(error),
                }
            }
            "/cool/rollout" => match FlagKey::new(FLAG) {
                Ok(flag) => {
                    Reply::text(self.flags.effective(&self.scope, &flag).rollout.as_f64().to_string())
                }
                Err(error) => broken(error),
            },
            "/cool/checkout" => {
                let Some(user) = request.query_value("user") else {
                    return Reply::text("who asks?").with_status(400);
                };
                let new = self.toggles.is_on(FLAG, &Context::new(user));
                if new {
                    // If who had it first can't be written down, the next one is tried; the user gets the feature all the same.
                    let _tried_again = self.exposure.note(user).await;
                }
                Reply::json(&serde_json::json!({ "checkout": if new { "new" } else { "old" } }))
            }
            _ => Reply::text("no such page").with_status(404),
        }
    }
}

fn broken(error: impl std::fmt::Display) -> Reply {
    Reply::text(format!("broken: {error}")).with_status(500)
}

/// `smoke --web URL --api URL`: buys nothing, but looks at what a buyer would look at. The router's address is that of the URLs' port.
pub(crate) async fn smoke(web: &str, api: &str) -> Result<(), Failure> {
    let client = Client::new();
    for (base, path, expected) in
        [(web, "", "Storefront"), (api, "/products", "Lantern"), (api, "/checkout?user=smoke", "checkout")]
    {
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let parsed = HttpUrl::new(&url)?;
        let router = SocketAddr::from(([127, 0, 0, 1], parsed.port()));
        let response = client.get(router, parsed.authority(), parsed.path(), Duration::from_secs(10)).await?;
        if response.status != 200 || !response.text().contains(expected) {
            return Err(
                format!("GET {url}: status {}, and no `{expected}` in the answer", response.status).into()
            );
        }
    }
    Ok(())
}
