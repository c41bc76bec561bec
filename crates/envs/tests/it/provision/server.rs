//! A small HTTP server to deploy: this test binary, started again. What it does is written in its release's files, so that a broken
//! release is another artifact and nothing is compiled.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
};

use flowline_envs::provision::{ProcessSpec, Readiness};

/// How the server of a release behaves: the content of its file `behaviour`.
pub(crate) mod behaviour {
    pub(crate) const FINE: &str = "fine";
    /// Says why and exits with code 3.
    pub(crate) const EXITS: &str = "exits";
    /// Listens, and answers 503 for ever.
    pub(crate) const UNWELL: &str = "unwell";
}

/// What starts the server of the release: this binary's test [`acts_as_a_server`].
pub(crate) fn spec() -> ProcessSpec {
    let own = std::env::current_exe().unwrap();
    let test = "provision::server::acts_as_a_server";
    ProcessSpec::new([own.to_str().unwrap(), "--exact", test, "--nocapture"])
        .unwrap()
        .with_env("SERVE_PORT", "{port}")
        .unwrap()
        .with_env("SERVE_RELEASE", "{release}")
        .unwrap()
        .with_readiness(Readiness::http("/health").unwrap())
        .with_stop_grace(flowline_core::SignedDuration::from_secs(20))
}

#[expect(clippy::disallowed_methods, reason = "this is how the process is told to be a server")]
fn told() -> Option<(u16, PathBuf)> {
    let port = std::env::var("SERVE_PORT").ok()?.parse().ok()?;
    Some((port, std::env::var_os("SERVE_RELEASE")?.into()))
}

#[test]
#[expect(clippy::exit, reason = "this process is the server, not the test")]
fn acts_as_a_server() {
    let Some((port, release)) = told() else { return };
    let read = |name: &str| std::fs::read_to_string(release.join(name)).unwrap_or_default();
    let behaves = read("behaviour");
    println!("release {} on port {port}", release.display());
    if behaves == behaviour::EXITS {
        println!("cannot find the table `orders`");
        std::process::exit(3);
    }
    serve(port, &release, if behaves == behaviour::UNWELL { 503 } else { 200 });
}

fn serve(port: u16, release: &Path, health: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut request = [0; 1024];
        let Ok(read) = stream.read(&mut request) else { continue };
        let is_health = request[..read].starts_with(b"GET /health ");
        let page = std::fs::read_to_string(release.join("page")).unwrap_or_default();
        let (status, body) = if is_health { (health, String::new()) } else { (200, page) };
        let length = body.len();
        stream
            .write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
            .ok();
    }
}

/// The page of the server at `port`.
pub(crate) fn get(port: u16) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}
