use flowline_envs::probe::ClientRequest;

use super::*;

fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    std::fs::create_dir_all(at.join("release/docs")).unwrap();
    std::fs::write(at.join("secret.txt"), "secret").unwrap();
    std::fs::write(at.join("release/index.html"), "<h1>home</h1>").unwrap();
    std::fs::write(at.join("release/docs/index.html"), "docs").unwrap();
    std::fs::write(at.join("release/app.js"), "1").unwrap();
    std::fs::write(at.join("release/big.bin"), vec![7; 3_000_000]).unwrap();
    std::fs::write(at.join("release/.env"), "secret").unwrap();
    std::os::unix::fs::symlink("release", at.join("current")).unwrap();
    std::os::unix::fs::symlink("../secret.txt", at.join("release/leak.txt")).unwrap();
    std::os::unix::fs::symlink("app.js", at.join("release/alias.js")).unwrap();
    std::os::unix::fs::symlink("/etc", at.join("release/etc")).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_with_type_length_and_validators() {
    let site = site();
    let router = serving(&site.path().join("current")).await;
    let home = get(&router, "app.localhost", "/").await;
    assert_eq!((home.status, home.text().as_ref()), (200, "<h1>home</h1>"));
    assert_eq!(home.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(home.header("content-length"), Some("13"));
    assert_eq!(home.header("x-flowline-environment"), Some("production"));
    let script = get(&router, "app.localhost", "/alias.js?v=1").await;
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(get(&router, "app.localhost", "/docs/").await.text(), "docs");
    let moved = get(&router, "app.localhost", "//docs?x=1").await;
    assert_eq!((moved.status, moved.header("location")), (301, Some("/docs/?x=1")));

    let etag = home.header("etag").unwrap();
    let since = home.header("last-modified").unwrap();
    for (field, value) in
        [("if-none-match", etag), ("if-none-match", "\"x\", *"), ("if-modified-since", since)]
    {
        let request = ClientRequest::get("app.localhost", "/").with_header(field, value);
        let unchanged = Client::new().send(router.address(), request, LIMIT).await.unwrap();
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{field}: {value}");
        assert_eq!(unchanged.header("etag"), Some(etag));
    }
    let head = ClientRequest::new("HEAD", "app.localhost", "/big.bin");
    let head = Client::new().send(router.address(), head, LIMIT).await.unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3000000"), 0));
    let post = ClientRequest::new("POST", "app.localhost", "/").with_body("x");
    let post = Client::new().send(router.address(), post, LIMIT).await.unwrap();
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_and_no_link_leaves_the_directory() {
    let site = site();
    let router = serving(&site.path().join("current")).await;
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/docs/..%2f..%2fsecret.txt",
        "/docs/%2e%2e/%2E./secret.txt",
        "/leak.txt",
        "/etc/passwd",
        "/etc/",
        "/.env",
        "/%2eenv",
        "/nothing",
        "/app.js/",
        "/app.js/x",
        "/docs%00",
        "/%",
        "/..%5csecret.txt",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: app.localhost\r\nconnection: close\r\n\r\n");
        let answer = raw(router.address(), &request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switched_link_is_seen_by_the_next_request_and_by_its_validators() {
    let site = site();
    let next = site.path().join("next");
    std::fs::create_dir(&next).unwrap();
    std::fs::write(next.join("index.html"), "<h1>HOME</h1>").unwrap();
    // Same size, same time: releases are often made with fixed times.
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for release in ["release", "next"] {
        let file =
            std::fs::File::options().write(true).open(site.path().join(release).join("index.html")).unwrap();
        file.set_modified(time).unwrap();
    }
    let router = serving(&site.path().join("current")).await;
    let before = get(&router, "app.localhost", "/").await;
    std::os::unix::fs::symlink("next", site.path().join("switch")).unwrap();
    std::fs::rename(site.path().join("switch"), site.path().join("current")).unwrap();
    let request =
        ClientRequest::get("app.localhost", "/").with_header("if-none-match", before.header("etag").unwrap());
    let after = Client::new().send(router.address(), request, LIMIT).await.unwrap();
    assert_eq!((after.status, after.text().as_ref()), (200, "<h1>HOME</h1>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_under_a_path_serves_what_lies_below_it() {
    let site = site();
    let router =
        routing([route("app.localhost", "/site", site.path().join("release").as_path(), "web")]).await;
    assert_eq!(get(&router, "app.localhost", "/site/docs/").await.text(), "docs");
    assert_eq!(get(&router, "app.localhost", "/site").await.text(), "<h1>home</h1>");
    assert_eq!(get(&router, "app.localhost", "/sites").await.status, 404);
}
