//! The finished commands: each asks the delivery, and puts its answer into words and data.

mod ci;
mod deploy;
mod files;
mod graph;
mod host;
mod look;
mod runs;
mod way;

use flowline_core::error::BoxError;
use flowline_pipeline::ci::{CiKind, Facts};

use super::{
    Answer, Cli, Session,
    args::{CiVerb, Verb},
};
use crate::Delivery;

/// Does what `verb` says.
pub(super) async fn run(cli: &Cli, session: Session, verb: Verb) -> Result<Answer, BoxError> {
    match verb {
        Verb::Plan { environment, revision, out, markdown, no_cache } => {
            let wanted = deploy::Wanted { environment, revision, no_cache, any_build: false };
            deploy::plan(&session, &wanted, out.as_deref(), markdown).await
        }
        Verb::Apply { environment, revision, plan, no_cache, allow_other_build } => {
            let wanted = deploy::Wanted { environment, revision, no_cache, any_build: allow_other_build };
            deploy::apply(&session, &wanted, plan.as_deref()).await
        }
        Verb::Rollback { environment, from } => {
            deploy::rollback(&session, environment.as_deref(), from).await
        }
        Verb::Status { environment } => look::status(&session, environment.as_deref()).await,
        Verb::History { environment, limit } => look::history(&session, environment.as_deref(), limit).await,
        Verb::Why { subject } => look::why(&session, &subject).await,
        Verb::Timeline { change } => look::timeline(&session, &change).await,
        Verb::Logs { run, step, times } => runs::logs(&session, &run, step.as_deref(), times).await,
        Verb::Report { run, out } => runs::report(&session, &run, out.as_deref()).await,
        Verb::Approve { run, step, by, valid } => {
            runs::approve(&session, &run, step.as_deref(), by.as_deref(), valid).await
        }
        Verb::Resolve { run, step, happened, did_not: _, output } => {
            let output = happened.then(|| output.unwrap_or_default());
            runs::resolve(&session, &run, &step, output).await
        }
        Verb::Signal { run, value, step, id } => {
            runs::signal(&session, &run, value.unwrap_or_default(), step.as_deref(), id.as_deref()).await
        }
        Verb::Graph { what, format, revision } => {
            graph::graph(&session, what.as_deref(), format, revision.as_deref()).await
        }
        Verb::Preview { change } => way::preview(&session, &change).await,
        Verb::Receive { file } => way::receive(&session, &file).await,
        Verb::Propose { number, branch, title } => way::propose(&session, number, &branch, &title).await,
        Verb::Merged { change, revision } => way::merged(&session, &change, revision.as_deref()).await,
        Verb::Verify { environment } => way::verify(&session, &environment).await,
        Verb::Promote { change, environment } => {
            way::promote(&session, &change, environment.as_deref()).await
        }
        Verb::Release { flag, percent, environment, change } => {
            way::release(&session, &flag, percent, environment.as_deref(), change.as_deref()).await
        }
        Verb::Close { change } => way::close(&session, &change).await,
        Verb::Serve { port } => host::serve(&session, port).await,
        Verb::Halt => host::halt(&session).await,
        Verb::Ci(CiVerb::Render { system, write }) => ci::render(cli, &session, system, write),
        Verb::Ci(CiVerb::Check { system }) => ci::check(cli, &session, system),
        Verb::Schema { name } => files::schema(name.as_deref()),
        Verb::Completions { shell } => files::completions(cli, &session, shell),
        Verb::Init { directory } => files::init(&session, &directory),
        Verb::Own(index, matches) => match cli.own.get(index) {
            Some(own) => (own.code)(session, matches).await,
            None => Err("this command is not there".into()),
        },
    }
}

/// What is deployed if nobody says: what the CI around checked out, or the topology's main branch.
fn revision(session: &Session, delivery: &Delivery, told: Option<&str>) -> String {
    if let Some(told) = told {
        return told.to_owned();
    }
    let around = session.surroundings();
    let commit = match around.ci() {
        CiKind::None => None,
        kind => Facts::read(kind, &around.env).commit,
    };
    commit.unwrap_or_else(|| delivery.topology().branch.clone())
}
