//! The release directory on the host of an executor. What is to be done is decided here, from a look at what is there; a small program of
//! the shell looks, and makes the moves under the directory's lock if everything is as it was looked at.
//!
//! The order of the moves is that of the host's own code, so that the next process goes on wherever this one, or the connection, dies.

mod answer;
mod staged;

use std::path::{Path, PathBuf};

use self::{
    answer::{Refusal, Seen},
    staged::Staged,
};
use super::{
    SyncError, SyncFiles, Synced, exists,
    host::{self, INCOMING, Look},
    record::{self, Record, Switch, next, releases, switched_again},
};
use crate::{
    cancel::Cancel,
    exec::{Command, Executor},
    step::Context,
    steps::tree::{Tree, TreeError},
};

const PROGRAM: &str = include_str!("release.sh");
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// So much of an answer is kept: more than the list of any tree that is carried over a connection.
const ANSWER: usize = 1 << 30;
/// So often a decision is made anew because somebody changed what it was made from.
const DECISIONS: usize = 3;

/// A release directory on the host where `executor` runs commands.
pub(super) struct Far<'a> {
    executor: &'a dyn Executor,
    root: PathBuf,
    at: String,
    cancel: &'a Cancel,
    /// Whom the lock is held for.
    holder: String,
}

/// A release that is to be received.
struct Arrival<'a> {
    spec: &'a SyncFiles,
    source: &'a Tree,
}

impl<'a> Far<'a> {
    pub(super) fn new(
        executor: &'a dyn Executor,
        root: &Path,
        cancel: &'a Cancel,
    ) -> Result<Self, SyncError> {
        crate::steps::tree::resource("dir", root)?;
        let root: PathBuf = root.components().collect();
        let at = root.to_str().filter(|at| !at.contains('\n')).map(str::to_owned);
        let Some(at) = at else { return Err(SyncError::Name(root)) };
        Ok(Self { executor, root, at, cancel, holder: String::new() })
    }

    /// As [`new`](Self::new), for what a step does there.
    pub(super) fn of(
        executor: &'a dyn Executor,
        root: &Path,
        context: &'a Context,
    ) -> Result<Self, SyncError> {
        let (run, step, process) = (context.run(), context.step(), std::process::id());
        let holder = format!("run {run}, step {step}, process {process}, since {}", context.clock().now());
        Ok(Self { holder, ..Self::new(executor, root, context.cancel())? })
    }

    /// Looks at both sides and changes nothing.
    pub(super) async fn compare(&self, spec: &SyncFiles) -> Result<Look, SyncError> {
        let source = if exists(&spec.from) { Some(host::source(spec, self.cancel).await?) } else { None };
        let seen = self.look(&["current"]).await?;
        let found = seen.current.as_ref().and_then(|name| seen.trees.get(name));
        let revision = found.is_some_and(|found| found.is_of_revision(spec));
        let tree = found.map(|found| found.tree(spec)).unwrap_or_default();
        let current = seen.current.map(|name| (name, tree));
        Ok(Look { current, revision, source })
    }

    /// The current release, and the one that a switch to `wanted` would lead to.
    pub(super) async fn choose(&self, wanted: Option<&str>) -> Result<(Option<String>, String), SyncError> {
        let seen = self.look(&[]).await?;
        let to = record::kept(&self.root, seen.names, seen.current.as_deref(), wanted)?;
        Ok((seen.current, to))
    }

    /// Makes the source the current release, once for each `key`.
    pub(super) async fn sync(&self, spec: &SyncFiles, key: &str) -> Result<Synced, SyncError> {
        for _ in 0..DECISIONS {
            if let Some(synced) = self.try_sync(spec, key).await? {
                return Ok(synced);
            }
        }
        Err(self.unsettled())
    }

