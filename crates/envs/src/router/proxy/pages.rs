//! What the router itself answers: short texts that say which environment and component failed, and how.

use hyper::{
    Method, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue},
};

use super::{fields, lanes::Entry, reply::Reply};

/// A page of plain text.
pub(super) fn page(status: StatusCode, text: &str) -> Response<Reply> {
    let reason = status.canonical_reason().unwrap_or("error").to_ascii_lowercase();
    let mut response =
        Response::new(Reply::whole(Bytes::from(format!("{} {reason}\n{text}\n", status.as_u16()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page about a request that cannot be understood; the connection ends with it.
pub(super) fn malformed(text: &str) -> Response<Reply> {
    let mut response = page(StatusCode::BAD_REQUEST, text);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A page about a target that failed, in the name of its environment and component.
pub(super) fn failed(status: StatusCode, entry: &Entry, what: &str) -> Response<Reply> {
    let route = &entry.route;
    let mut text = format!("`{}` of environment `{}` {what}", route.component, route.served_by());
    if route.falls_through_to.is_some() {
        text = format!("{text}\n(asked for at `{}`, which falls through to it)", route.owner);
    }
    let mut response = page(status, &text);
    fields::answered(response.headers_mut(), entry);
    response
}

/// 405 for a target that only allows some methods.
pub(super) fn not_allowed(allowed: &'static str, method: &Method) -> Response<Reply> {
    let mut response =
        page(StatusCode::METHOD_NOT_ALLOWED, &format!("`{method}` is not answered here, only {allowed}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
