//! Files of a static component, straight from a directory that may be switched at any moment.
//!
//! The directory (usually a `current` link) is resolved anew for each request, and a file must lie below it after all links are followed.
//! A link inside that leads out is answered with 404, as is every path with `..`, a hidden segment or an escaped separator. Whoever may
//! change the directory while it is served could still exchange a file for a link between the check and the opening; release directories
//! do not change.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use flowline_core::digest::Digest;
use hyper::{
    HeaderMap, Method, Response, StatusCode, Uri,
    body::{Body, Bytes, Frame, SizeHint},
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
        LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    fields,
    lanes::Passage,
    pages::{failed, not_allowed, page},
    reply::Reply,
};

/// How much is read at once; a file up to this size is answered in one piece.
const PIECE: usize = 128 * 1024;

/// Answers from the files below `root`. `path` is what lies below the route, as it was sent.
pub(super) async fn serve(
    root: &Path,
    path: &str,
    asked: &Uri,
    method: &Method,
    headers: &HeaderMap,
    passage: Passage,
) -> Response<Reply> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD", method);
    }
    let Some(relative) = relative(path) else { return missing(&passage) };
    let directory_wanted = path.ends_with('/');
    let root = root.to_owned();
    let Ok(found) = spawn_blocking(move || find(&root, &relative, directory_wanted)).await else {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, &passage.entry, "could not be read");
    };
    match found {
        Found::File(found) => answer(found, method, headers, passage),
        Found::Directory => moved(asked, &passage),
        Found::Nothing => missing(&passage),
        Found::NoRoot(error) => failed(
            StatusCode::SERVICE_UNAVAILABLE,
            &passage.entry,
            &format!("has no files to serve ({error})"),
        ),
        Found::Failed(error) => failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            &passage.entry,
            &format!("has this file, but it cannot be read ({error})"),
        ),
    }
}

enum Found {
    File(FoundFile),
    /// A directory, asked for without the final `/` on which its relative links stand.
    Directory,
    Nothing,
    NoRoot(io::Error),
    Failed(io::Error),
}

struct FoundFile {
    content_type: &'static str,
    etag: String,
    modified: Option<SystemTime>,
    length: u64,
    body: FileBody,
}

fn find(root: &Path, relative: &Path, directory_wanted: bool) -> Found {
    let real_root = match root.canonicalize() {
        Ok(root) => root,
        Err(error) => return Found::NoRoot(error),
    };
    let (mut real, mut metadata) = match below(&real_root, relative) {
        Ok(found) => found,
        Err(error) => return nothing(error),
    };
    if metadata.is_dir() {
        if !directory_wanted && !relative.as_os_str().is_empty() {
            return Found::Directory;
        }
        (real, metadata) = match below(&real_root, &relative.join("index.html")) {
            Ok(found) => found,
            Err(error) => return nothing(error),
        };
    } else if directory_wanted {
        return Found::Nothing;
    }
    if !metadata.is_file() {
        return Found::Nothing;
    }
    match open(root, &real, &metadata) {
        Ok(found) => Found::File(found),
        Err(error) => nothing(error),
    }
}

/// The real path of `relative` below `root`, all links followed.
fn below(root: &Path, relative: &Path) -> io::Result<(PathBuf, Metadata)> {
    let real = root.join(relative).canonicalize()?;
    if !real.starts_with(root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let metadata = real.metadata()?;
    Ok((real, metadata))
}

fn nothing(error: io::Error) -> Found {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Found::Nothing
        }
        _ => Found::Failed(error),
    }
}

fn open(root: &Path, real: &Path, metadata: &Metadata) -> io::Result<FoundFile> {
    let mut file = File::open(real)?;
    let length = metadata.len();
    let modified = modified(root, metadata);
    let body = if length <= PIECE as u64 {
        FileBody { state: State::Whole(read_piece(&mut file, length)?), left: length }
    } else {
        FileBody { state: State::Ready(file), left: length }
    };
    Ok(FoundFile { content_type: content_type(real), etag: etag(real, metadata), modified, length, body })
}

/// When what is served here last changed: the file, or the link that leads to it. Releases may carry the same times for different contents.
fn modified(root: &Path, metadata: &Metadata) -> Option<SystemTime> {
    let own = metadata.modified().ok()?;
    let link =
        root.symlink_metadata().ok().filter(Metadata::is_symlink).and_then(|link| link.modified().ok());
    Some(link.map_or(own, |link| link.max(own)))
}

