//! [`PlainHttp`]: requests over HTTP/1.1 without TLS, on tokio.

use async_trait::async_trait;
use http_body_util::{BodyExt, Full};
use hyper::{Uri, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Fetch, Request, Response, SourceError};

/// Speaks plain HTTP/1.1, a connection for each request (sources ask every few seconds at most). Needs a tokio runtime with its I/O driver.
///
/// `https` is an error here: plug in a [`Fetch`] of your own that brings TLS.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainHttp;

#[async_trait]
impl Fetch for PlainHttp {
    async fn fetch(&self, request: Request) -> Result<Response, SourceError> {
        let place = request.url.clone();
        let unusable =
            |problem: String| SourceError::Unusable { place: place.clone(), problem, source: None };
        let uri: Uri = request.url.parse().map_err(|error| unusable(format!("it is no URL: {error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(unusable("only `http` is spoken here; bring a `Fetch` with TLS".to_owned()));
        }
        let authority = uri.authority().ok_or_else(|| unusable("the URL names no host".to_owned()))?.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let unavailable = |error: flowline_core::error::BoxError| SourceError::Unavailable {
            place: place.clone(),
            source: error,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut built = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(path)
            .header(HOST, authority.as_str());
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        let built = built
            .body(Full::new(Bytes::from(request.body)))
            .map_err(|error| unusable(format!("a header is not well-formed: {error}")))?;
        let stream = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(80)))
            .await
            .map_err(|error| unavailable(error.into()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(error.into()))?;
        // Driven beside the request, in the same task: dropping the future drops the connection.
        let mut connection = std::pin::pin!(async {
            // Its errors come through the answer, too.
            let _ended = connection.await;
            std::future::pending::<()>().await;
        });
        let answer = async {
            let answer = sender.send_request(built).await.map_err(|error| unavailable(error.into()))?;
            let status = answer.status().as_u16();
            let headers = answer
                .headers()
                .iter()
                .map(|(name, value)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                })
                .collect();
            let mut incoming = answer.into_body();
            let mut body = Vec::new();
            while let Some(frame) = incoming.frame().await {
                let frame = frame.map_err(|error| unavailable(error.into()))?;
                let Some(data) = frame.data_ref() else { continue };
                if body.len() + data.len() > request.limit {
                    return Err(SourceError::TooLarge { place: place.clone(), limit: request.limit });
                }
                body.extend_from_slice(data);
            }
            Ok(Response { status, headers, body })
        };
        match super::race::race(answer, connection.as_mut()).await {
            super::race::First::One(answer) => answer,
            super::race::First::Other(()) => Err(unusable("the connection ended".to_owned())),
        }
    }
}
