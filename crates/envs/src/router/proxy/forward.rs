//! One request to an upstream: over an idle connection if there is one, again where that is safe, and its response back as it comes.
//!
//! A request is sent again only if nothing can have happened yet: the connection was refused; or hyper gives the request back because it
//! wrote nothing of it; or an idle connection turned out to be closed before a byte of the response came, and the request is idempotent
//! and has no body (RFC 9110, section 9.2.2).

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use flowline_core::error::chain;
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::HOST,
    http::uri::PathAndQuery,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;

use super::{
    super::Target,
    Inner, fields,
    lanes::Passage,
    pages::{failed, malformed},
    reply::Reply,
};
use crate::probe::connection::{Connection, PooledBody};

/// Waits between attempts to connect: a target that is being replaced may refuse until the new table is applied.
const PATIENCE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// What can't be sent again goes over a connection that was used this recently, or a new one: no server closes one so soon, unless it ends.
const FRESH: Duration = Duration::from_millis(500);

/// A client's body on its way to an upstream, and how far it came.
pub(crate) struct RequestBody {
    incoming: Option<(Incoming, Arc<Progress>)>,
}

#[derive(Default)]
struct Progress {
    frames: AtomicU64,
}

/// That a body was passed on to its end.
const ENDED: u64 = u64::MAX;

