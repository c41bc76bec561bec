use flowline_envs::{probe::ServerLimits, router::RouterLimits};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_is_refused() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    for (what, request) in [
        (
            "length, then chunked",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked, then length",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        ),
        (
            "odd case",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\nTrAnsfer-encoding: chunked\r\nContent-LENGTH: 4\r\n\r\n0\r\n\r\n",
        ),
        (
            "two different lengths",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n1234",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: 4, 5\r\n\r\n1234"),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: +4\r\n\r\n1234"),
        (
            "not chunked at last",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: a.localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "space before the colon",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "folded line",
            "POST / HTTP/1.1\r\nhost: a.localhost\r\nx: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let answer = raw(router.address(), request).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{what}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_in_a_later_request_of_a_connection_are_refused_too() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    for body in ["1", "22", "content-length: 4\r\n"] {
        let length = body.len();
        stream
            .write_all(
                format!("POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: {length}\r\n\r\n{body}")
                    .as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = vec![0; 8192];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
    }
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_request_after_a_body_that_looks_like_a_field_is_fine() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: 23\r\n\r\n\r\ncontent-length: 4\r\n\r\n",
            "\n23 bytes of body",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a.localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "\n1 bytes of body",
        ),
        ("GET / HTTP/1.1\r\nhost: a.localhost\r\n\r\n", "x-forwarded-proto: http"),
    ] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 8192];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(expected), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_400_and_the_router_goes_on() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: a.localhost\r\n\r\n", "x".repeat(200_000));
    let wide = format!("GET / HTTP/1.1\r\nhost: a.localhost\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a.localhost\r\n{}\r\n", "x: y\r\n".repeat(200));
    for (what, request, statuses) in [
        ("no HTTP", "hello\r\n\r\n", &["400"][..]),
        ("no host", "GET / HTTP/1.1\r\nconnection: close\r\n\r\n", &["400"]),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a.localhost\r\nhost: b.localhost\r\n\r\n", &["400"]),
        ("no name in host", "GET / HTTP/1.1\r\nhost: a b\r\n\r\n", &["400"]),
        ("user in host", "GET / HTTP/1.1\r\nhost: a.localhost@evil\r\n\r\n", &["400"]),
        ("user in address", "GET http://x@a.localhost/ HTTP/1.1\r\nhost: a.localhost\r\n\r\n", &["400"]),
        ("nul in a field", "GET / HTTP/1.1\r\nhost: a.localhost\r\nx: \0\r\n\r\n", &["400"]),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n", &["400"]),
        ("HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", "505"]),
        ("long path", &long, &["414", "431"]),
        ("long field", &wide, &["431"]),
        ("many fields", &many, &["431"]),
        (
            "connect",
            "CONNECT a.localhost:80 HTTP/1.1\r\nhost: a.localhost\r\nconnection: close\r\n\r\n",
            &["405"],
        ),
        (
            "unknown path form",
            "GET * HTTP/1.1\r\nhost: a.localhost\r\nconnection: close\r\n\r\n",
            &["400", "404"],
        ),
    ] {
        let answer = raw(router.address(), request).await;
        let status = answer.get(9..12).unwrap_or_default();
        // A connection that is not HTTP at all may simply end.
        assert!(
            statuses.contains(&status) || (what == "HTTP/2 at once" && answer.is_empty()),
            "{what}: {answer}"
        );
    }
    assert_eq!(get(&router, "a.localhost", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_in_the_request_line_wins_over_the_host_field() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    let request = "GET http://a.localhost/x?y HTTP/1.1\r\nhost: evil.localhost\r\nconnection: close\r\n\r\n";
    let answer = raw(router.address(), request).await;
    assert!(answer.contains("api GET /x?y") && answer.contains("host: a.localhost"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_while_others_are_served() {
    let upstream = echo("api").await;
    let limits = ServerLimits::default().with_header_read(Duration::from_millis(300));
    let router =
        HttpRouter::bind_with(loopback(), RouterLimits::default().with_server(limits)).await.unwrap();
    router
        .apply(RouteTable::new([route("a.localhost", "/", upstream.address(), "api")]).unwrap())
        .await
        .unwrap();
    let slow = raw(router.address(), "GET / HTTP/1.1\r\nhost: a.loc");
    let (slow, served) = tokio::join!(slow, get(&router, "a.localhost", "/"));
    assert_eq!(served.status, 200);
    assert!(!slow.contains(" 200 "), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_wait_their_turn() {
    let upstream = echo("api").await;
    let limits = ServerLimits::default().with_connections(2).with_header_read(Duration::from_millis(300));
    let router =
        HttpRouter::bind_with(loopback(), RouterLimits::default().with_server(limits)).await.unwrap();
    router
        .apply(RouteTable::new([route("a.localhost", "/", upstream.address(), "api")]).unwrap())
        .await
        .unwrap();
    let _idle = [
        TcpStream::connect(router.address()).await.unwrap(),
        TcpStream::connect(router.address()).await.unwrap(),
    ];
    // Served once the idle ones were cut.
    assert_eq!(get(&router, "a.localhost", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_and_fields_of_one_hop_are_not_smuggled_on() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    let request = "GET / HTTP/1.1\r\nhost: a.localhost\r\nupgrade: h2c\r\nhttp2-settings: x\r\nproxy-connection: keep-alive\r\n\
                   connection: close, x-flowline-asked, x-forwarded-for\r\n\r\n";
    let answer = raw(router.address(), request).await;
    assert!(
        answer.contains("x-flowline-asked: production") && answer.contains("x-forwarded-for: 127.0.0.1"),
        "{answer}"
    );
}
