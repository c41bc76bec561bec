//! `plan`, `apply`, `rollback`.

use std::{fmt::Write as _, fs, path::Path};

use flowline_core::{error::BoxError, name::EnvironmentName};
use flowline_pipeline::Sealed;

use super::{host::Routed, revision};
use crate::{
    Delivery,
    cli::{Answer, CliError, Exit, Session, names, paint::Paint},
    delivery::{Deployed, PlannedDeployment},
};

/// What is to be deployed, and how, as it was called.
pub(super) struct Wanted {
    pub(super) environment: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) no_cache: bool,
    pub(super) any_build: bool,
}

impl Wanted {
    /// The delivery that does it so, and where.
    fn of(&self, session: &Session) -> Result<(Delivery, EnvironmentName), BoxError> {
        let mut delivery = session.delivery()?;
        if self.no_cache {
            delivery = delivery.without_cache();
        }
        if self.any_build {
            delivery = delivery.allow_other_build();
        }
        let environment = names::lasting(&delivery, self.environment.as_deref())?;
        Ok((delivery, environment))
    }
}

pub(super) async fn plan(
    session: &Session,
    wanted: &Wanted,
    out: Option<&Path>,
    markdown: bool,
) -> Result<Answer, BoxError> {
    let (delivery, environment) = wanted.of(session)?;
    let revision = revision(session, &delivery, wanted.revision.as_deref());
    let planned = delivery.plan(&environment, &revision).await?;
    refuse_denied(session, &planned)?;
    let mut text =
        if markdown { planned.plan().to_markdown() } else { session.paint().plan(&planned.to_string()) };
    let sealed = planned.plan().clone().seal()?;
    if let Some(out) = out {
        let bytes = sealed.to_bytes()?;
        fs::write(out, bytes).map_err(|source| CliError::File {
            doing: "write the plan to",
            file: out.display().to_string(),
            source,
        })?;
    }
    let changes = planned.has_changes();
    if !markdown && changes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", session.paint().soft(format!("sealed as {}", sealed.digest())));
        let mut next = out.map_or(String::new(), |out| format!(" --plan {}", out.display()));
        if wanted.no_cache {
            next.push_str(" --no-cache");
        }
        let _ = writeln!(text, "to do it: {} apply {environment}{next}", session.program());
    }
    Ok(Answer::text(text)
        .with("environment", &environment)
        .with("revision", &revision)
        .with("changes", changes)
        .with("digest", sealed.digest())
        .with("plan", planned.plan().to_json()?)
        .output("plan_digest", sealed.digest().to_string())
        .output("changes", changes.to_string())
        .summary(planned.plan().to_markdown())
        .exit(if changes { Exit::Changes } else { Exit::Done }))
}

pub(super) async fn apply(
    session: &Session,
    wanted: &Wanted,
    plan: Option<&Path>,
) -> Result<Answer, BoxError> {
    let (delivery, environment) = wanted.of(session)?;
    let deployed = if let Some(path) = plan {
        let bytes = fs::read(path).map_err(|source| CliError::File {
            doing: "read the plan",
            file: path.display().to_string(),
            source,
        })?;
        let sealed = Sealed::open(&bytes)?;
        let expected = format!("deploy {environment}");
        if sealed.plan().name() != expected {
            return Err(CliError::Usage {
                problem: format!(
                    "{} is a plan to `{}`, not to `{expected}`",
                    path.display(),
                    sealed.plan().name()
                ),
                help: format!("make one with `plan {environment} --out {}`", path.display()),
            }
            .into());
        }
        let routed = Routed::ensure(session, &delivery).await?;
        routed.over(delivery.deploy_sealed(&environment, &sealed).await).await?
    } else {
        let revision = revision(session, &delivery, wanted.revision.as_deref());
        let planned = delivery.plan(&environment, &revision).await?;
        refuse_denied(session, &planned)?;
        let routed = Routed::ensure(session, &delivery).await?;
        routed.over(delivery.deploy(&environment, &revision).await).await?
    };
    answer(session, &delivery, &deployed, "is at").await
}

/// A plan that is denied is shown, so that what is asked for can be read at once.
fn refuse_denied(session: &Session, planned: &PlannedDeployment) -> Result<(), BoxError> {
    let denials = planned.plan().denied().to_vec();
    if denials.is_empty() {
        return Ok(());
    }
    session.say(planned.to_string().trim_end());
    Err(CliError::Denied { denials, plan: planned.plan().to_json()?.into() }.into())
}

pub(super) async fn rollback(
    session: &Session,
    environment: Option<&str>,
    from: Option<u64>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let environment = names::lasting(&delivery, environment)?;
    let routed = Routed::ensure(session, &delivery).await?;
    let done = match from {
        Some(generation) => delivery.rollback_from(&environment, generation).await,
        None => delivery.rollback(&environment).await,
    };
    let deployed = routed.over(done).await?;
    answer(session, &delivery, &deployed, "is back at").await
}

/// What a deployment came to.
pub(super) async fn answer(
    session: &Session,
    delivery: &Delivery,
    deployed: &Deployed,
    verb: &str,
) -> Result<Answer, BoxError> {
    let Deployed { environment, deployment, built, changed } = deployed;
    let version = deployment.release.version().to_string();
    let paint: Paint = session.paint();
    let mut text = format!(
        "{} {verb} {} (deployment {}, commit {})\n",
        paint.strong(environment),
        paint.good(&version),
        deployment.generation,
        deployment.commit.short()
    );
    if !changed {
        text.push_str("  nothing to do: it was there already\n");
    }
    let mut urls = Vec::new();
    for component in delivery.topology().components.keys() {
        let url = names::url(delivery, environment, component).await?;
        let how = if built.contains(component) { "built" } else { "as it was" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {component}  {url}{}",
            if *changed { format!("  ({how})") } else { String::new() }
        );
        urls.push(url);
    }
    let _ = writeln!(text, "{}", paint.soft(format!("run {}", deployment.run)));
    let mut answer = Answer::text(text)
        .with("environment", environment)
        .with("changed", changed)
        .with("version", &version)
        .with("deployment", deployment)
        .with("built", built)
        .with("urls", &urls)
        .output("version", version.as_str())
        .output("deployment", deployment.generation.to_string())
        .output("run", deployment.run.to_string());
    if let Some(url) = urls.into_iter().next() {
        answer = answer.output("url", url);
    }
    Ok(answer)
}
