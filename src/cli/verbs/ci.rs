//! `ci render` and `ci check`: the thin file that starts the deployer.

use std::fs;

use flowline_core::error::BoxError;
use flowline_pipeline::ci::{
    Azure, CiKind, CiTarget, Compared, Environment, GitHub, GitLab, Jenkins, Rendered, Wrapper, compare,
};

use crate::cli::answer::add;
use crate::{
    cli::{Answer, Cli, CliError, Exit, Session, args::System},
    topology::Topology,
};

pub(super) fn render(
    cli: &Cli,
    session: &Session,
    system: Option<System>,
    write: bool,
) -> Result<Answer, BoxError> {
    let rendered = rendered(cli, session, system)?;
    let mut text = String::new();
    for (path, content) in &rendered.files {
        if write {
            let file = session.surroundings().directory.join(path);
            let failed = |source| CliError::File { doing: "write", file: file.display().to_string(), source };
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent).map_err(failed)?;
            }
            fs::write(&file, content).map_err(failed)?;
            add!(text, "wrote {path}\n");
        } else {
            text.push_str(content);
        }
    }
    for note in &rendered.notes {
        session.say(format!("note: {note}"));
    }
    Ok(Answer::text(text)
        .with("files", &rendered.files)
        .with("notes", &rendered.notes)
        .with("written", write))
}

pub(super) fn check(cli: &Cli, session: &Session, system: Option<System>) -> Result<Answer, BoxError> {
    let rendered = rendered(cli, session, system)?;
    let mut text = String::new();
    let mut differing = Vec::new();
    for (path, content) in &rendered.files {
        let file = session.surroundings().directory.join(path);
        let committed = match fs::read(&file) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(CliError::File { doing: "read", file: file.display().to_string(), source }.into());
            }
        };
        match compare(committed.as_deref(), content) {
            Compared::Same => add!(text, "{path} is up to date\n"),
            Compared::Missing => {
                add!(text, "{path} is missing; `{} ci render --write` writes it\n", session.program());
                differing.push(path);
            }
            Compared::Differs(diff) => {
                add!(
                    text,
                    "{path} differs; `{} ci render --write` writes it anew\n{diff}",
                    session.program()
                );
                differing.push(path);
            }
        }
    }
    let exit = if differing.is_empty() { Exit::Done } else { Exit::Changes };
    Ok(Answer::text(text).with("differing", &differing).exit(exit))
}

fn rendered(cli: &Cli, session: &Session, system: Option<System>) -> Result<Rendered, BoxError> {
    let wrapper = match &cli.wrapper {
        Some(wrapper) => wrapper.clone(),
        None => usual(cli, session)?,
    };
    let kind = match (system, session.surroundings().ci()) {
        (Some(System::Github), _) | (None, CiKind::None) => CiKind::GitHub,
        (Some(System::Gitlab), _) => CiKind::GitLab,
        (Some(System::Azure), _) => CiKind::Azure,
        (Some(System::Jenkins), _) => CiKind::Jenkins,
        (None, around) => around,
    };
    if let Some(target) = cli.targets.iter().rev().find(|target| target.kind() == kind) {
        return Ok(target.render(&wrapper)?);
    }
    let rendered = match kind {
        CiKind::GitLab => GitLab::default().render(&wrapper),
        CiKind::Azure => Azure::default().render(&wrapper),
        CiKind::Jenkins => Jenkins::default().render(&wrapper),
        _ => GitHub::default().render(&wrapper),
    };
    Ok(rendered?)
}

/// Each push to the main branch, and a person, apply to the base environment, one after the other. Nothing but the topology is read, so
/// that it works where no state and no grants are.
fn usual(cli: &Cli, session: &Session) -> Result<Wrapper, BoxError> {
    let topology = match session.files() {
        Some((topology, _)) => Topology::load(session.surroundings().directory.join(topology))?,
        None => session.delivery()?.topology().clone(),
    };
    let base = topology.base().ok_or_else(|| CliError::Usage {
        problem: "the topology has no environment".to_owned(),
        help: "add `[environments.production]`".to_owned(),
    })?;
    let words = cli.call.clone().unwrap_or_else(|| vec![session.program().to_owned()]);
    let mut wrapper = Wrapper::deploy(topology.app.as_str(), words.clone())?;
    wrapper.triggers.push = vec![flowline_pipeline::ci::Branches::new(topology.branch.as_str())?];
    for job in &mut wrapper.jobs {
        job.call = flowline_pipeline::ci::words(
            words.iter().cloned().chain(["apply".to_owned(), base.to_string()]),
        )?;
        job.environment = Some(Environment::lasting(base.clone()));
    }
    Ok(wrapper)
}
