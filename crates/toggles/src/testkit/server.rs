//! A server on loopback that does what a case wants, on threads of its own.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// What the server does with each connection, once it has read the request.
pub(super) type Does = dyn Fn(&mut TcpStream, &Seen) + Send + Sync;

/// A server; it ends with the last request that it waits for after this was dropped.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) seen: Arc<Seen>,
    ends: Arc<AtomicBool>,
}

/// What the server saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The requests, whole.
    pub(super) requests: Mutex<Vec<String>>,
    /// Whether a client closed its connection while it was to wait.
    pub(super) closed: AtomicBool,
    /// How many bytes of a body could be sent.
    pub(super) sent: AtomicUsize,
}

impl Seen {
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn asked(&self) -> bool {
        !self.requests.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Server {
    pub(super) fn doing(does: impl Fn(&mut TcpStream, &Seen) + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let (seen, ends) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let server = Self { url, seen: Arc::clone(&seen), ends: Arc::clone(&ends) };
        let does: Arc<Does> = Arc::new(does);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), false) = (stream, ends.load(Ordering::Acquire)) else { return };
                let (does, seen) = (Arc::clone(&does), Arc::clone(&seen));
                thread::spawn(move || {
                    // Nobody is waited for without end, whatever a broken client does.
                    let patience = Some(Duration::from_secs(10));
                    if stream.set_read_timeout(patience).is_ok() && stream.set_write_timeout(patience).is_ok()
                    {
                        let request = read_request(&mut stream);
                        seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                        does(&mut stream, &seen);
                    }
                });
            }
        });
        Ok(server)
    }

    /// A server that says these bytes and closes.
    pub(super) fn saying(bytes: impl Into<Vec<u8>>) -> io::Result<Self> {
        let bytes = bytes.into();
        Self::doing(move |stream, _| {
            // A client that has enough may be gone.
            drop(stream.write_all(&bytes));
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the thread that accepts, so that it sees the end.
        drop(self.url.strip_prefix("http://").map(TcpStream::connect));
    }
}

/// Waits until the client closes, and notes that.
pub(super) fn wait_for_close(stream: &mut TcpStream, seen: &Seen) {
    let mut rest = [0; 64];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return;
            }
            // Reset: closed as well.
            Err(_) => break,
        }
    }
    seen.closed.store(true, Ordering::Release);
}

/// An answer with its length.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let fields = head.lines().filter_map(|line| line.split_once(':'));
            let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = lengths.next().and_then(|(_, value)| value.trim().parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return text,
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}
