//! The cases: what the engine relies on, each by its sentence.

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    error::{ErrorKind, Kinded, chain},
};
use futures_util::{
    FutureExt,
    future::{Either, LocalBoxFuture, select},
};
use serde_json::Value;

use super::{
    super::Verdict::{DoesNotApply, Holds},
    bench::{Bench, polled},
};
use crate::testkit::Outcome;
use crate::{
    cancel::Cancel,
    plan::{Action, Effect, Undo},
    step::Happened,
};

/// Makes a fresh world.
pub(super) type Make<'a> = dyn Fn() -> LocalBoxFuture<'a, Result<Bench, String>> + 'a;

type Check = for<'a> fn(&'a Make<'a>) -> LocalBoxFuture<'a, Outcome>;

pub(super) const CASES: &[(&str, Check)] = &[
    ("parameters survive being written and read", |make| parameters(make).boxed_local()),
    ("a parameter that nobody knows is refused", |make| unknown_parameter(make).boxed_local()),
    ("effect, undo and resources follow from the parameters alone", |make| declared(make).boxed_local()),
    ("a preview changes nothing and says the same again", |make| preview_is_pure(make).boxed_local()),
    ("a preview shows every resource that the step touches", |make| preview_shows(make).boxed_local()),
    ("a preview that keeps everything comes true", |make| keeps(make).boxed_local()),
    ("what a preview says will change gets another fingerprint", |make| moves(make).boxed_local()),
    ("an output survives being written and read", |make| output(make).boxed_local()),
    ("a pure step changes nothing", |make| pure(make).boxed_local()),
    ("an idempotent step done twice is done once", |make| twice(make).boxed_local()),
    ("before the run a probe says that it did not happen", |make| probe_before(make).boxed_local()),
    ("after the run a probe says that it happened, with its output", |make| probe_after(make).boxed_local()),
    ("a step cut short anywhere comes to its end", |make| cut_short(make).boxed_local()),
    ("undo restores what was before", |make| undo(make).boxed_local()),
    ("undo of what never happened changes nothing", |make| undo_nothing(make).boxed_local()),
    ("undo of a step cut short anywhere restores what was before", |make| undo_cut(make).boxed_local()),
    ("a step without its grants is denied and changes nothing", |make| denied(make).boxed_local()),
    ("a cancelled step ends soon", |make| cancelled(make).boxed_local()),
    ("a secret is seen nowhere", |make| secrets(make).boxed_local()),
];

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected { Ok(Holds) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

async fn parameters(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    same("read and written again", &bench.reread_spec(bench.params.clone())?, &bench.params)
}

async fn unknown_parameter(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    let mut params = bench.params.clone();
    let Value::Object(fields) = &mut params else { return Ok(DoesNotApply) };
    fields.insert("mistyped".to_owned(), Value::Bool(true));
    match bench.reread_spec(params) {
        Err(_) => Ok(Holds),
        Ok(_) => Err("`mistyped` was read; use `#[serde(deny_unknown_fields)]`".to_owned()),
    }
}

async fn declared(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    let say = |bench: &Bench| -> Result<_, String> {
        let bound = bench.registry.resolve(&bench.kind, &bench.params).map_err(|error| chain(&error))?;
        Ok((bound.effect(), bound.undoing(), bound.touches()))
    };
    let before = say(&bench)?;
    same("asked twice", &say(&bench)?, &before)?;
    // Whatever the run answers: what was declared stays.
    drop(bench.try_run(1).await);
    same("asked after the run", &say(&bench)?, &before)
}

async fn preview_is_pure(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    let before = bench.world();
    let (one, two) = (bench.preview().await?, bench.preview().await?);
    same("the world after two previews", &bench.world(), &before)?;
    same("the second preview", &two, &one)
}

async fn preview_shows(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    let preview = bench.preview().await?;
    for resource in bench.bound.touches() {
        if !preview.resources.iter().any(|seen| seen.resource == resource) {
            return Err(format!("`{resource}` is touched and not shown"));
        }
    }
    Ok(Holds)
}

async fn keeps(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    bench.run(1).await?;
    // A second plan of the same: what now says that it keeps everything must keep it.
    let preview = bench.preview().await?;
    if preview.action != Action::Keep {
        return Ok(DoesNotApply);
    }
    let before = bench.world();
    let output = bench.run(2).await?;
    same("the world", &bench.world(), &before)?;
    match preview.known {
        Some(known) => same("the output that was known before", &output, &known),
        None => Ok(Holds),
    }
}

async fn moves(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    let before = bench.preview().await?;
    bench.run(1).await?;
    let after = bench.preview().await?;
    let changing =
        |action| matches!(action, Action::Create | Action::Update | Action::Replace | Action::Delete);
    for seen in before.resources.iter().filter(|seen| changing(seen.action)) {
        let found = after.resources.iter().find(|found| found.resource == seen.resource);
        if found.is_none_or(|found| found.fingerprint == seen.fingerprint) {
            return Err(format!("`{}` was changed and looks as before", seen.resource));
        }
    }
    Ok(Holds)
}

async fn output(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    let output = bench.run(1).await?;
    same("read and written again", &bench.reread_output(output.clone())?, &output)
}

async fn pure(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.bound.effect() != Effect::Pure {
        return Ok(DoesNotApply);
    }
    let before = bench.world();
    bench.run(1).await?;
    same("the world", &bench.world(), &before)
}

async fn twice(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if !matches!(bench.bound.effect(), Effect::Idempotent { .. }) {
        return Ok(DoesNotApply);
    }
    let output = bench.run(1).await?;
    let once = bench.world();
    let again = bench.run(2).await?;
    same("the world after the second run", &bench.world(), &once)?;
    same("the second output", &again, &output)
}

async fn probe_before(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.bound.effect() != Effect::Probed {
        return Ok(DoesNotApply);
    }
    let (before, nothing_to_do) = (bench.world(), bench.preview().await?.action == Action::Keep);
    let said = bench.probe().await?;
    same("the world after the probe", &bench.world(), &before)?;
    match said {
        Happened::Yes(_) if nothing_to_do => Ok(Holds),
        Happened::Yes(output) => Err(format!("it said that it happened, with {output}")),
        Happened::No | Happened::Unknown(_) => Ok(Holds),
    }
}

async fn probe_after(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.bound.effect() != Effect::Probed {
        return Ok(DoesNotApply);
    }
    let output = bench.run(1).await?;
    let before = bench.world();
    let said = bench.probe().await?;
    same("the world after the probe", &bench.world(), &before)?;
    match said {
        Happened::Yes(found) => same("its output", &found, &output),
        Happened::No => Err("it said that it did not happen".to_owned()),
        Happened::Unknown(_) => Ok(Holds),
    }
}

/// After how many polls a run is dropped: each of the first, then fewer.
fn cuts() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |cut| (*cut < 20_000).then(|| cut + (cut / 6).max(1)))
}

