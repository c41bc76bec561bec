//! What the HTTP router adds to a request, against the same upstream asked directly, over loopback.
//!
//! `cargo bench --bench router` runs both in turns, so that what else the machine does falls on both, and prints the medians of the turns.
//! The router has a thread of its own; with `-- --shared` it runs on a runtime with a thread for each processor.
//! `cargo bench --bench router -- --serve` keeps upstream and router up and prints their addresses, for `wrk` or another load generator.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints"
)]

use std::{
    error::Error,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use flowline_envs::router::{HttpRouter, Route, RouteTable, Router, RouterLimits, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: app.localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nhello, world\n";
const TURN: Duration = Duration::from_millis(400);
const TURNS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    // As in a deployment, upstream, router and clients do not share threads.
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    let (upstreams, routing, clients) =
        (single()?, Builder::new_multi_thread().enable_all().build()?, single()?);
    let listener = upstreams.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let upstream = listener.local_addr()?;
    std::thread::spawn(move || upstreams.block_on(answer(listener)));
    let router = routing.block_on(async {
        let (loopback, limits) = (([127, 0, 0, 1], 0).into(), RouterLimits::default());
        let router = if has("--shared") {
            HttpRouter::bind_with(loopback, limits).await?
        } else {
            HttpRouter::bind_on_own_thread(loopback, limits).await?
        };
        let route = Route::new(
            "app.localhost".parse()?,
            "/".parse()?,
            Target::Upstream(upstream),
            "production".parse()?,
            "web".parse()?,
        );
        router.apply(RouteTable::new([route])?).await?;
        Ok::<_, Box<dyn Error>>(router)
    })?;
    if has("--serve") {
        println!("upstream http://{upstream}/\nrouter   http://{}/ for host app.localhost", router.address());
        routing.block_on(std::future::pending::<()>());
    }

    println!("connections     direct/s     router/s   direct µs   router µs    added µs");
    for connections in [1, 32] {
        clients.block_on(turn(router.address(), connections))?;
        let (mut direct, mut routed) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            direct.push(clients.block_on(turn(upstream, connections))?);
            routed.push(clients.block_on(turn(router.address(), connections))?);
        }
        let (direct, routed) = (median(direct), median(routed));
        let rate = 1e6 / direct;
        let through = 1e6 / routed;
        println!(
            "{connections:11} {rate:12.0} {through:12.0} {direct:11.2} {routed:11.2} {:11.2}",
            routed - direct
        );
    }
    Ok(())
}

fn single() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Answers every request with the same bytes, as cheaply as can be.
async fn answer(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _nodelay = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            loop {
                // A request comes in one piece, as it is small and the next waits for its answer.
                let Ok(1..) = stream.read(&mut bytes).await else { return };
                let Ok(()) = stream.write_all(RESPONSE).await else { return };
            }
        });
    }
}

/// Microseconds of wall time for each request of one turn.
async fn turn(address: SocketAddr, connections: usize) -> io::Result<f64> {
    let mut running = JoinSet::new();
    let start = Instant::now();
    for _ in 0..connections {
        running.spawn(ask(address, start + TURN));
    }
    let mut requests = 0;
    while let Some(done) = running.join_next().await {
        requests += done??;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(requests))
}

/// Requests one after the other over one connection until `end`; how many.
async fn ask(address: SocketAddr, end: Instant) -> io::Result<u32> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut bytes = [0; 4096];
    let mut requests = 0;
    while Instant::now() < end {
        stream.write_all(REQUEST).await?;
        let mut filled = 0;
        while !bytes.get(..filled).is_some_and(|bytes| bytes.ends_with(b"hello, world\n")) {
            let length = stream.read(bytes.get_mut(filled..).unwrap_or_default()).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += length;
        }
        requests += 1;
    }
    Ok(requests)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
