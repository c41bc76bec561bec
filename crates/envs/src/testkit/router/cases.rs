//! The cases, each named by the sentence of [`Router`](crate::router::Router)'s contract that it checks.

use std::{future::Future, pin::Pin, time::Duration};

use flowline_core::error::{ErrorKind, Kinded};

use super::{
    Seen,
    stage::{LONG, Stage, owned, route, table},
};
use crate::router::{Overlay, OverlayEntry, Target, overlay};

type Case = for<'s, 'a> fn(&'s Stage<'a>) -> Pin<Box<dyn Future<Output = Result<(), Seen>> + 's>>;

macro_rules! cases {
    ($($sentence:literal => $case:ident),* $(,)?) => {
        pub(super) const CASES: &[(&str, Case)] = &[$(($sentence, |stage| Box::pin($case(stage)))),*];
    };
}

cases! {
    "applying a table makes its routes answer" => answers,
    "what was applied is current, and applying it again changes nothing" => idempotent,
    "a route that the next table leaves out is not answered any more" => removes,
    "a target that the next table changes answers the next request" => changes,
    "the longest path takes the request" => longest,
    "a path covers whole segments, not characters" => segments,
    "case and port of the host do not matter" => host_case,
    "an unknown host is answered with 404" => unknown_host,
    "a rewrite stands in the place of the route's path" => rewrites,
    "files of a directory answer, also after its link was switched" => directories,
    "a target that is unavailable is answered with 503" => unavailable,
    "a component that a preview deploys is answered by the preview" => deploys,
    "a component that a preview does not deploy is answered by its base" => falls_through,
    "a response says which environment answered" => says_who,
    "a request in flight finishes on its old target" => in_flight,
    "no request is lost while tables are switched" => switching,
    "a target that is still routed cannot be drained" => drains_routed,
    "a drain waits for requests in flight" => drain_waits,
    "a drain gives up after its limit and leaves the requests alone" => drain_limit,
    "a target that nobody uses is drained at once" => drains_unused,
}

async fn answers(stage: &Stage<'_>) -> Result<(), Seen> {
    let (one, two) = (stage.upstream("one").await?, stage.upstream("two").await?);
    let diff = stage
        .apply([route("one.test", "/", one.address())?, route("two.test", "/x", two.address())?])
        .await?;
    if diff.added.len() != 2 || !diff.removed.is_empty() || !diff.changed.is_empty() {
        return Err(Seen::Broken(format!("`apply` reports {diff:?}, expected two added routes")));
    }
    stage.expect("one.test", "/a/b", "one /a/b").await?;
    stage.expect("two.test", "/x", "two /x").await?;
    stage.expect_status("two.test", "/", 404).await
}

async fn idempotent(stage: &Stage<'_>) -> Result<(), Seen> {
    let one = stage.upstream("one").await?;
    let wanted = table([route("one.test", "/", one.address())?])?;
    stage.apply_table(wanted.clone()).await?;
    let again = stage.apply_table(wanted.clone()).await?;
    if !again.is_empty() {
        return Err(Seen::Broken(format!("applying again reports {again:?}")));
    }
    match stage.router.current().await {
        Ok(current) if current == wanted => {}
        Ok(current) => return Err(Seen::Broken(format!("current is {current:?}, applied was {wanted:?}"))),
        Err(error) => return Err(Seen::Broken(format!("`current` failed: {error}"))),
    }
    stage.expect("one.test", "/", "one /").await.map(drop)
}

async fn removes(stage: &Stage<'_>) -> Result<(), Seen> {
    let one = stage.upstream("one").await?;
    let (kept, gone) = (route("one.test", "/", one.address())?, route("one.test", "/gone", one.address())?);
    let other = route("two.test", "/", one.address())?;
    stage.apply([kept.clone(), gone, other]).await?;
    stage.expect("two.test", "/", "one /").await?;
    stage.apply([kept]).await?;
    stage.expect_status("two.test", "/", 404).await?;
    stage.expect("one.test", "/gone", "one /gone").await?;
    stage.apply([]).await?;
    stage.expect_status("one.test", "/gone", 404).await
}