/// The real path is part of it, as releases may carry files of the same size and time but different content.
fn etag(real: &Path, metadata: &Metadata) -> String {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let all = format!("{}\n{:?}\n{}", real.display(), since, metadata.len());
    format!("W/\"{}\"", Digest::of(all).hex())
}

fn answer(found: FoundFile, method: &Method, headers: &HeaderMap, passage: Passage) -> Response<Reply> {
    let entry = Arc::clone(&passage.entry);
    let unchanged = is_unchanged(&found, headers);
    let mut response = if unchanged || *method == Method::HEAD {
        Response::new(Reply::whole(Bytes::new()))
    } else {
        Response::new(Reply::file(found.body, passage))
    };
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    if !unchanged {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(found.content_type));
        fields.insert(CONTENT_LENGTH, HeaderValue::from(found.length));
    }
    if let Ok(etag) = HeaderValue::try_from(found.etag) {
        fields.insert(ETAG, etag);
    }
    if let Some(Ok(modified)) =
        found.modified.map(|time| HeaderValue::try_from(httpdate::fmt_http_date(time)))
    {
        fields.insert(LAST_MODIFIED, modified);
    }
    // A release may be switched at any moment, so nothing may be shown without asking whether it still is what is served.
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields::answered(fields, &entry);
    response
}

/// RFC 9110, section 13.2.2: `If-None-Match` where it is given, otherwise `If-Modified-Since`.
fn is_unchanged(found: &FoundFile, headers: &HeaderMap) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        let opaque = found.etag.trim_start_matches("W/");
        return headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == opaque);
    }
    let since =
        headers.get(IF_MODIFIED_SINCE).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    match (since, found.modified) {
        // Dates in fields have whole seconds.
        (Some(since), Some(modified)) => modified < since + Duration::from_secs(1),
        _ => false,
    }
}

fn missing(passage: &Passage) -> Response<Reply> {
    failed(StatusCode::NOT_FOUND, &passage.entry, "has no such file")
}

/// To the directory's own address, which ends with `/`.
fn moved(asked: &Uri, passage: &Passage) -> Response<Reply> {
    // Two slashes at the beginning would name another host.
    let mut location = format!("/{}/", asked.path().trim_matches('/'));
    if let Some(query) = asked.query() {
        location.push('?');
        location.push_str(query);
    }
    let mut response = page(StatusCode::MOVED_PERMANENTLY, &location);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    fields::answered(response.headers_mut(), &passage.entry);
    response
}

/// The file that a path names, relative to the root; `None` if it may name none.
fn relative(path: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let segment = decoded(segment)?;
        let hidden = segment.starts_with('.') && segment != ".well-known";
        if hidden || segment.contains(['/', '\\', '\0', ':']) {
            return None;
        }
        relative.push(segment);
    }
    Some(relative)
}

/// A segment without its percent-encoding; `None` if that is broken or the result is not UTF-8.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// By the file's ending; what is unknown is bytes to save.
fn content_type(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        _ => "application/octet-stream",
    }
}

/// A file's content: whole, or read piece by piece while it is sent.
pub(super) struct FileBody {
    state: State,
    left: u64,
}

enum State {
    Whole(Bytes),
    Ready(File),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
    Ended,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Whole(bytes) => {
                    this.left = 0;
                    return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
                }
                State::Ready(mut file) => {
                    if this.left == 0 {
                        return Poll::Ready(None);
                    }
                    let left = this.left;
                    this.state = State::Reading(spawn_blocking(move || {
                        let bytes = read_piece(&mut file, left)?;
                        Ok((file, bytes))
                    }));
                }
                State::Reading(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(context) else {
                        this.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    let (file, bytes) = read.map_err(io::Error::other)??;
                    this.left -= bytes.len() as u64;
                    this.state = State::Ready(file);
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The next piece of a file that has `left` bytes to come.
fn read_piece(file: &mut File, left: u64) -> io::Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let mut piece = Vec::with_capacity(size);
    file.by_ref().take(size as u64).read_to_end(&mut piece)?;
    if piece.len() < size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was sent",
        ));
    }
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_the_root() {
        for bad in [
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/%2E%2e/x",
            "/.%2e/x",
            "/a%2f..%2f..%2fx",
            "/a%5c..%5cx",
            "/%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/.git/config",
            "/.env",
            "/%ff",
            "/c:/x",
        ] {
            assert_eq!(relative(bad), None, "{bad}");
        }
        assert_eq!(relative("//a//b%20c/"), Some(PathBuf::from("a/b c")));
        assert_eq!(relative("/.well-known/x"), Some(PathBuf::from(".well-known/x")));
        assert_eq!(relative("/"), Some(PathBuf::new()));
    }
}
