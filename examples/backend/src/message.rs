//! The message of the day, as a step of a deployment.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use flowline_core::{error::ErrorKind, id::ResourceId};
use flowline_pipeline::step::{
    Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
};
use serde::{Deserialize, Serialize};

/// What the file `motd` of a directory is to say. Touches `message:NAME`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// What the message is called, for grants.
    pub name: String,
    /// What it says.
    pub text: String,
}

impl Spec for Message {
    const KIND: &'static str = "example/message";
    type Input = ();
    type Output = ();
}

/// The code of [`Message`]: messages in the files of one directory.
#[derive(Debug)]
pub struct MessageStep {
    dir: PathBuf,
}

impl MessageStep {
    /// Messages in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file of a message. A name comes from outside, so it is looked at before it becomes part of a path.
    ///
    /// # Errors
    /// `Invalid` for a name with anything but ASCII letters, digits and `-`.
    pub fn file(&self, spec: &Message) -> Result<PathBuf, StepError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if spec.name.is_empty() || !spec.name.bytes().all(fits) {
            let said = format!("`{}` names no message; use letters, digits and `-`", spec.name);
            return Err(StepError::new(ErrorKind::Invalid, said));
        }
        Ok(self.dir.join(&spec.name))
    }

    /// Where what was there before is kept, for as long as the run may be undone.
    fn before(&self, spec: &Message, context: &Context) -> PathBuf {
        self.dir.join(format!(".{}-{}", spec.name, context.key().replace('/', "-")))
    }
}

#[async_trait]
impl Step for MessageStep {
    type Spec = Message;

    fn effect(&self, _: &Message) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &Message) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &Message) -> Vec<ResourceId> {
        resource(spec).into_iter().collect()
    }

    async fn preview(&self, spec: &Message, _: &PreviewContext) -> Result<Preview, StepError> {
        let found = read(&self.file(spec)?)?;
        let action = match &found {
            None => Action::Create,
            Some(found) if *found == spec.text => Action::Keep,
            Some(_) => Action::Update,
        };
        let fingerprint = match &found {
            Some(found) => Fingerprint::of(found).map_err(|error| StepError::failed(error.to_string()))?,
            None => Fingerprint::absent(),
        };
        let details = vec![format!("says: {}", spec.text)];
        let seen = Observed { resource: resource(spec)?, action, fingerprint, details };
        Ok(Preview::of(format!("sets the message `{}`", spec.name), vec![seen]))
    }

    async fn run(&self, spec: &Message, (): (), context: &Context) -> Result<(), StepError> {
        context.granted(&resource(spec)?)?;
        let (file, before) = (self.file(spec)?, self.before(spec, context));
        // First what was there, once: an attempt that was cut short must not take its own text for it.
        if read(&before)?.is_none() {
            let found = read(&file)?.map_or_else(|| "-".to_owned(), |found| format!("+{found}"));
            write(&before, &found)?;
        }
        write(&file, &spec.text)
    }

    async fn undo(&self, spec: &Message, _: Option<()>, context: &Context) -> Result<(), StepError> {
        context.granted(&resource(spec)?)?;
        let (file, before) = (self.file(spec)?, self.before(spec, context));
        // Without it, the effect never happened or is undone already.
        let Some(found) = read(&before)? else { return Ok(()) };
        match found.strip_prefix('+') {
            Some(text) => write(&file, text)?,
            None => remove(&file)?,
        }
        remove(&before)
    }
}

fn resource(spec: &Message) -> Result<ResourceId, StepError> {
    let bad = |error| {
        StepError::new(ErrorKind::Invalid, format!("`{}` names no message", spec.name)).because(error)
    };
    ResourceId::of("message", &spec.name).map_err(bad)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StepError {
    let said = format!("cannot use {}", path.display());
    move |error| StepError::new(ErrorKind::Unavailable, said.clone()).because(error)
}

fn read(path: &Path) -> Result<Option<String>, StepError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// In one move: whoever reads it finds the old text or the new one.
fn write(path: &Path, text: &str) -> Result<(), StepError> {
    let beside = path.with_extension("new");
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, path)).map_err(failed(path))
}

fn remove(path: &Path) -> Result<(), StepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}