async fn cut_short(make: &Make<'_>) -> Outcome {
    let whole = make().await?;
    if whole.bound.effect() == Effect::Once {
        return Ok(DoesNotApply);
    }
    whole.run(1).await?;
    for cut in cuts() {
        let bench = make().await?;
        let ended = bench.cut(cut).await?;
        let at = format!("cut after {cut} polls: the world");
        match bench.bound.effect() {
            Effect::Probed => match bench.probe().await.map_err(|error| format!("{at}: {error}"))? {
                Happened::Yes(_) | Happened::Unknown(_) if ended => {}
                Happened::Unknown(_) => continue,
                Happened::Yes(_) => {}
                Happened::No => drop(bench.run(2).await.map_err(|error| format!("{at}: {error}"))?),
            },
            _ => drop(bench.run(2).await.map_err(|error| format!("{at}: {error}"))?),
        }
        same(&at, &bench.world(), &whole.world())?;
        if ended {
            break;
        }
    }
    Ok(Holds)
}

async fn undo(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.bound.undoing() != Undo::Compensate {
        return Ok(DoesNotApply);
    }
    let before = bench.world();
    let output = bench.run(1).await?;
    bench.undo(Some(output.clone())).await?;
    same("the world", &bench.world(), &before)?;
    bench.undo(Some(output)).await.map_err(|error| format!("a second time: {error}"))?;
    same("the world after a second undo", &bench.world(), &before)
}

