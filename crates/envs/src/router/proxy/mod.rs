//! The HTTP/1.1 reverse proxy: serves a table of routes on one address of this host.

mod fields;
mod files;
mod forward;
mod lanes;
mod pages;
mod reply;

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{HOST, HeaderValue},
    service::service_fn,
};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use self::{
    lanes::{Lanes, NoRoute},
    pages::{failed, malformed, page},
    reply::Reply,
};
use super::{Drained, RouteDiff, RouteTable, Router, RouterCapabilities, RouterError, Target};
use crate::probe::accept::{Accepting, ServerLimits};

/// What the router waits for and keeps at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterLimits {
    /// Limits towards clients.
    pub server: ServerLimits,
    /// Time to connect to an upstream. 5 seconds unless told.
    pub connect: Duration,
    /// Time for an upstream to begin its response, counted from the end of the request; also how long a client may pause within a body.
    /// 60 seconds unless told. The response itself may take as long as it likes.
    pub response: Duration,
    /// Idle connections kept to each upstream. 128 unless told.
    pub idle_connections: usize,
    /// How long a connection to an upstream is kept idle. 4 seconds unless told, which is less than common servers keep theirs, so that
    /// the router is the one to close it.
    pub idle_for: Duration,
    /// Whether another proxy stands before this one, whose `Forwarded` and `X-Forwarded-*` fields are true. Not unless told: they are
    /// then replaced by what is known here.
    pub trust_forwarded: bool,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            server: ServerLimits::default(),
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            idle_connections: 128,
            idle_for: Duration::from_secs(4),
            trust_forwarded: false,
        }
    }
}

impl RouterLimits {
    /// With other limits towards clients.
    #[must_use]
    pub fn with_server(mut self, server: ServerLimits) -> Self {
        self.server = server;
        self
    }

    /// With `limit` for an upstream to begin its response.
    #[must_use]
    pub fn with_response(mut self, limit: Duration) -> Self {
        self.response = limit;
        self
    }

    /// With another proxy before this one, whose forwarding fields are true.
    #[must_use]
    pub fn trusting_forwarded(mut self) -> Self {
        self.trust_forwarded = true;
        self
    }
}

/// A [`Router`] that is an HTTP/1.1 reverse proxy in this process.
///
/// Requests and responses are streamed, never held whole; connections to upstreams are kept and used again; other protocols over HTTP's
/// `Upgrade` (WebSocket) pass through. Looking up a route takes no lock. Responses carry `x-flowline-environment` and
/// `x-flowline-served-by` (`production/api`); upstreams get `x-flowline-asked` (the environment whose address was used), `Via`,
/// `X-Forwarded-For`, `-Host`, `-Proto`, and `-Prefix` where the path was rewritten. An upstream's own `Location`, `Content-Location` and
/// cookie paths are then moved back below the route's path.
///
/// Clones share the router. It serves until [`shutdown`](Self::shutdown), or until the last clone is dropped, which cuts what is in
/// flight. Runs on the tokio runtime in which it was bound, or on a thread of its own
/// ([`bind_on_own_thread`](Self::bind_on_own_thread)).
///
/// ```
/// use flowline_envs::{probe::Client, router::{HttpRouter, Route, RouteTable, Router, Target}};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
/// # let files = tempfile::tempdir()?;
/// # std::fs::write(files.path().join("index.html"), "hello")?;
/// let router = HttpRouter::bind(([127, 0, 0, 1], 0).into()).await?;
/// router.apply(RouteTable::new([Route::new(
///     "app.localhost".parse()?, "/".parse()?, Target::Directory(files.path().into()), "production".parse()?, "web".parse()?,
/// )])?).await?;
///
/// let page = Client::new().get(router.address(), "app.localhost", "/", Duration::from_secs(5)).await?;
/// assert_eq!((page.status, page.text()), (200, "hello".into()));
/// assert_eq!(page.header("x-flowline-environment"), Some("production"));
/// router.shutdown(Duration::from_secs(5)).await;
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone)]
pub struct HttpRouter {
    address: SocketAddr,
    inner: Arc<Inner>,
    running: Arc<Running>,
}

