//! Whether a process answers on its port: one probe, with limits of its own.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::provision::Readiness;

/// How long one probe may take at each of its steps.
const STEP: Duration = Duration::from_secs(2);
/// The most that is read of an answer: its status line is at the start of it.
const ANSWER: usize = 64;

pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether nobody listens at `port`, so that a process may.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}

/// A port that is free now. Somebody else may take it before the process does; then the start is repeated with another.
pub(super) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

/// Asks once. The error says what went wrong, for people.
pub(super) fn probe(port: u16, readiness: &Readiness) -> Result<(), String> {
    let mut stream = TcpStream::connect_timeout(&loopback(port), STEP)
        .map_err(|error| format!("connecting failed: {error}"))?;
    let Readiness::Http(path) = readiness else { return Ok(()) };
    let path = path.as_str();
    let exchange = |stream: &mut TcpStream| -> std::io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: flowline\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::with_capacity(ANSWER);
        let mut piece = [0; ANSWER];
        while answer.len() < ANSWER && !answer.contains(&b'\n') {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                break;
            }
            answer.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
        Ok(answer)
    };
    let answer = exchange(&mut stream).map_err(|error| format!("GET {path} failed: {error}"))?;
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("GET {path} answered {status}")),
        None => Err(format!("GET {path} answered nothing that is HTTP")),
    }
}

/// The status code of an HTTP/1 status line (RFC 9112, section 4).
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\n').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.trim_end().split(' ').next()?;
    let shaped = version.starts_with("HTTP/1.") && code.len() == 3;
    shaped.then(|| code.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_is_an_answer() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nX: y"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        for bad in [&b""[..], b"220 smtp ready\r\n", b"HTTP/1.1 2000 x\r\n", b"HTTP/1.1 +20 x\r\n", b"\xff\n"]
        {
            assert!(status(bad).is_none_or(|status| status < 100), "{bad:?}");
        }
    }

    #[test]
    fn a_silent_port_is_told_from_a_wrong_answer() {
        let port = free_port().unwrap();
        assert!(probe(port, &Readiness::Tcp).unwrap_err().starts_with("connecting failed"));
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 503 Not Yet\r\n\r\n").unwrap();
        });
        let said = probe(port, &Readiness::http("/up").unwrap()).unwrap_err();
        assert_eq!(said, "GET /up answered 503");
        server.join().unwrap();
    }
}