    /// As [`sync`](Self::sync); `None` if somebody changed the directory meanwhile.
    async fn try_sync(&self, spec: &SyncFiles, key: &str) -> Result<Option<Synced>, SyncError> {
        let seen = self.look(&[]).await?;
        let mut record = seen.record(&self.root)?;
        let mut moves = seen.expected();
        if let Some(switch) = record.of(key).cloned() {
            if seen.current.as_ref() == Some(&switch.to)
                && let Some(digest) = switch.digest
            {
                let old = record.outdated(seen.names, seen.current.as_deref(), spec.keep);
                if !old.is_empty() {
                    moves.extend(old.iter().map(|name| format!("drop {name}")));
                    if !self.act(&moves, None, None).await? {
                        return Ok(None);
                    }
                }
                return Ok(Some(Synced { release: switch.to, digest }));
            }
            if seen.current != switch.from {
                return Err(switched_again(&self.root, switch.from.as_deref(), seen.current));
            }
            // Cut short before the switch: begin again, as the source may be another one by now.
            moves.extend(forget(&mut record, key));
            moves.push("record".to_owned());
            if !self.act(&moves, Some(&mut record), None).await? {
                return Ok(None);
            }
        }
        let source = host::source(spec, self.cancel).await?;
        let digest = source.digest();
        if let Some(expected) = spec.digest.filter(|expected| *expected != digest) {
            return Err(SyncError::OtherTree { from: spec.from.clone(), expected, found: digest });
        }
        let seen = self.look(&["current", &digest.short()]).await?;
        let mut record = seen.record(&self.root)?;
        let holds = |name: &String| seen.trees.get(name).is_some_and(|found| found.holds(spec, digest));
        if let Some(name) = seen.current.as_ref().filter(|name| holds(name)) {
            return Ok(Some(Synced { release: name.clone(), digest }));
        }
        let mut moves = seen.expected();
        let mut names = seen.names.clone();
        let reused = names.iter().rev().find(|name| holds(name)).cloned();
        let to = reused.clone().unwrap_or_else(|| next(&names, digest));
        record.switches.push(Switch {
            key: key.to_owned(),
            from: seen.current.clone(),
            to: to.clone(),
            digest: Some(digest),
            made: reused.is_none(),
        });
        let arrival = reused.is_none().then_some(Arrival { spec, source: &source });
        if arrival.is_some() {
            names.push(to.clone());
            moves.extend(["need".to_owned(), format!("drop {INCOMING}"), "receive".to_owned()]);
            moves.extend(staged::permissions(&source));
            moves.extend(["flush", "record"].map(str::to_owned));
            moves.push(format!("name {to}"));
        } else {
            moves.push("record".to_owned());
        }
        moves.push(format!("switch {to}"));
        moves.extend(record.outdated(names, Some(&to), spec.keep).iter().map(|name| format!("drop {name}")));
        let done = self.act(&moves, Some(&mut record), arrival).await?;
        Ok(done.then_some(Synced { release: to, digest }))
    }

    /// Makes a release that is still there the current one, once for each `key`; without a name the one before the current one. Its name.
    pub(super) async fn back(&self, to: Option<&str>, key: &str) -> Result<String, SyncError> {
        for _ in 0..DECISIONS {
            let seen = self.look(&[]).await?;
            let mut record = seen.record(&self.root)?;
            let mut moves = seen.expected();
            if let Some(switch) = record.of(key).cloned() {
                if seen.current.as_ref() == Some(&switch.to) {
                    return Ok(switch.to);
                }
                if seen.current != switch.from {
                    return Err(switched_again(&self.root, switch.from.as_deref(), seen.current));
                }
                moves.extend(forget(&mut record, key));
            }
            let to = record::kept(&self.root, seen.names, seen.current.as_deref(), to)?;
            let (key, from) = (key.to_owned(), seen.current);
            record.switches.push(Switch { key, from, to: to.clone(), digest: None, made: false });
            moves.extend(["record".to_owned(), format!("switch {to}")]);
            if self.act(&moves, Some(&mut record), None).await? {
                return Ok(to);
            }
        }
        Err(self.unsettled())
    }