async fn changes(stage: &Stage<'_>) -> Result<(), Seen> {
    let (one, two) = (stage.upstream("one").await?, stage.upstream("two").await?);
    for round in 0..5 {
        let (server, name) = if round % 2 == 0 { (&one, "one /") } else { (&two, "two /") };
        stage.apply([route("app.test", "/", server.address())?]).await?;
        stage.expect("app.test", "/", name).await?;
    }
    Ok(())
}

async fn longest(stage: &Stage<'_>) -> Result<(), Seen> {
    let (root, cool, deep) =
        (stage.upstream("root").await?, stage.upstream("cool").await?, stage.upstream("deep").await?);
    stage
        .apply([
            route("app.test", "/cool", cool.address())?,
            route("app.test", "/", root.address())?,
            route("app.test", "/cool/deep/er", deep.address())?,
        ])
        .await?;
    stage.expect("app.test", "/cool/deep/er/x", "deep /cool/deep/er/x").await?;
    stage.expect("app.test", "/cool/deep", "cool /cool/deep").await?;
    stage.expect("app.test", "/cool", "cool /cool").await?;
    stage.expect("app.test", "/x/cool", "root /x/cool").await.map(drop)
}

async fn segments(stage: &Stage<'_>) -> Result<(), Seen> {
    let (root, cool) = (stage.upstream("root").await?, stage.upstream("cool").await?);
    stage
        .apply([route("app.test", "/", root.address())?, route("app.test", "/cool", cool.address())?])
        .await?;
    stage.expect("app.test", "/cool/", "cool /cool/").await?;
    stage.expect("app.test", "/cooler", "root /cooler").await?;
    stage.expect("app.test", "/cool.js", "root /cool.js").await?;
    stage.expect("app.test", "/Cool", "root /Cool").await.map(drop)
}

async fn host_case(stage: &Stage<'_>) -> Result<(), Seen> {
    let one = stage.upstream("one").await?;
    stage.apply([route("app.test", "/", one.address())?]).await?;
    for host in ["APP.test", "app.test:8080", "App.Test:80"] {
        stage.expect(host, "/", "one /").await?;
    }
    Ok(())
}

async fn unknown_host(stage: &Stage<'_>) -> Result<(), Seen> {
    let one = stage.upstream("one").await?;
    stage.apply([route("app.test", "/", one.address())?]).await?;
    for host in ["other.test", "xapp.test", "x.app.test", "test"] {
        stage.expect_status(host, "/", 404).await?;
    }
    Ok(())
}

async fn rewrites(stage: &Stage<'_>) -> Result<(), Seen> {
    if !stage.router.capabilities().rewrites {
        return Err(Seen::Skipped("rewrites"));
    }
    let one = stage.upstream("one").await?;
    let to = |path: &str, rewrite: &str| -> Result<_, Seen> {
        let rewrite = rewrite.parse().map_err(|error| Seen::Broken(format!("{error}")))?;
        Ok(route("api.test", path, one.address())?.rewritten_to(rewrite))
    };
    stage.apply([to("/pr-7-cool", "/cool")?, to("/stripped", "/")?, to("/", "/base")?]).await?;
    stage.expect("api.test", "/pr-7-cool/x", "one /cool/x").await?;
    stage.expect("api.test", "/pr-7-cool", "one /cool").await?;
    stage.expect("api.test", "/stripped/x", "one /x").await?;
    stage.expect("api.test", "/stripped", "one /").await?;
    stage.expect("api.test", "/other", "one /base/other").await.map(drop)
}