impl RequestBody {
    fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self { incoming: None };
        }
        Self { incoming: Some((incoming, Arc::default())) }
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        self.incoming.as_ref().map(|(_, progress)| Arc::clone(progress))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some((incoming, progress)) = &mut self.get_mut().incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
        if frame.is_none() || incoming.is_end_stream() {
            progress.frames.store(ENDED, Relaxed);
        } else {
            progress.frames.fetch_add(1, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}

/// Sends `request` to the upstream of `passage` and answers with what it says, or with a page about what went wrong.
pub(super) async fn forward(
    router: &Inner,
    mut passage: Passage,
    mut rest: usize,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Reply> {
    let client = fields::wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    if fields::has_gone_in_circles(request.headers()) {
        return failed(StatusCode::LOOP_DETECTED, &passage.entry, "leads back here, over and over");
    }
    fields::end_hop(request.headers_mut(), client.is_some());
    fields::forwarded(request.headers_mut(), peer, router.limits.trust_forwarded);
    *request.version_mut() = Version::HTTP_11;
    let asked = request.uri().clone();
    let mut request = request.map(RequestBody::new);
    let progress = request.body().progress();
    let replayable = progress.is_none() && client.is_none() && is_idempotent(request.method());

    let mut attempt = 0;
    loop {
        let Target::Upstream(address) = passage.entry.route.target else {
            return failed(StatusCode::SERVICE_UNAVAILABLE, &passage.entry, "was replaced; ask again");
        };
        match upstream_uri(&passage, rest, &asked) {
            Some(Ok(uri)) => *request.uri_mut() = uri,
            Some(Err(_)) => return malformed("the path cannot be passed on"),
            None => {}
        }
        fields::routed(request.headers_mut(), &passage.entry);

        let pool = &passage.entry.lane.pool;
        let recently = if replayable { Duration::MAX } else { FRESH };
        let idle = if attempt == 0 { pool.take(recently).await } else { None };
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => match Connection::open(address, router.limits.connect).await {
                Ok(connection) => connection,
                Err(error) => {
                    let Some(wait) = PATIENCE.get(attempt) else { return unreachable(&passage, &error) };
                    attempt += 1;
                    tokio::time::sleep(*wait).await;
                    let host =
                        request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
                    if let Ok((now, below)) = router.lanes.enter(host, asked.path()) {
                        rest = below.len();
                        passage = now;
                    }
                    continue;
                }
            },
        };

        let spare = if reused && replayable { Some(copy_of(&request)) } else { None };
        match within(router.limits.response, progress.as_deref(), connection.exchange(request)).await {
            Ok(Ok(response)) => return relay(router, passage, connection, client, response).await,
            Ok(Err(mut error)) => {
                let again = error.take_message().or(spare);
                match again {
                    Some(again) if attempt < PATIENCE.len() => request = again,
                    _ => {
                        let error = error.into_error();
                        let what = format!("broke off before it answered ({})", chain(&error));
                        return failed(StatusCode::BAD_GATEWAY, &passage.entry, &what);
                    }
                }
                attempt += 1;
            }
            Err(Stalled::Upstream) => {
                let what = format!("did not answer within {:?}", router.limits.response);
                return failed(StatusCode::GATEWAY_TIMEOUT, &passage.entry, &what);
            }
            Err(Stalled::Client) => {
                let what = format!("got no more of the request's body for {:?}", router.limits.response);
                return failed(StatusCode::REQUEST_TIMEOUT, &passage.entry, &what);
            }
        }
    }
}

/// Who kept a request waiting for too long.
enum Stalled {
    Upstream,
    Client,
}

/// Waits for `exchange`, at most `limit` after the last piece of the request's body.
async fn within<T>(
    limit: Duration,
    progress: Option<&Progress>,
    exchange: impl Future<Output = T>,
) -> Result<T, Stalled> {
    let mut exchange = pin!(exchange);
    let mut seen = 0;
    loop {
        if let Ok(done) = tokio::time::timeout(limit, exchange.as_mut()).await {
            return Ok(done);
        }
        match progress.map(|progress| progress.frames.load(Relaxed)) {
            None => return Err(Stalled::Upstream),
            Some(now) if now == seen => {
                return Err(if now == ENDED { Stalled::Upstream } else { Stalled::Client });
            }
            Some(now) => seen = now,
        }
    }
}

/// Passes an upstream's response on.
async fn relay(
    router: &Inner,
    passage: Passage,
    connection: Connection<RequestBody>,
    client: Option<OnUpgrade>,
    mut response: Response<Incoming>,
) -> Response<Reply> {
    *response.version_mut() = Version::HTTP_11;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    fields::end_hop(response.headers_mut(), upgraded);
    fields::unrewrite(response.headers_mut(), &passage.entry);
    fields::answered(response.headers_mut(), &passage.entry);
    if upgraded {
        let Some(client) = client else {
            return failed(StatusCode::BAD_GATEWAY, &passage.entry, "switched protocols without being asked");
        };
        let upstream = hyper::upgrade::on(&mut response);
        router.tunnel(tunnel(passage, connection, client, upstream));
        return response.map(|_| Reply::whole(Bytes::new()));
    }
    let (parts, incoming) = response.into_parts();
    let pool = Arc::clone(&passage.entry.lane.pool);
    let body = PooledBody::new(incoming, connection, pool).await;
    Response::from_parts(parts, Reply::upstream(body, passage))
}

/// Passes bytes both ways until one side is done. The request stays in flight for so long.
async fn tunnel(
    passage: Passage,
    connection: Connection<RequestBody>,
    client: OnUpgrade,
    upstream: OnUpgrade,
) {
    let _passage = passage;
    let driver = connection.into_driver();
    let drive = async {
        if let Some(driver) = driver {
            // Its end is the upgrade; an error shows at the other end of `upstream`.
            let _over = driver.await;
        }
    };
    let pass = async {
        if let Ok((client, upstream)) = tokio::try_join!(client, upstream) {
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // Either side may leave whenever it likes; the other then sees the end.
            let _passed = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        }
    };
    tokio::join!(drive, pass);
}

fn unreachable(passage: &Passage, error: &io::Error) -> Response<Reply> {
    if error.kind() == io::ErrorKind::TimedOut {
        return failed(StatusCode::GATEWAY_TIMEOUT, &passage.entry, "took too long to accept a connection");
    }
    failed(StatusCode::BAD_GATEWAY, &passage.entry, &format!("cannot be reached ({error})"))
}

/// The address that the upstream sees, if it is another than what was asked for.
fn upstream_uri(passage: &Passage, rest: usize, asked: &Uri) -> Option<Result<Uri, hyper::http::Error>> {
    let path = asked.path();
    if passage.entry.route.rewrite.is_none() {
        // The absolute form is for proxies; an upstream gets the origin form.
        return asked.authority().map(|_| {
            let path = asked.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            Uri::builder().path_and_query(path).build()
        });
    }
    let rest = path.get(path.len().saturating_sub(rest)..).unwrap_or_default();
    let mut target = passage.target_path(rest).into_owned();
    if let Some(query) = asked.query() {
        target.push('?');
        target.push_str(query);
    }
    Some(Uri::builder().path_and_query(target).build())
}

/// RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

/// A copy of a request without a body.
fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody { incoming: None });
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
