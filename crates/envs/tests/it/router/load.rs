use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use flowline_core::error::{ErrorKind, Kinded};
use flowline_envs::{probe::ClientRequest, router::RouterError};
use tokio::{net::TcpListener, sync::Notify};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_table_is_switched_two_hundred_times() {
    let router = HttpRouter::bind(loopback()).await.unwrap();
    let mut serving = echo("v0").await;
    router.apply(table(&serving)).await.unwrap();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (stop, sent, address) = (Arc::clone(&stop), Arc::clone(&sent), router.address());
            tokio::spawn(async move {
                let client = if number % 2 == 0 { Client::keeping_alive() } else { Client::new() };
                while !stop.load(Ordering::Relaxed) {
                    let mut request = ClientRequest::get("app.localhost", "/");
                    if number == 3 {
                        request = ClientRequest::new("POST", "app.localhost", "/").with_body(vec![1; 20_000]);
                    }
                    let response = client.send(address, request, LIMIT).await.unwrap();
                    assert_eq!(response.status, 200, "{}", response.text());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..200 {
        let next = echo(if round % 2 == 0 { "v1" } else { "v0" }).await;
        let seen = sent.load(Ordering::Relaxed);
        router.apply(table(&next)).await.unwrap();
        let retired = Target::Upstream(serving.address());
        assert_eq!(router.drain(&retired, LIMIT).await.unwrap().target(), &retired);
        drop(std::mem::replace(&mut serving, next));
        // Let requests meet each table, so that the load is real whatever the machine does.
        while sent.load(Ordering::Relaxed) < seen + 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(clients.iter().all(|client| !client.is_finished()), "a client failed in round {round}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

fn table(server: &Server) -> RouteTable {
    RouteTable::new([route("app.localhost", "/", server.address(), "web")]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_finishes_on_its_old_target_and_holds_the_drain() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said_entered, may_leave) = (Arc::clone(&entered), Arc::clone(&leave));
    let old = serve(loopback(), move |_| {
        let (entered, leave) = (Arc::clone(&said_entered), Arc::clone(&may_leave));
        async move {
            entered.notify_one();
            leave.notified().await;
            Reply::text("old")
        }
    })
    .await
    .unwrap();
    let new = echo("new").await;
    let router = HttpRouter::bind(loopback()).await.unwrap();
    router.apply(table(&old)).await.unwrap();
    let retired = Target::Upstream(old.address());
    assert_eq!(router.drain(&retired, LIMIT).await.unwrap_err().kind(), ErrorKind::Conflict);

    let address = router.address();
    let slow = tokio::spawn(async move { Client::new().get(address, "app.localhost", "/", LIMIT).await });
    entered.notified().await;
    router.apply(table(&new)).await.unwrap();
    assert!(get(&router, "app.localhost", "/").await.text().starts_with("new"));
    let error = router.drain(&retired, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, RouterError::DrainTimedOut { in_flight: 1, .. }), "{error}");
    leave.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().text(), "old");
    assert_eq!(router.drain(&retired, LIMIT).await.unwrap().target(), &retired);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_lets_requests_finish_and_then_refuses() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said_entered, may_leave) = (Arc::clone(&entered), Arc::clone(&leave));
    let upstream = serve(loopback(), move |_| {
        let (entered, leave) = (Arc::clone(&said_entered), Arc::clone(&may_leave));
        async move {
            entered.notify_one();
            leave.notified().await;
            Reply::text("done")
        }
    })
    .await
    .unwrap();
    let router = routing([route("app.localhost", "/", upstream.address(), "web")]).await;
    let address = router.address();
    let slow =
        tokio::spawn(async move { Client::keeping_alive().get(address, "app.localhost", "/", LIMIT).await });
    entered.notified().await;
    // The shutdown is asked first and finds the request in flight.
    let (left, ()) = tokio::join!(biased; router.shutdown(LIMIT), async { leave.notify_one() });
    assert_eq!(left, 0);
    assert_eq!(slow.await.unwrap().unwrap().text(), "done");
    let refused = Client::new().get(address, "app.localhost", "/", LIMIT).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    // The port is free at once.
    drop(TcpListener::bind(address).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_stream_both_ways_with_little_held_in_between() {
    const SIZE: usize = 50 * 1024 * 1024;
    // This upstream sends each byte back as it comes, and stops reading when nobody takes what it sends.
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let router = routing([route("app.localhost", "/", listener.local_addr().unwrap(), "web")]).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let (read, mut write) = stream.split();
        tokio::io::copy(&mut read.take(SIZE as u64), &mut write).await.unwrap();
    });
    let (mut read, mut write) = TcpStream::connect(router.address()).await.unwrap().into_split();
    let before = resident_bytes();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: app.localhost\r\nconnection: close\r\ncontent-length: {SIZE}\r\n\r\n"
    );
    write.write_all(head.as_bytes()).await.unwrap();

    // Nobody reads yet, for as long as the system's sockets take what is sent: a router that held bodies would hold this one.
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < SIZE {
        match tokio::time::timeout(
            Duration::from_millis(500),
            write.write(&piece[..piece.len().min(SIZE - sent)]),
        )
        .await
        {
            Ok(written) => sent += written.unwrap(),
            Err(_full) => break,
        }
    }
    let rest = tokio::spawn(async move {
        while sent < SIZE {
            sent += write.write(&piece[..piece.len().min(SIZE - sent)]).await.unwrap();
        }
        write
    });
    let (mut answer, mut head, mut received) = (vec![0; 64 * 1024], Vec::new(), 0);
    loop {
        let length = tokio::time::timeout(LIMIT, read.read(&mut answer)).await.unwrap().unwrap();
        if length == 0 {
            break;
        }
        received += length;
        if head.len() < 1024 {
            head.extend_from_slice(&answer[..length.min(1024)]);
        }
    }
    drop(rest.await.unwrap());
    assert!(head.starts_with(b"HTTP/1.1 200"));
    assert_eq!(received - head.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() - 4, SIZE);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 12 * 1024 * 1024, "{grown} bytes more at the peak");
}

/// The most memory that this process had so far; 0 where the system does not say. Each test runs in a process of its own.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_upstream() {
    let entered = Arc::new(Notify::new());
    let said_entered = Arc::clone(&entered);
    let upstream = serve(loopback(), move |_| {
        let entered = Arc::clone(&said_entered);
        async move {
            entered.notify_one();
            std::future::pending::<()>().await;
            Reply::text("never")
        }
    })
    .await
    .unwrap();
    let router = routing([route("app.localhost", "/", upstream.address(), "web")]).await;
    let address = router.address();
    let client = tokio::spawn(async move { Client::new().get(address, "app.localhost", "/", LIMIT).await });
    entered.notified().await;
    client.abort();
    router.apply(RouteTable::default()).await.unwrap();
    assert!(router.drain(&Target::Upstream(upstream.address()), LIMIT).await.is_ok());
}

#[test]
fn a_router_on_its_own_thread_outlives_the_runtime_that_made_it_and_ends_with_its_last_clone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limits = flowline_envs::router::RouterLimits::default;
    let router = runtime().block_on(HttpRouter::bind_on_own_thread(loopback(), limits())).unwrap();
    let site = tempfile::tempdir().unwrap();
    std::fs::write(site.path().join("index.html"), "home").unwrap();
    let later = runtime();
    later.block_on(async {
        let taken = HttpRouter::bind_on_own_thread(router.address(), limits()).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Conflict);
        router
            .apply(RouteTable::new([route("a.localhost", "/", site.path(), "web")]).unwrap())
            .await
            .unwrap();
        let clone = router.clone();
        drop(router);
        assert_eq!(get(&clone, "a.localhost", "/").await.text(), "home");
        assert_eq!(clone.shutdown(LIMIT).await, 0);
        let address = clone.address();
        drop(clone);
        drop(TcpListener::bind(address).await.unwrap());
    });
}
