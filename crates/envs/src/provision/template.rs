//! Texts that a backend completes: which places they may have, and how a brace is written.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::workload::WorkloadError;

/// A text with places that the backend fills: `{release}` (the release's directory, absolute), `{data}` (the component's own directory
/// that outlives releases), `{port}`, `{environment}`, `{component}`. A brace is written twice to mean itself.
///
/// A release's directory is no place for data: a backend makes it anew when its content is not the artifact's any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Template(String);

/// A place in a [`Template`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placeholder {
    /// The directory of the release, absolute.
    Release,
    /// The component's directory for what outlives a release, absolute. It goes when the whole resource is destroyed.
    Data,
    /// The port.
    Port,
    /// The environment's name.
    Environment,
    /// The component's name.
    Component,
}

impl Template {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// If it has a placeholder that does not exist, a single brace, or a NUL character.
    pub fn new(text: impl Into<String>) -> Result<Self, WorkloadError> {
        let template = Self(text.into());
        template.fill(|_| Ok::<_, WorkloadError>(String::new()))?;
        Ok(template)
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text with `value` in its places. No error of its own: the text was checked.
    ///
    /// # Errors
    /// That of `value`.
    pub fn fill<E: From<WorkloadError>>(
        &self,
        value: impl Fn(Placeholder) -> Result<String, E>,
    ) -> Result<String, E> {
        let refuse = |problem: String| WorkloadError::Template { text: self.0.clone(), problem };
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        if rest.contains('\0') {
            return Err(refuse("it has a NUL character".to_owned()).into());
        }
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                out.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                out.push('}');
                rest = after;
            } else if let Some((name, after)) = from.strip_prefix('{').and_then(|name| name.split_once('}')) {
                out.push_str(&value(placeholder(name).map_err(refuse)?)?);
                rest = after;
            } else {
                return Err(
                    refuse("a single brace stands in it; write `{{` or `}}` for a brace".to_owned()).into()
                );
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn placeholder(name: &str) -> Result<Placeholder, String> {
    match name {
        "release" => Ok(Placeholder::Release),
        "data" => Ok(Placeholder::Data),
        "port" => Ok(Placeholder::Port),
        "environment" => Ok(Placeholder::Environment),
        "component" => Ok(Placeholder::Component),
        _ => Err(format!(
            "`{{{name}}}` is no placeholder; there are `{{release}}`, `{{data}}`, `{{port}}`, `{{environment}}` and `{{component}}`"
        )),
    }
}

impl FromStr for Template {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_braces_kept() {
        let template = Template::new("{release}/{{x}}:{port}").unwrap();
        let filled = template.fill(|place| {
            Ok::<_, WorkloadError>(if place == Placeholder::Port { "80".into() } else { "/r".into() })
        });
        assert_eq!(filled.unwrap(), "/r/{x}:80");
    }
}