    /// Takes back what was done under `key`.
    pub(super) async fn undo(&self, key: &str) -> Result<(), SyncError> {
        for _ in 0..DECISIONS {
            let seen = self.look(&[]).await?;
            if !seen.there {
                return Ok(());
            }
            let mut record = seen.record(&self.root)?;
            let mut moves = seen.expected();
            let Some(switch) = record.of(key).cloned() else {
                moves.push(format!("drop {INCOMING}"));
                match self.act(&moves, None, None).await {
                    Ok(false) => continue,
                    // Refused because somebody else works here, it has done nothing.
                    Ok(true) | Err(SyncError::Busy { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            };
            if seen.current.as_ref() == Some(&switch.to) && seen.current != switch.from {
                if let Some(before) = switch.from.as_ref().filter(|before| !seen.names.contains(before)) {
                    return Err(SyncError::Gone { release: before.clone(), releases: releases(&self.root) });
                }
                moves.push(format!("switch {}", switch.from.as_deref().unwrap_or("-")));
            } else if seen.current != switch.from {
                return Err(switched_again(&self.root, Some(&switch.to), seen.current));
            }
            moves.extend(forget(&mut record, key));
            moves.push("record".to_owned());
            if self.act(&moves, Some(&mut record), None).await? {
                return Ok(());
            }
        }
        Err(self.unsettled())
    }

    async fn look(&self, at: &[&str]) -> Result<Seen, SyncError> {
        let command = self.command("look", Path::new("/")).args(at.iter().copied());
        Seen::read(&self.ask(&command).await?, &self.root)
            .map_err(|refusal| self.refused(refusal, Path::new("")))
    }

    /// Makes `moves`; `false` if somebody changed the directory since it was looked at, and nothing was done.
    async fn act(
        &self,
        moves: &[String],
        record: Option<&mut Record>,
        arrival: Option<Arrival<'_>>,
    ) -> Result<bool, SyncError> {
        let mut staged = Staged::new(moves)?;
        if let Some(record) = record {
            staged.write("record", &record.bytes(&self.root)?)?;
        }
        let mut from = Path::new("");
        if let Some(Arrival { spec, source }) = &arrival {
            from = &spec.from;
            staged.release(spec, source, self.cancel).await?;
        }
        let command = self.command("act", staged.path()).arg(&self.holder).reads(".");
        match answer::end(&self.ask(&command).await?) {
            Ok(_) => Ok(true),
            Err(Refusal::Moved) => Ok(false),
            Err(refusal) => Err(self.refused(refusal, from)),
        }
    }

    fn command(&self, task: &str, dir: &Path) -> Command {
        let mut command = Command::new("/bin/sh", dir).args(["-c", PROGRAM, "sh", task, &self.at]);
        command = command.env("PATH", PATH).env("LC_ALL", "C");
        command.keep = ANSWER;
        command
    }

    async fn ask(&self, command: &Command) -> Result<Vec<u8>, SyncError> {
        let exited = self.executor.run(command, &mut |_| {}, self.cancel).await;
        let exited = exited.map_err(|source| SyncError::Executor { source })?;
        Ok(exited.stdout)
    }

    fn refused(&self, refusal: Refusal, from: &Path) -> SyncError {
        match refusal {
            Refusal::Busy(holder) if holder.is_empty() => {
                SyncError::Busy { to: self.root.clone(), holder: "another process".to_owned() }
            }
            Refusal::Busy(holder) => SyncError::Busy { to: self.root.clone(), holder },
            Refusal::Moved => self.unsettled(),
            Refusal::NotALink => SyncError::NotALink(self.root.join("current")),
            Refusal::Link { path, real } => SyncError::Link { path, real },
            Refusal::NotShared(path) => SyncError::NotShared(self.root.join("shared").join(path)),
            // It had the right digest when the plan for it was made, a moment ago.
            Refusal::Digest => TreeError::Changed(from.to_owned()).into(),
            Refusal::Tool(tool) => SyncError::Tool(tool),
            Refusal::Io { kind, said } => SyncError::Files { kind, source: said.into() },
        }
    }

    fn unsettled(&self) -> SyncError {
        SyncError::Busy {
            to: self.root.clone(),
            holder: "somebody who changes it again and again".to_owned(),
        }
    }
}

/// Takes the switch of `key`, which must not be current, out of the record; what that removes.
fn forget(record: &mut Record, key: &str) -> Vec<String> {
    let made = record.of(key).filter(|switch| switch.made).map(|switch| format!("drop {}", switch.to));
    record.switches.retain(|switch| switch.key != key);
    made.into_iter().chain([format!("drop {INCOMING}")]).collect()
}
