//! The HTTP router over real sockets on loopback.

#[cfg(unix)]
mod files;
mod hostile;
mod load;
mod proxying;

use std::{fmt::Write as _, net::SocketAddr, path::Path, time::Duration};

use flowline_envs::{
    probe::{Client, HttpResponse, Reply, Server, serve},
    router::{HttpRouter, Route, RouteTable, Router, Target},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A route of `production` whose component is called `component`.
fn route(host: &str, path: &str, target: impl Into<Target>, component: &str) -> Route {
    Route::new(
        host.parse().unwrap(),
        path.parse().unwrap(),
        target.into(),
        "production".parse().unwrap(),
        component.parse().unwrap(),
    )
}

/// A router that serves `routes`.
async fn routing(routes: impl IntoIterator<Item = Route>) -> HttpRouter {
    let router = HttpRouter::bind(loopback()).await.unwrap();
    router.apply(RouteTable::new(routes).unwrap()).await.unwrap();
    router
}

/// A router whose only host `app.localhost` is served from `root`.
async fn serving(root: &Path) -> HttpRouter {
    routing([route("app.localhost", "/", root, "web")]).await
}

/// An upstream that answers with its name, the path that it sees and the fields that start with `x-` or `via`.
async fn echo(name: &'static str) -> Server {
    serve(loopback(), move |request| async move {
        let mut text = format!("{name} {} {}", request.method, request.path);
        if !request.query.is_empty() {
            write!(text, "?{}", request.query).unwrap();
        }
        write!(text, "\nhost: {}", request.host).unwrap();
        for (name, value) in &request.headers {
            if name.starts_with("x-") || ["via", "connection", "te", "forwarded"].contains(&name.as_str()) {
                write!(text, "\n{name}: {value}").unwrap();
            }
        }
        if !request.body.is_empty() {
            write!(text, "\n{} bytes of body", request.body.len()).unwrap();
        }
        Reply::text(text)
    })
    .await
    .unwrap()
}

async fn get(router: &HttpRouter, host: &str, path: &str) -> HttpResponse {
    Client::new().get(router.address(), host, path, LIMIT).await.unwrap()
}

/// What comes back for bytes as they are, until the other side closes; the sending side stays open.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open")
        .ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_router_keeps_the_contract() {
    let router = HttpRouter::bind(loopback()).await.unwrap();
    let (client, address) = (Client::new(), router.address());
    let send = async |host: String, path: String| client.get(address, &host, &path, LIMIT).await;
    flowline_envs::testkit::router::suite(&router, send).await.verdict().unwrap();
}
