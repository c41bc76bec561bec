//! A small HTTP/1.1 client for probes and traffic on this host: the connection goes to an address, the `Host` field says another name.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flowline_core::error::{BoxError, ErrorKind, Kinded};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Uri,
    body::Bytes,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
    http::uri::PathAndQuery,
};

use super::{
    HttpResponse,
    connection::{Connection, Pool, PooledBody},
};

/// How much of a body is kept unless told: 1 MiB.
const BODY: usize = 1024 * 1024;

/// A client for many requests at once. Clones share its connections.
///
/// ```
/// use flowline_envs::probe::{Client, Reply, serve};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
/// let server = serve(([127, 0, 0, 1], 0).into(), |request| async move { Reply::text(format!("{} at {}", request.path, request.host)) }).await?;
/// let response = Client::new().get(server.address(), "app.localhost:8080", "/x", Duration::from_secs(5)).await?;
/// assert_eq!(response.text(), "/x at app.localhost:8080");
/// # server.stop(Duration::from_secs(5)).await;
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    keep_alive: bool,
    body: usize,
    pools: Mutex<BTreeMap<SocketAddr, Arc<Pool<Full<Bytes>>>>>,
}

impl Client {
    /// A client that opens a connection for each request, as a probe should: it then sees what a newcomer would.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// A client that keeps connections for later requests, for traffic.
    pub fn keeping_alive() -> Self {
        Self::with(true)
    }

    fn with(keep_alive: bool) -> Self {
        Self { shared: Arc::new(Shared { keep_alive, body: BODY, pools: Mutex::default() }) }
    }

    /// `GET path` from the server at `address` for `host`, all within `limit`. At most 1 MiB of the body is kept.
    ///
    /// # Errors
    /// [`HttpError`], by what failed. A response with any status is no error.
    pub async fn get(
        &self,
        address: SocketAddr,
        host: &str,
        path: &str,
        limit: Duration,
    ) -> Result<HttpResponse, HttpError> {
        self.send(address, ClientRequest::get(host, path), limit).await
    }

    /// Sends `request` to the server at `address`, all within `limit`.
    ///
    /// A request that met a kept connection which the server had just closed is sent once more if nothing of it was written, or if it is
    /// a `GET` or `HEAD`.
    ///
    /// # Errors
    /// [`HttpError`], by what failed. A response with any status is no error.
    pub async fn send(
        &self,
        address: SocketAddr,
        request: ClientRequest,
        limit: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let name = format!("{} http://{}{}", request.method, request.host, request.path);
        match tokio::time::timeout(limit, self.exchange(address, &name, request)).await {
            Ok(done) => done,
            Err(_late) => Err(HttpError::TimedOut { request: name, limit }),
        }
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        name: &str,
        request: ClientRequest,
    ) -> Result<HttpResponse, HttpError> {
        let repeatable = matches!(request.method.as_str(), "GET" | "HEAD");
        let mut wire = request.wire(self.shared.keep_alive)?;
        let pool = self.pool(address);
        let mut idle = pool.take(Duration::MAX).await;
        loop {
            let reused = idle.is_some();
            let mut connection = match idle.take() {
                Some(connection) => connection,
                None => Connection::open(address, Duration::MAX)
                    .await
                    .map_err(|source| HttpError::Unreachable { request: name.to_owned(), address, source })?,
            };
            let spare = if reused && repeatable { Some(wire.clone()) } else { None };
            match connection.exchange(wire).await {
                Ok(response) => {
                    let (parts, incoming) = response.into_parts();
                    let body = PooledBody::new(incoming, connection, pool).await;
                    let broken = |source: hyper::Error| HttpError::Broken {
                        request: name.to_owned(),
                        source: source.into(),
                    };
                    let (body, truncated) = self.collect(body).await.map_err(broken)?;
                    let headers = parts
                        .headers
                        .iter()
                        .map(|(name, value)| {
                            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                        })
                        .collect();
                    return Ok(HttpResponse { status: parts.status.as_u16(), headers, body, truncated });
                }
                Err(mut error) => {
                    let Some(again) = error.take_message().filter(|_| reused).or(spare) else {
                        let source = error.into_error().into();
                        return Err(HttpError::Broken { request: name.to_owned(), source });
                    };
                    wire = again;
                }
            }
        }
    }

    /// The body up to the limit, and whether it was longer.
    async fn collect(&self, mut body: PooledBody<Full<Bytes>>) -> Result<(Vec<u8>, bool), hyper::Error> {
        let mut kept = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                let room = self.shared.body - kept.len();
                kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                if data.len() > room {
                    return Ok((kept, true));
                }
            }
        }
        Ok((kept, false))
    }

    fn pool(&self, address: SocketAddr) -> Arc<Pool<Full<Bytes>>> {
        let mut pools = self.shared.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if self.shared.keep_alive { 64 } else { 0 };
        let pool = pools.entry(address).or_insert_with(|| Arc::new(Pool::new(most, Duration::from_secs(4))));
        Arc::clone(pool)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("keep_alive", &self.shared.keep_alive).finish_non_exhaustive()
    }
}

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// The `Host` field.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Further fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl ClientRequest {
    /// A `GET`.
    pub fn get(host: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new("GET", host, path)
    }

    /// A request with any method.
    pub fn new(method: impl Into<String>, host: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            host: host.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// With another field.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn wire(self, keep_alive: bool) -> Result<Request<Full<Bytes>>, HttpError> {
        let name = format!("{} http://{}{}", self.method, self.host, self.path);
        let malformed = |source: BoxError| HttpError::Malformed { request: name.clone(), source };
        let mut request = Request::new(Full::new(Bytes::from(self.body)));
        *request.method_mut() =
            Method::from_bytes(self.method.as_bytes()).map_err(|error| malformed(error.into()))?;
        let path = PathAndQuery::try_from(self.path).map_err(|error| malformed(error.into()))?;
        *request.uri_mut() = Uri::from(path);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(self.host).map_err(|error| malformed(error.into()))?);
        headers.insert(USER_AGENT, HeaderValue::from_static("flowline"));
        if !keep_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).map_err(|error| malformed(error.into()))?;
            headers.append(name, HeaderValue::try_from(value).map_err(|error| malformed(error.into()))?);
        }
        Ok(request)
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request itself is not HTTP.
    #[error("cannot send `{request}`: it is not a valid request")]
    Malformed {
        /// Method and address.
        request: String,
        /// What is wrong.
        #[source]
        source: BoxError,
    },
    /// No connection could be made.
    #[error("cannot send `{request}`: nothing answers at {address}")]
    Unreachable {
        /// Method and address.
        request: String,
        /// Where the connection was to go.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the response did, or what came was not HTTP.
    #[error("`{request}` was not answered to the end")]
    Broken {
        /// Method and address.
        request: String,
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// The limit passed.
    #[error("`{request}` was not answered within {limit:?}")]
    TimedOut {
        /// Method and address.
        request: String,
        /// The limit that was given.
        limit: Duration,
    },
}

impl Kinded for HttpError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } => ErrorKind::Invalid,
            Self::Unreachable { .. } | Self::Broken { .. } => ErrorKind::Unavailable,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
        }
    }
}
