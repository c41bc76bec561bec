//! What a pure step need not compute again: its output, kept under a digest of everything that it declares.
//!
//! The key covers the step's code (kind and version, and the deployer's build where the code is a closure), its parameters, its input, the
//! content of each declared file and the declared version of each tool. A step that does not declare what it reads is never looked up.
//! Under the step's name the last recipe is kept too, part by part, so that it can be said what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
};

use flowline_core::{
    digest::{Digest, Digester},
    error::ErrorKind,
    id::{Key, RunId},
    store::{Batch, Store, StoreExt},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Why, attempt::Came};
use crate::{
    plan::{Declared, StepKind},
    step::StepError,
};

/// Everything that a pure step's output depends on, as it declares.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) declared: Declared,
    pub(super) kind: StepKind,
    pub(super) params: Value,
    pub(super) input: Value,
    pub(super) build: Option<Digest>,
    /// The pipeline and the step.
    pub(super) name: String,
    pub(super) run: RunId,
    /// Nothing is taken from the cache, but what comes is kept.
    pub(super) off: bool,
}

/// What is kept of a recipe, and why it ran.
#[derive(Debug)]
pub(super) struct Entry {
    documents: Vec<(Key, Value)>,
    pub(super) why: Why,
}

impl Entry {
    /// Adds what is kept to the commit that records the step's end.
    pub(super) fn put(&self, batch: &mut Batch) {
        for (key, value) in &self.documents {
            // Two steps with one recipe gave the same.
            if !batch.put.iter().any(|(put, _)| put == key) {
                batch.put.push((key.clone(), Some(value.clone())));
            }
        }
    }
}

/// A kept output.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    run: RunId,
    output: Value,
}

/// The parts of a recipe, each as a digest.
type Parts = BTreeMap<String, Digest>;

impl Recipe {
    /// Takes the output from the cache, or has `work` give it and keeps it.
    pub(super) async fn apply(
        self,
        store: &dyn Store,
        work: impl Future<Output = Result<Came, StepError>>,
    ) -> (Result<Came, StepError>, Option<Entry>) {
        let (parts, key, last) = match self.keys() {
            Ok(keys) => keys,
            Err(error) => return (Err(error), None),
        };
        let why = if self.off {
            Why::CacheOff
        } else {
            match store.get::<Kept>(&key).await {
                Ok(Some((_, kept))) => return (Ok(Came::Cached(kept.output, kept.run)), None),
                // What can't be read is not there.
                Ok(None) | Err(_) => match store.get::<Parts>(&last).await {
                    Ok(Some((_, before))) => Why::Changed(changed(&before, &parts)),
                    Ok(None) | Err(_) => Why::New,
                },
            }
        };
        let result = work.await;
        let Ok(Came::Done(output)) = &result else { return (result, None) };
        let kept = serde_json::to_value(Kept { run: self.run, output: output.clone() });
        let documents = match (kept, serde_json::to_value(&parts)) {
            (Ok(kept), Ok(parts)) => vec![(key, kept), (last, parts)],
            _ => Vec::new(),
        };
        (result, Some(Entry { documents, why }))
    }

    fn keys(&self) -> Result<(Parts, Key, Key), StepError> {
        let mut parts = Parts::new();
        let json = |value: &Value| Digest::of(crate::plan::sorted(value.clone()).to_string());
        parts.insert("code".to_owned(), Digest::of(self.kind.to_string()));
        if let Some(build) = self.build.filter(|_| self.kind.name().starts_with("fn/")) {
            parts.insert("build of the deployer".to_owned(), build);
        }
        parts.insert("parameters".to_owned(), json(&self.params));
        parts.insert("input".to_owned(), json(&self.input));
        for file in &self.declared.files {
            parts.insert(format!("file {}", file.display()), content(file)?);
        }
        for (tool, version) in &self.declared.tools {
            parts.insert(format!("tool {tool}"), Digest::of(version));
        }
        let mut digester = Digester::new("flowline cache 1");
        for (name, digest) in &parts {
            digester.part(name).part(digest.as_bytes());
        }
        let refused =
            |error: flowline_core::name::NameError| StepError::new(ErrorKind::Invalid, error.to_string());
        let key = Key::new(format!("cache/output/{}", digester.finish().hex())).map_err(refused)?;
        let last = Key::new(format!("cache/recipe/{}", Digest::of(&self.name).hex())).map_err(refused)?;
        Ok((parts, key, last))
    }
}

fn changed(before: &Parts, now: &Parts) -> BTreeSet<String> {
    let names = before.keys().chain(now.keys());
    names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
}

/// The digest of a file's content, read piece by piece.
fn content(file: &Path) -> Result<Digest, StepError> {
    const PIECE: u64 = 64 * 1024;
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        let problem =
            format!("the declared file `{}` cannot be read; is it made by another step?", file.display());
        StepError::new(kind, problem).because(error)
    };
    let mut opened = std::fs::File::open(file).map_err(failed)?;
    let mut digester = Digester::new("flowline file 1");
    let mut piece = Vec::new();
    loop {
        piece.clear();
        if opened.by_ref().take(PIECE).read_to_end(&mut piece).map_err(failed)? == 0 {
            return Ok(digester.finish());
        }
        digester.part(&piece);
    }
}
