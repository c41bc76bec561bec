//! A change's whole way on this machine: `cargo run --example quickstart`.
//!
//! A pull request on a real git repository gets a preview, is verified, promoted, released to people by a toggle, stopped when it is
//! broken, rolled back and cleaned up. Every line is checked over real HTTP. The decisions are `Delivery`'s; this file only calls and prints.
//! Kill it anywhere and start it again with the same `--dir`: it goes on where it was.

#[path = "storefront/crash.rs"]
mod crash;
#[path = "storefront/options.rs"]
mod options;
#[path = "storefront/repository.rs"]
mod repository;
#[path = "storefront/service.rs"]
mod service;
#[path = "storefront/teller.rs"]
mod teller;
#[path = "storefront/traffic.rs"]
mod traffic;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use flowline::{core::error::Kinded, core::store::SqliteStore, prelude::*};
use options::{Command, Options};
use repository::Repository;
use serde_json::{Value, json};
use teller::{Interrupt, Teller, told};
use traffic::{Browser, Traffic};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let told = match options::command(std::env::args_os().skip(1)) {
        Ok(Command::ServeApi { release, port, environment, flags }) => {
            service::serve_api(release, port, environment, flags).await
        }
        Ok(Command::Smoke { web, api }) => service::smoke(&web, &api).await,
        Ok(Command::Tell(options)) => begin(&options).await,
        Err(problem) => Err(problem.into()),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            teller::failed(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Opens the delivery, tells the story until it ends or somebody wants it to stop, and leaves nothing running.
async fn begin(options: &Options) -> Result<(), Failure> {
    let (teller, interrupt) = (Teller::new(options.json), Interrupt::listen()?);
    let storefront = storefront();
    let repository = Repository::open(&options.dir.join("repository"), &storefront)?;
    let shepherd = CollectingNotifier::default();
    let setup = || -> Result<Setup, Failure> {
        let setup = Setup::new(
            storefront.join("flowline.toml"),
            storefront.join("grants.toml"),
            options.dir.join("state"),
        )
        .source(GitSource::new(options.dir.join("repository")))
        .notifier(shepherd.clone())
        .reporter(teller.reporter())
        .actor("quickstart");
        let Some(ledger) = options.crash_ledger.clone() else { return Ok(setup) };
        let store = SqliteStore::open(options.dir.join("state"))?;
        Ok(setup.store(Arc::new(crash::CrashingStore::new(Arc::new(store), ledger))))
    };
    std::fs::create_dir_all(options.dir.join("state"))?;
    let delivery = Delivery::open(setup()?)?;
    let greedy = Delivery::open_with(setup()?, teller::greedy(delivery.topology())?)?;
    let serving = delivery.serve(options.port).await?;
    let told = tokio::select! {
        told = tell(&teller, &delivery, &greedy, &serving, &repository, &shepherd) => told,
        () = interrupt.wished() => Err("stopped; start it again with the same --dir to go on".into()),
    };
    if options.serve && told.is_ok() {
        let production = "production".parse()?;
        let urls = [
            delivery.url(&production, &"web".parse()?).await?,
            delivery.url(&production, &"api".parse()?).await?,
        ];
        teller.serve(&urls, &interrupt).await;
    }
    serving.stop().await?;
    delivery.halt().await?;
    drop((delivery, greedy));
    options.finish()?;
    teller.end(&told?);
    Ok(())
}

async fn tell(
    teller: &Teller,
    delivery: &Delivery,
    greedy: &Delivery,
    serving: &Serving,
    repository: &Repository,
    shepherd: &CollectingNotifier,
) -> Result<Value, Failure> {
    let storefront = storefront();
    let browser = Browser::new(serving.address());
    let story = delivery.workflow("quickstart")?;
    let (production, web, api) = ("production".parse()?, "web".parse()?, "api".parse()?);

    // 1. Production, from main.
    told!(teller, "1", "deploy production from main", "Delivery::deploy");
    let first: String = story
        .step("deploy", || async { Ok::<_, Failure>(version(&delivery.deploy(&production, "main").await?)) })
        .await?;
    let page = browser.get(&delivery.url(&production, &web).await?).await?;
    let answer = browser.get(&delivery.url(&production, &api).await?).await?;
    teller.found(&format!("production {first} answers"), page.status == 200 && answer.status == 200)?;
    let traffic = Traffic::start(
        &browser,
        [delivery.url(&production, &web).await?, delivery.url(&production, &api).await?],
    );

    // 2. A pull request opens.
    told!(teller, "2", "a pull request opens and gets its preview", "Delivery::receive, Delivery::preview");
    let (head, base) = (repository.head(repository::BRANCH)?, repository.head("main~0")?);
    let opened = teller::opened(&storefront, &head, &base)?;
    let change: ChangeId =
        story.step("open", || async { Ok::<_, Failure>(delivery.receive(&opened).await?.change.id) }).await?;
    let preview: EnvironmentName = story
        .step("preview", || async { Ok::<_, Failure>(delivery.preview(&change).await?.environment) })
        .await?;
    let preview_url = delivery.url(&preview, &web).await?;
    let seen: Value = story
        .step("look", || async {
            let page = browser.get(&preview_url).await?;
            let api = browser.get(&delivery.url(&preview, &api).await?).await?;
            let fell_through = api.status == 200 && api.header("x-flowline-environment") == Some("production");
            Ok::<_, Failure>(json!({ "status": page.status, "branch": page.text().contains("one-step"), "fell_through": fell_through }))
        })
        .await?;
    teller.found(
        &format!("{preview_url} shows the branch; its API falls through to production's"),
        seen["branch"] == true && seen["fell_through"] == true,
    )?;

    // 3. Verified, planned, merged, promoted.
    told!(teller, "3a", "verify the preview: probes and a smoke command", "Delivery::verify");
    let verdict: String = story
        .step("verify", || async { Ok::<_, Failure>(delivery.verify(&preview).await?.to_string()) })
        .await?;
    teller.found(&format!("verification: {verdict}"), verdict == "pass")?;
    told!(teller, "3b", "the plan for production", "Delivery::plan");
    let plan = delivery.plan(&production, repository::BRANCH).await?;
    teller.show(&plan);
    told!(teller, "3c", "the same, asking for fun.localhost as well", "Delivery::plan");
    let denied = greedy.plan(&production, repository::BRANCH).await?;
    teller.show(&denied.denials().join("\n"));
    teller.found(
        "it is denied in the plan, before anything happens",
        plan.denials().is_empty() && !denied.denials().is_empty(),
    )?;
    told!(teller, "3d", "merge, and promote what was verified", "Delivery::receive, Delivery::promote");
    let promoted: Value = story
        .step("promote", || async {
            let merged = teller::merged(&opened, &repository.merge()?)?;
            delivery.receive(&merged).await?;
            let deployed = delivery.promote(&change, &production).await?;
            let page = browser.get(&delivery.url(&production, &web).await?).await?;
            Ok::<_, Failure>(json!({
                "version": deployed.deployment.release.version(),
                "deployment": deployed.deployment.generation,
                "rebuilt": deployed.built,
                "serves": page.text().contains("one-step"),
            }))
        })
        .await?;
    teller.found(
        "the verified artifact serves production; nothing was rebuilt",
        promoted["rebuilt"] == json!([]) && promoted["serves"] == true,
    )?;

    // 4. Deploying is not releasing.
    told!(teller, "4", "release the feature to 10 %, then to everyone", "Delivery::release");
    let checkout = delivery.url(&production, &api).await?;
    let exposed: Value = story
        .step("release", || async {
            delivery.release("new-checkout", &production, 10.0, Some(&change)).await?;
            browser.until_rolled_out(&checkout, 10.0).await?;
            let some = browser.exposed(&checkout, 1_000).await?;
            delivery.release("new-checkout", &production, 100.0, Some(&change)).await?;
            browser.until_rolled_out(&checkout, 100.0).await?;
            let all = browser.exposed(&checkout, 1_000).await?;
            Ok::<_, Failure>(json!({ "some": some.len(), "all": all.len(), "subset": some.is_subset(&all) }))
        })
        .await?;
    teller.found(
        &format!("{} of 1000 users, then {}", exposed["some"], exposed["all"]),
        exposed["subset"] == true && exposed["all"] == 1_000,
    )?;

    // 5. A broken release is stopped.
    told!(teller, "5", "deploy a broken release", "Delivery::deploy");
    let stopped: Value = story
        .step("break", || async {
            let broken = repository.break_api()?;
            let Err(error) = delivery.deploy(&production, &broken).await else {
                return Err("the broken release went through".into());
            };
            let told = shepherd.notices().iter().any(|notice| notice.to.as_str() == "ada");
            Ok::<_, Failure>(
                json!({ "why": error.to_string(), "kind": error.kind().to_string(), "shepherd": told }),
            )
        })
        .await?;
    teller.show(&stopped["why"].as_str().unwrap_or_default());
    for line in delivery
        .why("environment/production")
        .await?
        .iter()
        .rev()
        .filter(|line| line.contains("stopped"))
        .take(1)
    {
        teller.show(line);
    }
    let still = browser.get(&format!("{checkout}/products")).await?.status == 200;
    teller.found("users never saw it, and the shepherd was told", still && stopped["shepherd"] == true)?;

    // 6. Back to the release before, without CI.
    told!(teller, "6", "roll back in one call", "Delivery::rollback_from");
    let from = promoted["deployment"].as_u64().unwrap_or_default();
    let back: String = story
        .step("rollback", || async {
            Ok::<_, Failure>(version(&delivery.rollback_from(&production, from).await?))
        })
        .await?;
    let page = browser.get(&delivery.url(&production, &web).await?).await?;
    teller.found(&format!("production is at {back} again"), !page.text().contains("one-step"))?;

    // 7. The preview goes away.
    told!(teller, "7", "close the pull request", "Delivery::close, Delivery::timeline");
    let () = story.step("close", || async { Ok::<_, Failure>(delivery.close(&change).await?) }).await?;
    let gone =
        browser.get(&preview_url).await?.status == 404 && delivery.environment(&preview).await?.is_none();
    teller.found("the preview is gone", gone)?;
    let timeline = delivery.timeline(&change).await?;
    teller.show(&timeline);
    let counts = traffic.stop().await;
    let (sent, failed) = story.step("requests", || async { Ok::<_, Failure>(counts) }).await?;
    teller.found(&format!("{sent} requests meanwhile, {failed} failed"), failed == 0)?;

    let line = json!({
        "preview_url": preview_url,
        "preview_status": seen["status"],
        "preview_api_fell_through": seen["fell_through"],
        "production_version": promoted["version"],
        "requests_sent": sent,
        "requests_failed": failed,
        "exposed_at_10_percent": exposed["some"],
        "exposed_at_100_percent": exposed["all"],
        "exposed_is_subset": exposed["subset"],
        "broken_release_stopped": stopped["kind"] == "failed" && still,
        "denied_in_plan": !denied.denials().is_empty(),
        "rolled_back_to": back,
        "preview_gone": gone,
        "time_to_value_ms": timeline.time_to_value().map(|duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        "journal_events": delivery.journal_events().await?,
    });
    Ok(line)
}

fn storefront() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/storefront")
}

fn version(deployed: &Deployed) -> String {
    deployed.deployment.release.version().to_string()
}
