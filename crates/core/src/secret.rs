//! Values that must not be seen: a [`Secret`] can't be printed or serialized.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer};

/// A value that can't be printed, compared or serialized by accident. Reading one from configuration is fine.
///
/// This stops accidents, not malice: whoever holds it can call [`expose`](Self::expose), and that call is easy to search for.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `value`.
    pub fn new(value: impl AsRef<str>) -> Self {
        Self(value.as_ref().into())
    }

    /// The value. Call it where the value leaves the program for the one place that it is meant for, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A secret's name, which may be shown: `DATABASE_PASSWORD`.
pub type SecretName = String;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