async fn directories(stage: &Stage<'_>) -> Result<(), Seen> {
    if !stage.router.capabilities().directories {
        return Err(Seen::Skipped("directories"));
    }
    let own = |error: std::io::Error| Seen::Broken(format!("the suite's own files: {error}"));
    let root = Scratch::new().map_err(own)?;
    for release in ["one", "two"] {
        std::fs::create_dir(root.0.join(release)).map_err(own)?;
        std::fs::write(root.0.join(release).join("index.html"), release).map_err(own)?;
    }
    let current = root.0.join("current");
    link("one", &current)?;
    stage.apply([route("app.test", "/", current.as_path())?]).await?;
    stage.expect("app.test", "/", "one").await?;
    stage.expect("app.test", "/index.html", "one").await?;
    stage.expect_status("app.test", "/nothing", 404).await?;
    link("two", &root.0.join("next"))?;
    std::fs::rename(root.0.join("next"), &current).map_err(own)?;
    stage.expect("app.test", "/", "two").await.map(drop)
}

async fn unavailable(stage: &Stage<'_>) -> Result<(), Seen> {
    stage.apply([route("app.test", "/", Target::Unavailable("not deployed".to_owned()))?]).await?;
    stage.expect_status("app.test", "/", 503).await
}

async fn deploys(stage: &Stage<'_>) -> Result<(), Seen> {
    let (base, own) = (stage.upstream("production").await?, stage.upstream("preview").await?);
    let table = preview(&base, Some(own.address().into()))?;
    stage.apply_table(table).await?;
    stage.expect("pr-7-app.test", "/x", "preview /x").await?;
    stage.expect("app.test", "/x", "production /x").await.map(drop)
}

async fn falls_through(stage: &Stage<'_>) -> Result<(), Seen> {
    let base = stage.upstream("production").await?;
    stage.apply_table(preview(&base, None)?).await?;
    stage.expect("pr-7-app.test", "/x", "production /x").await.map(drop)
}

