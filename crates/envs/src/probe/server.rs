//! A small HTTP/1.1 server for components that want one without a framework: one async function answers each request.

use std::{collections::BTreeMap, convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue},
    service::service_fn,
};
use serde::Serialize;
use tokio::net::TcpListener;

use super::accept::{Accepting, ServerLimits};

/// How long a request's body may be.
const BODY: usize = 1024 * 1024;

/// A request as a handler sees it, its body whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// The `Host` field as it was sent; empty if there was none.
    pub host: String,
    /// The path, percent-encoding left as it is.
    pub path: String,
    /// What stands after the `?`; empty if nothing does.
    pub query: String,
    /// The fields, names in lower case; of several with one name all, joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The body, at most 1 MiB (longer ones are answered with 413).
    pub body: Vec<u8>,
}

impl ServedRequest {
    /// The value of `name` in the query, percent-encoding left as it is.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// The value of a field, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What a handler answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// 200 with plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new("text/plain; charset=utf-8", text.into())
    }

    /// 200 with a page of HTML.
    pub fn html(html: impl Into<String>) -> Self {
        Self::new("text/html; charset=utf-8", html.into())
    }

    /// 200 with `value` as JSON; 500 if it cannot be written as such.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new("application/json", body),
            Err(error) => Self::text(format!("the answer is not JSON: {error}")).with_status(500),
        }
    }

    /// 200 with any content.
    pub fn new(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    /// With another status, 100 to 999; anything else is sent as 500.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With another field. One that is not valid in HTTP is left out.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn wire(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                if name == CONTENT_TYPE {
                    response.headers_mut().insert(name, value);
                } else {
                    response.headers_mut().append(name, value);
                }
            }
        }
        response
    }
}

/// A running server. Dropping it ends it at once.
pub struct Server {
    address: SocketAddr,
    accepting: Accepting,
}

impl Server {
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets requests in flight finish for at most `limit`, then cuts what is left. Says how many connections were cut.
    pub async fn stop(&self, limit: Duration) -> usize {
        self.accepting.stop(limit).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Answers requests to `address` (port 0: the system chooses one) with `handler`, many at once. Runs on the present tokio runtime.
///
/// ```
/// use flowline_envs::probe::{Reply, serve};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
/// let server = serve(([127, 0, 0, 1], 0).into(), |request| async move {
///     match request.path.as_str() {
///         "/cool" => Reply::json(&serde_json::json!({ "greeting": "hello" })),
///         _ => Reply::text("there is only /cool").with_status(404),
///     }
/// })
/// .await?;
/// # drop(server);
/// # Ok(()) })
/// # }
/// ```
///
/// # Errors
/// What the system says if the address cannot be listened on.
pub async fn serve<H, F>(address: SocketAddr, handler: H) -> io::Result<Server>
where
    H: Fn(ServedRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    serve_on(TcpListener::bind(address).await?, &ServerLimits::default(), handler)
}

/// As [`serve`], on a listener that is there already, such as an inherited one, with `limits`.
///
/// # Errors
/// What the system says if the listener has no address.
pub fn serve_on<H, F>(listener: TcpListener, limits: &ServerLimits, handler: H) -> io::Result<Server>
where
    H: Fn(ServedRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let address = listener.local_addr()?;
    let handler = Arc::new(handler);
    let accepting = Accepting::start(listener, limits, move |_peer, heads| {
        let handler = Arc::clone(&handler);
        service_fn(move |request| {
            let handler = Arc::clone(&handler);
            let two_lengths = heads.has_two_lengths(&request);
            async move {
                if two_lengths {
                    let refused = Reply::text("the request tells its length twice").with_status(400);
                    return Ok(refused.with_header("connection", "close").wire());
                }
                let reply = match read(request).await {
                    Ok(request) => handler(request).await,
                    Err(refused) => refused,
                };
                Ok::<_, Infallible>(reply.wire())
            }
        })
    });
    Ok(Server { address, accepting })
}

async fn read(request: Request<Incoming>) -> Result<ServedRequest, Reply> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY).collect().await {
        Ok(body) => body.to_bytes().into(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Reply::text(format!("the body is longer than {BODY} bytes")).with_status(413));
        }
        Err(error) => {
            return Err(Reply::text(format!("the body did not come to its end: {error}")).with_status(400));
        }
    };
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    Ok(ServedRequest {
        method: parts.method.as_str().to_owned(),
        host: headers.get(HOST.as_str()).cloned().unwrap_or_default(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers,
        body,
    })
}