async fn undo_nothing(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.bound.undoing() != Undo::Compensate {
        return Ok(DoesNotApply);
    }
    let before = bench.world();
    bench.undo(None).await?;
    same("the world", &bench.world(), &before)
}

async fn undo_cut(make: &Make<'_>) -> Outcome {
    for cut in cuts() {
        let bench = make().await?;
        if bench.bound.undoing() != Undo::Compensate {
            return Ok(DoesNotApply);
        }
        let before = bench.world();
        let ended = bench.cut(cut).await?;
        let at = format!("cut after {cut} polls");
        bench.undo(None).await.map_err(|error| format!("{at}: {error}"))?;
        same(&format!("{at}: the world"), &bench.world(), &before)?;
        if ended {
            break;
        }
    }
    Ok(Holds)
}

async fn denied(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.bound.touches().is_empty() {
        return Ok(DoesNotApply);
    }
    let before = bench.world();
    let context = bench.context_granted(1, &Cancel::new(), Vec::new());
    let said = bench.run_in(&context).await;
    same("the world", &bench.world(), &before)?;
    match said {
        Err(error) if error.kind() == ErrorKind::Denied => Ok(Holds),
        Err(error) => Err(format!("its error is of kind `{}`: {}", error.kind(), chain(&error))),
        Ok(_) => Err("it ran; ask for `context.granted(resource)` before each effect".to_owned()),
    }
}

async fn cancelled(make: &Make<'_>) -> Outcome {
    const SOON: SignedDuration = SignedDuration::from_secs(5);
    for polls in [0, 1] {
        let bench = make().await?;
        let cancel = Cancel::new();
        let context = bench.context(1, &cancel);
        let mut work = Box::pin(bench.run_in(&context));
        if polled(work.as_mut(), polls).await.is_some() {
            continue;
        }
        cancel.cancel();
        match select(work, SystemClock.sleep(SOON)).await {
            Either::Left((Ok(_), _)) => {}
            Either::Left((Err(error), _)) if error.kind() == ErrorKind::Cancelled => {}
            Either::Left((Err(error), _)) => {
                return Err(format!("its error is of kind `{}`: {}", error.kind(), chain(&error)));
            }
            Either::Right(_) => return Err(format!("it went on for {SOON:#}")),
        }
    }
    Ok(Holds)
}

async fn secrets(make: &Make<'_>) -> Outcome {
    let bench = make().await?;
    if bench.secrets.is_empty() {
        return Ok(DoesNotApply);
    }
    let mut seen = vec![
        ("its `Debug`", format!("{:?}", bench.bound)),
        ("its parameters", bench.params.to_string()),
        ("its preview", format!("{:?}", bench.preview().await?)),
    ];
    match bench.try_run(1).await {
        Ok(output) => seen.push(("its output", output.to_string())),
        Err(error) => seen.push(("its error", format!("{error:?} {}", chain(&error)))),
    }
    if bench.bound.undoing() == Undo::Compensate
        && let Err(error) = bench.undo(None).await
    {
        seen.push(("the error of its undo", error));
    }
    seen.push(("its lines", bench.reporter.lines().join("\n")));
    for (place, text) in seen {
        let masked = crate::exec::Masker::new(bench.secrets.values()).mask(text.as_bytes());
        if masked != text.as_bytes() {
            return Err(format!("{place} shows one: {}", String::from_utf8_lossy(&masked)));
        }
    }
    Ok(Holds)
}