async fn says_who(stage: &Stage<'_>) -> Result<(), Seen> {
    let (base, own) = (stage.upstream("production").await?, stage.upstream("preview").await?);
    for (target, environment) in [(Some(own.address().into()), "pr-7"), (None, "production")] {
        stage.apply_table(preview(&base, target)?).await?;
        for (host, environment) in [("pr-7-app.test", environment), ("app.test", "production")] {
            let response = stage.get(host, "/").await?;
            match response.header("x-flowline-environment") {
                Some(said) if said == environment => {}
                said => {
                    return Err(Seen::Broken(format!(
                        "at `{host}`, `{environment}` answered, but it says {said:?}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// `production`, and a preview of it that deploys `own` or falls through.
fn preview(base: &crate::probe::Server, own: Option<Target>) -> Result<crate::router::RouteTable, Seen> {
    let wrong = |error: String| Seen::Broken(format!("the suite's own overlay is wrong: {error}"));
    let production = table([owned("production", "web", "app.test", "/", base.address())?])?;
    let at = owned("pr-7", "web", "pr-7-app.test", "/", base.address())?;
    let entry =
        OverlayEntry { component: at.component, host: at.host, path: at.path, rewrite: None, target: own };
    let base = "production".parse().map_err(|error| wrong(format!("{error}")))?;
    overlay(&production, &Overlay { environment: at.owner, base, entries: vec![entry] })
        .map_err(|error| wrong(error.to_string()))
}

async fn in_flight(stage: &Stage<'_>) -> Result<(), Seen> {
    let (old, new) = (stage.upstream("old").await?, stage.upstream("new").await?);
    stage.apply([route("app.test", "/", old.address())?]).await?;
    let switch = async {
        stage.apply([route("app.test", "/", new.address())?]).await?;
        stage.expect("app.test", "/", "new /").await
    };
    let (held, _) = stage.while_held("app.test", switch).await?;
    if held.text() != "old /held" {
        return Err(Seen::Broken(format!("the request that was in flight got `{}`", held.text())));
    }
    Ok(())
}

async fn switching(stage: &Stage<'_>) -> Result<(), Seen> {
    let servers = [stage.upstream("one").await?, stage.upstream("two").await?];
    stage.apply([route("app.test", "/", servers[0].address())?]).await?;
    let asking = async {
        for _ in 0..60 {
            stage.expect_status("app.test", "/", 200).await?;
        }
        Ok::<_, Seen>(())
    };
    let switching = async {
        for round in 0..30 {
            let server = if round % 2 == 0 { &servers[1] } else { &servers[0] };
            stage.apply([route("app.test", "/", server.address())?]).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Seen>(())
    };
    let (asked, more, switched) = tokio::join!(asking, stage.expect_status("app.test", "/", 200), switching);
    asked.and(more).and(switched)
}

async fn drains_routed(stage: &Stage<'_>) -> Result<(), Seen> {
    let one = stage.upstream("one").await?;
    let target = Target::Upstream(one.address());
    stage.apply([route("app.test", "/", target.clone())?]).await?;
    match within(stage.router.drain(&target, Duration::ZERO)).await? {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
        Err(error) => {
            Err(Seen::Broken(format!("`drain` failed as {}, not as a conflict: {error}", error.kind())))
        }
        Ok(_) => Err(Seen::Broken("`drain` says that a routed target is free".to_owned())),
    }
}

async fn drain_waits(stage: &Stage<'_>) -> Result<(), Seen> {
    if !stage.router.capabilities().drains {
        return Err(Seen::Skipped("drains"));
    }
    let (old, new) = (stage.upstream("old").await?, stage.upstream("new").await?);
    let retired = Target::Upstream(old.address());
    stage.apply([route("app.test", "/", retired.clone())?]).await?;
    let switch = async {
        stage.apply([route("app.test", "/", new.address())?]).await?;
        let mut drain = stage.router.drain(&retired, LONG);
        let early =
            std::future::poll_fn(|context| std::task::Poll::Ready(drain.as_mut().poll(context).is_ready()));
        if early.await {
            return Err(Seen::Broken("`drain` ended while a request was in flight".to_owned()));
        }
        Ok(drain)
    };
    let (_, drain) = stage.while_held("app.test", switch).await?;
    match within(drain).await? {
        Ok(drained) if *drained.target() == retired => Ok(()),
        other => Err(Seen::Broken(format!("`drain` ended with {other:?} after the last request"))),
    }
}

async fn drain_limit(stage: &Stage<'_>) -> Result<(), Seen> {
    if !stage.router.capabilities().drains {
        return Err(Seen::Skipped("drains"));
    }
    let old = stage.upstream("old").await?;
    let retired = Target::Upstream(old.address());
    stage.apply([route("app.test", "/", retired.clone())?]).await?;
    let drain = async {
        stage.apply([]).await?;
        match within(stage.router.drain(&retired, Duration::from_millis(20))).await? {
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
            other => Err(Seen::Broken(format!("`drain` ended with {other:?} while a request was in flight"))),
        }
    };
    let (held, ()) = stage.while_held("app.test", drain).await?;
    if held.text() != "old /held" {
        return Err(Seen::Broken(format!("the request that was in flight got `{}`", held.text())));
    }
    Ok(())
}

async fn drains_unused(stage: &Stage<'_>) -> Result<(), Seen> {
    let old = stage.upstream("old").await?;
    let retired = Target::Upstream(old.address());
    stage.apply([route("app.test", "/", retired.clone())?]).await?;
    stage.expect("app.test", "/", "old /").await?;
    stage.apply([]).await?;
    match within(stage.router.drain(&retired, LONG)).await? {
        Ok(drained) if *drained.target() == retired => Ok(()),
        other => Err(Seen::Broken(format!("`drain` ended with {other:?}"))),
    }
}

/// What `wait` gives, if it ends at all.
async fn within<T>(wait: impl Future<Output = T>) -> Result<T, Seen> {
    tokio::time::timeout(LONG / 5, wait)
        .await
        .map_err(|_late| Seen::Broken("it did not end, whatever its limit".to_owned()))
}

#[cfg(unix)]
fn link(to: &str, at: &std::path::Path) -> Result<(), Seen> {
    std::os::unix::fs::symlink(to, at)
        .map_err(|error| Seen::Broken(format!("the suite's own link cannot be made: {error}")))
}

#[cfg(not(unix))]
fn link(_to: &str, _at: &std::path::Path) -> Result<(), Seen> {
    Err(Seen::Skipped("symbolic links"))
}

/// A directory that goes with its case.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flowline-router-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory that stays behind in the system's own place for such does not make a contract less kept.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}
