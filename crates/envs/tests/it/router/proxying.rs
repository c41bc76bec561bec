use flowline_core::error::{ErrorKind, Kinded};
use flowline_envs::{
    probe::ClientRequest,
    router::{Overlay, OverlayEntry, RouterError, overlay},
};
use tokio::net::TcpListener;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_sees_host_path_and_who_asks() {
    let upstream = echo("api").await;
    let router = routing([route("api.localhost", "/cool", upstream.address(), "api")]).await;
    let request = ClientRequest::get("API.localhost:1234", "/cool/x?y=%20z")
        .with_header("x-forwarded-for", "6.6.6.6")
        .with_header("forwarded", "for=6.6.6.6")
        .with_header("x-flowline-asked", "fun")
        .with_header("te", "trailers")
        .with_header("x-private", "secret")
        .with_header("connection", "x-private");
    let response = Client::keeping_alive().send(router.address(), request, LIMIT).await.unwrap();
    assert_eq!(response.header("x-flowline-environment"), Some("production"));
    assert_eq!(response.header("x-flowline-served-by"), Some("production/api"));
    insta::assert_snapshot!(response.text(), @r"
    api GET /cool/x?y=%20z
    host: API.localhost:1234
    via: 1.1 flowline
    x-flowline-asked: production
    x-forwarded-for: 127.0.0.1
    x-forwarded-host: API.localhost:1234
    x-forwarded-proto: http
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_preview_goes_to_the_path_that_its_upstream_expects() {
    let (production, preview) = (echo("production").await, echo("preview").await);
    let base = RouteTable::new([
        route("api.localhost", "/cool", production.address(), "api"),
        route("app.localhost", "/", production.address(), "web"),
    ])
    .unwrap();
    let entry = |component: &str, host: &str, path: &str, target: Option<Target>| OverlayEntry {
        component: component.parse().unwrap(),
        host: host.parse().unwrap(),
        path: path.parse().unwrap(),
        rewrite: target.is_some().then(|| "/cool".parse().unwrap()),
        target,
    };
    let own = Overlay {
        environment: "pr-123".parse().unwrap(),
        base: "production".parse().unwrap(),
        entries: vec![
            entry("api", "api.localhost", "/pr-123-cool", Some(preview.address().into())),
            entry("web", "pr-123-app.localhost", "/", None),
        ],
    };
    let router = HttpRouter::bind(loopback()).await.unwrap();
    router.apply(overlay(&base, &own).unwrap()).await.unwrap();

    let own = get(&router, "api.localhost", "/pr-123-cool/x").await;
    assert!(own.text().starts_with("preview GET /cool/x\n"), "{}", own.text());
    assert!(own.text().contains("x-forwarded-prefix: /pr-123-cool"), "{}", own.text());
    assert_eq!(own.header("x-flowline-environment"), Some("pr-123"));

    let fallen = get(&router, "pr-123-app.localhost", "/y").await;
    assert!(fallen.text().starts_with("production GET /y\n"), "{}", fallen.text());
    assert!(fallen.text().contains("x-flowline-asked: pr-123"), "{}", fallen.text());
    assert_eq!(fallen.header("x-flowline-environment"), Some("production"));
    assert_eq!(fallen.header("x-flowline-served-by"), Some("production/web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupied_port_is_named_with_what_to_do() {
    let taken = TcpListener::bind(loopback()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = HttpRouter::bind(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    insta::assert_snapshot!(error.to_string().replace(&address.port().to_string(), "PORT"), @"cannot listen on 127.0.0.1:PORT: port PORT is taken by another process; stop that one, or choose another port (0 lets the system choose)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_back_into_the_router_is_refused() {
    let router = HttpRouter::bind(loopback()).await.unwrap();
    let table = RouteTable::new([route("app.localhost", "/", router.address(), "web")]).unwrap();
    let error = router.apply(table).await.unwrap_err();
    assert!(matches!(error, RouterError::Loop { .. }), "{error}");
    assert!(router.current().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_hasty_and_slow_clients_are_served() {
    let upstream = echo("api").await;
    let router = routing([route("a.localhost", "/", upstream.address(), "api")]).await;
    let old = raw(router.address(), "GET /old HTTP/1.0\r\nhost: a.localhost\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK") && old.contains("api GET /old"), "{old}");

    let one = "GET /1 HTTP/1.1\r\nhost: a.localhost\r\n\r\n";
    let two = "POST /2 HTTP/1.1\r\nhost: a.localhost\r\ncontent-length: 2\r\n\r\nxy";
    let three = "HEAD /3 HTTP/1.1\r\nhost: a.localhost\r\nconnection: close\r\n\r\n";
    let hasty = raw(router.address(), &format!("{one}{two}{three}")).await;
    let at = |text: &str| hasty.find(text).unwrap_or_else(|| panic!("{text} is missing in {hasty}"));
    assert!(at("api GET /1") < at("api POST /2") && at("api POST /2") < at("2 bytes of body"));
    assert_eq!(hasty.matches("HTTP/1.1 200 OK").count(), 3);
    assert!(hasty.ends_with("\r\n\r\n") && !hasty.contains("HEAD /3"), "{hasty}");

    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    for byte in
        b"POST /slow HTTP/1.1\r\nhost: a.localhost\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
    {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut slow = Vec::new();
    stream.read_to_end(&mut slow).await.unwrap();
    assert!(String::from_utf8_lossy(&slow).contains("5 bytes of body"), "{}", String::from_utf8_lossy(&slow));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_that_lead_to_each_other_end_the_circle() {
    let (one, two) =
        (HttpRouter::bind(loopback()).await.unwrap(), HttpRouter::bind(loopback()).await.unwrap());
    for (router, other) in [(&one, &two), (&two, &one)] {
        let table = RouteTable::new([route("app.localhost", "/", other.address(), "web")]).unwrap();
        router.apply(table).await.unwrap();
    }
    assert_eq!(get(&one, "app.localhost", "/").await.status, 508);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_router_answers_itself_says_who_failed() {
    let gone = TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    let router = routing([
        route("api.localhost", "/", gone, "api"),
        route("new.localhost", "/", Target::Unavailable("its first deployment is running".into()), "new"),
        route("web.localhost", "/", Path::new("/nowhere/current"), "web"),
    ])
    .await;
    let mut said = String::new();
    for host in ["api.localhost", "new.localhost", "web.localhost", "other.localhost"] {
        said.push_str(&get(&router, host, "/").await.text());
    }
    insta::assert_snapshot!(said, @r"
    502 bad gateway
    `api` of environment `production` cannot be reached (Connection refused (os error 111))
    503 service unavailable
    `new` of environment `production` is not available: its first deployment is running
    503 service unavailable
    `web` of environment `production` has no files to serve (No such file or directory (os error 2))
    404 not found
    nothing is served at host `other.localhost`
    served here:
      api.localhost/
      new.localhost/
      web.localhost/
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_within_its_response_breaks_the_clients_too() {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let router = routing([route("api.localhost", "/", listener.local_addr().unwrap(), "api")]).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _read = stream.read(&mut head).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
        }
    });
    let error = Client::new().get(router.address(), "api.localhost", "/", LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // The router itself goes on.
    assert_eq!(get(&router, "other.localhost", "/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_before_its_response_is_a_502() {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let router = routing([route("api.localhost", "/", listener.local_addr().unwrap(), "api")]).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _read = stream.read(&mut head).await;
        }
    });
    let response = get(&router, "api.localhost", "/").await;
    assert_eq!(response.status, 502);
    insta::assert_snapshot!(response.text(), @r"
    502 bad gateway
    `api` of environment `production` broke off before it answered (connection closed before message completed)
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_stale_never_shows() {
    // This upstream closes each connection after one answer without saying so.
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let router = routing([route("api.localhost", "/", listener.local_addr().unwrap(), "api")]).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _read = stream.read(&mut head).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            });
        }
    });
    let client = Client::keeping_alive();
    for round in 0..500 {
        let response = client.get(router.address(), "api.localhost", "/", LIMIT).await.unwrap();
        assert_eq!(response.status, 200, "round {round}: {}", response.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_passes_through_after_an_upgrade() {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let router = routing([route("ws.localhost", "/", listener.local_addr().unwrap(), "ws")]).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
        assert!(head.contains("upgrade: echo") && head.contains("connection: upgrade"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: ws.localhost\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .unwrap();
    let mut head = vec![0; 4096];
    let length = stream.read(&mut head).await.unwrap();
    assert!(head[..length].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..length]));
    for message in [b"first", b"again"] {
        stream.write_all(message).await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, message);
    }
    assert_eq!(router.shutdown(LIMIT).await, 1);
    assert_eq!(stream.read(&mut head).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_cookies_of_a_rewritten_route_stay_in_it() {
    let upstream = serve(loopback(), |_| async {
        Reply::text("")
            .with_status(302)
            .with_header("location", "/cool/login?x")
            .with_header("set-cookie", "a=b; Path=/cool")
    })
    .await
    .unwrap();
    let moved = route("api.localhost", "/pr-1-cool", upstream.address(), "api")
        .rewritten_to("/cool".parse().unwrap());
    let router = routing([moved]).await;
    let response = get(&router, "api.localhost", "/pr-1-cool").await;
    assert_eq!(response.header("location"), Some("/pr-1-cool/login?x"));
    assert_eq!(response.header("set-cookie"), Some("a=b; Path=/pr-1-cool"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_a_504_and_a_stalled_upload_a_408() {
    let upstream = serve(loopback(), |_| async {
        std::future::pending::<()>().await;
        Reply::text("")
    })
    .await
    .unwrap();
    let limits = flowline_envs::router::RouterLimits::default().with_response(Duration::from_millis(200));
    let router = HttpRouter::bind_with(loopback(), limits).await.unwrap();
    router
        .apply(RouteTable::new([route("a.localhost", "/", upstream.address(), "api")]).unwrap())
        .await
        .unwrap();
    assert_eq!(get(&router, "a.localhost", "/").await.status, 504);
    let stalled =
        "POST / HTTP/1.1\r\nhost: a.localhost\r\nconnection: close\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = raw(router.address(), stalled).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}