/// What connections share.
struct Inner {
    lanes: Lanes,
    limits: RouterLimits,
    tunnels: Mutex<JoinSet<()>>,
}

struct Running {
    accepting: Accepting,
    sweeping: JoinHandle<()>,
    /// Ends the router's own thread, if it has one.
    _thread: Option<oneshot::Sender<Infallible>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sweeping.abort();
    }
}

impl HttpRouter {
    /// Listens on `address` (port 0: the system chooses one, see [`address`](Self::address)) with the usual limits. Every request is
    /// answered with 404 until a table is applied.
    ///
    /// # Errors
    /// [`RouterError::PortTaken`] if somebody else listens there; [`RouterError::Listen`] for anything else that the system objects to.
    pub async fn bind(address: SocketAddr) -> Result<Self, RouterError> {
        Self::bind_with(address, RouterLimits::default()).await
    }

    /// As [`bind`](Self::bind), with `limits`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with(address: SocketAddr, limits: RouterLimits) -> Result<Self, RouterError> {
        Self::start(address, limits, None).await
    }

    /// As [`bind_with`](Self::bind_with), on a thread of the router's own, which ends with its last clone.
    ///
    /// Work that holds up the caller's runtime then holds up no request. One thread serves one processor's worth of requests, with about
    /// half the processor time for each that a runtime of several threads takes while there are few at a time, as no thread wakes another.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); [`RouterError::Backend`] if the system gives no thread.
    pub async fn bind_on_own_thread(address: SocketAddr, limits: RouterLimits) -> Result<Self, RouterError> {
        let (bound, binding) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let no_thread = |source: io::Error| RouterError::Backend {
            doing: "starting its thread".to_owned(),
            transient: true,
            source: source.into(),
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let serve = move || {
            runtime.block_on(async move {
                // Whoever asked may be gone already; the router then goes with the answer.
                let _asked = bound.send(Self::start(address, limits, Some(stop)).await);
                let _stop = stopped.await;
            });
            // A file that is being read must not hold up the end.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("flowline-router".to_owned()).spawn(serve).map_err(no_thread)?;
        let gone = |_| no_thread(io::Error::other("the thread ended"));
        binding.await.map_err(gone)?
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets requests in flight finish for at most `limit`, then cuts what is left. Says how many connections were cut.
    ///
    /// Connections in another protocol (WebSocket) have no end to wait for and are cut at last.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        let cut = self.running.accepting.stop(limit).await;
        let mut tunnels = {
            let mut tunnels = self.inner.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tunnels)
        };
        while tunnels.try_join_next().is_some() {}
        cut + tunnels.len()
    }

    async fn start(
        address: SocketAddr,
        limits: RouterLimits,
        thread: Option<oneshot::Sender<Infallible>>,
    ) -> Result<Self, RouterError> {
        let listening = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => RouterError::PortTaken { address },
            _ => RouterError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let inner = Arc::new(Inner {
            lanes: Lanes::new(limits.idle_connections, limits.idle_for),
            limits,
            tunnels: Mutex::default(),
        });
        let connections = Arc::clone(&inner);
        let accepting = Accepting::start(listener, &inner.limits.server, move |peer, heads| {
            let router = Arc::clone(&connections);
            service_fn(move |request| {
                let router = Arc::clone(&router);
                let two_lengths = heads.has_two_lengths(&request);
                async move {
                    Ok::<_, Infallible>(if two_lengths {
                        malformed(
                            "the request tells its length twice, by `Content-Length` and `Transfer-Encoding`",
                        )
                    } else {
                        router.answer(peer, request).await
                    })
                }
            })
        });
        let sweeping = tokio::spawn(sweep(Arc::downgrade(&inner)));
        Ok(Self { address, inner, running: Arc::new(Running { accepting, sweeping, _thread: thread }) })
    }
}

