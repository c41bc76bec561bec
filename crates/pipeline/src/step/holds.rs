//! Secrets in what would be kept: what a run records is read by many and for long, so a secret in it is refused by name.

use std::fmt;

use flowline_core::{
    error::{ErrorKind, Kinded},
    secret::SecretName,
};
use serde_json::Value;

use super::Secrets;
use crate::{exec::Masker, plan::StepId};

/// A value that would be recorded holds a secret, so it is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kept} step `{step}` holds the value of the secret `{secret}` and is not recorded; hand on the secret's name, and let the step that needs it ask `Context::secret`"
)]
pub struct HoldsSecret {
    /// The step that it is of.
    pub step: StepId,
    /// What holds it.
    pub kept: Kept,
    /// The name of the secret.
    pub secret: SecretName,
}

/// What of a step a run records word for word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// What the step gave, or its probe found.
    Output,
    /// What was said to it from outside.
    Signal,
    /// What a person said that it gave.
    Resolution,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output => "the output of",
            Self::Signal => "the signal to",
            Self::Resolution => "what is said to have come of",
        })
    }
}

impl Kinded for HoldsSecret {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The name of the first of `secrets` that stands in `value`, in any form that `masker`, which is of all of them, would mask.
pub(crate) fn secret_in(secrets: &Secrets, masker: &Masker, value: &Value) -> Option<SecretName> {
    if masker.is_empty() || !stands_in(masker, value) {
        return None;
    }
    let mut names = secrets.iter();
    names.find(|(_, secret)| stands_in(&Masker::new([*secret]), value)).map(|(name, _)| name.clone())
}

/// Whether a secret stands in `value`: in a text, a number, a name, or in bytes that were written as numbers.
fn stands_in(masker: &Masker, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(number) => masker.finds_in(number.to_string().as_bytes()),
        Value::String(text) => masker.finds_in(text.as_bytes()),
        Value::Array(list) => {
            let bytes: Option<Vec<u8>> = list.iter().map(|item| u8::try_from(item.as_u64()?).ok()).collect();
            bytes.is_some_and(|bytes| masker.finds_in(&bytes))
                || list.iter().any(|item| stands_in(masker, item))
        }
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| masker.finds_in(name.as_bytes()) || stands_in(masker, value))
        }
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::secret::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_found_wherever_it_stands_in_a_value() {
        let secrets = Secrets::from([
            ("PIN".to_owned(), Secret::new("271828")),
            ("KEY".to_owned(), Secret::new("correct-horse/battery")),
        ]);
        let masker = Masker::new(secrets.values());
        let found = |value: Value| secret_in(&secrets, &masker, &value);
        for holds in [
            json!({ "deep": [1, { "text": "token correct-horse/battery" }] }),
            json!({ "correct-horse/battery": null }),
            json!("Y29ycmVjdC1ob3JzZS9iYXR0ZXJ5"),
            json!(b"<correct-horse/battery>"),
        ] {
            assert_eq!(found(holds.clone()), Some("KEY".to_owned()), "{holds}");
        }
        assert_eq!(found(json!(271_828)), Some("PIN".to_owned()));
        assert_eq!(found(json!(["correct-horse", true, null, 27, 18.5, "***"])), None);
    }
}