impl fmt::Debug for HttpRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRouter").field("address", &self.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Router for HttpRouter {
    async fn apply(&self, table: RouteTable) -> Result<RouteDiff, RouterError> {
        if let Some(back) = table.routes().find(|route| route.target == Target::Upstream(self.address)) {
            return Err(RouterError::Loop { route: back.to_string() });
        }
        Ok(self.inner.lanes.apply(&table))
    }

    async fn current(&self) -> Result<RouteTable, RouterError> {
        Ok(self.inner.lanes.current())
    }

    async fn drain(&self, target: &Target, limit: Duration) -> Result<Drained, RouterError> {
        self.inner.lanes.drain(target, limit).await
    }

    fn capabilities(&self) -> RouterCapabilities {
        RouterCapabilities { rewrites: true, directories: true, drains: true }
    }
}

impl Inner {
    /// Answers one request.
    async fn answer(self: Arc<Self>, peer: SocketAddr, mut request: Request<Incoming>) -> Response<Reply> {
        if request.method() == Method::CONNECT {
            return pages::not_allowed("anything but CONNECT", request.method());
        }
        let host = match host(&mut request) {
            Ok(host) => host,
            Err(problem) => return malformed(problem),
        };
        let host = host.to_str().unwrap_or_default();
        let (passage, rest) = match self.lanes.enter(host, request.uri().path()) {
            Ok((passage, rest)) => (passage, rest.len()),
            Err(no) => return self.no_route(&no, host, peer),
        };
        let entry = Arc::clone(&passage.entry);
        match &entry.route.target {
            Target::Upstream(_) => forward::forward(&self, passage, rest, peer, request).await,
            Target::Directory(root) => {
                let path = request.uri().path();
                let rest = path.get(path.len().saturating_sub(rest)..).unwrap_or_default();
                let path = passage.target_path(rest).into_owned();
                files::serve(root, &path, request.uri(), request.method(), request.headers(), passage).await
            }
            Target::Unavailable(because) => {
                failed(StatusCode::SERVICE_UNAVAILABLE, &entry, &format!("is not available: {because}"))
            }
        }
    }

    fn no_route(&self, no: &NoRoute, host: &str, peer: SocketAddr) -> Response<Reply> {
        let mut text = match no {
            NoRoute::Malformed => return malformed("the `Host` field does not name a host"),
            NoRoute::Host => format!("nothing is served at host `{host}`"),
            NoRoute::Path => format!("nothing is served at this path of host `{host}`"),
        };
        // What is served here is nobody's business but that of whoever works on this host.
        if peer.ip().to_canonical().is_loopback() {
            let table = self.lanes.current();
            text.push_str("\nserved here:");
            for route in table.routes() {
                text = format!("{text}\n  {}{}", route.host, route.path);
            }
            if table.is_empty() {
                text.push_str(" nothing yet");
            }
        }
        page(StatusCode::NOT_FOUND, &text)
    }

    /// Lets `tunnel` run until it ends or the router does.
    fn tunnel(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn(tunnel);
    }
}

/// The host that a request is for, which its `Host` field then says (RFC 9112, section 3.2).
fn host(request: &mut Request<Incoming>) -> Result<HeaderValue, &'static str> {
    if let Some(authority) = request.uri().authority() {
        if authority.as_str().contains('@') {
            return Err("the address must not carry a user name");
        }
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| "the address does not name a host")?;
        if request.headers().get_all(HOST).iter().count() > 1 {
            return Err("there is more than one `Host` field");
        }
        request.headers_mut().insert(HOST, host.clone());
        return Ok(host);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.clone()),
        (Some(_), Some(_)) => Err("there is more than one `Host` field"),
        (None, _) if request.version() == Version::HTTP_11 => Err("there is no `Host` field"),
        (None, _) => Err("there is no `Host` field, and nothing can be found without it"),
    }
}

/// Closes idle connections in time, as long as the router lives.
async fn sweep(router: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(router) = router.upgrade() else { return };
        router.lanes.sweep();
    }
}
