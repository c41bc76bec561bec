//! Typed ids: what a machine calls a scope, a resource, a change or a run.

use crate::name::{EnvironmentName, NameProblem, check_label, checked_text};

checked_text! {
    /// Names a place in which state is kept apart, such as the environment `production`, without knowing what an environment is.
    ///
    /// Toggles key their state by scope; environments hand out theirs with [`From<&EnvironmentName>`].
    ScopeId, "a scope's id", check_label
}

impl From<&EnvironmentName> for ScopeId {
    fn from(name: &EnvironmentName) -> Self {
        // Both follow the label rule, so this cannot fail; the round trip keeps the constructor the only way in.
        Self(name.as_str().into())
    }
}

checked_text! {
    /// Anything that a plan may touch: `kind:name`, such as `host:awesome.com`, `path:api.awesome.com/cool` or `process:production/api`.
    ///
    /// The kind is a label; the name is 1 to 200 printable ASCII characters without space. Grants and fingerprints are keyed by it.
    ResourceId, "a resource's id", check_resource
}

impl ResourceId {
    /// The resource `name` of `kind`.
    ///
    /// # Errors
    /// The rule that either breaks.
    pub fn of(kind: &str, name: impl std::fmt::Display) -> Result<Self, crate::name::NameError> {
        Self::new(format!("{kind}:{name}"))
    }

    /// The part before the first `:`.
    pub fn kind(&self) -> &str {
        self.as_str().split_once(':').map_or("", |(kind, _)| kind)
    }

    /// The part after the first `:`.
    pub fn name(&self) -> &str {
        self.as_str().split_once(':').map_or("", |(_, name)| name)
    }
}

checked_text! {
    /// A change on its way: `pr-123` for pull request 123. A label, so that it may be part of an address.
    ChangeId, "a change's id", check_label
}

checked_text! {
    /// One run of a plan. A label, chosen by whoever starts it: starting again under the same id resumes.
    RunId, "a run's id", check_label
}

checked_text! {
    /// The id of an event, unique over the whole store: 1 to 200 printable ASCII characters without space.
    ///
    /// Chosen by the writer, so that writing the same fact again changes nothing: `run-7/step/web/finished`.
    EventId, "an event's id", check_token
}

checked_text! {
    /// A stream of events, one for each aggregate: `change/pr-123`, `run/deploy-7`. 1 to 200 printable ASCII characters without space.
    StreamId, "a stream's id", check_token
}

checked_text! {
    /// A document's key, such as `environment/production`. 1 to 200 printable ASCII characters without space.
    Key, "a key", check_token
}

/// Printable ASCII without space, 1 to 200 of it.
fn check_token(text: &str) -> Result<(), NameProblem> {
    const MAX: usize = 200;
    if text.is_empty() {
        return Err(NameProblem::Empty);
    }
    if let Some((index, character)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) {
        let allowed = "printable ASCII without space";
        return Err(NameProblem::Character { character, at: index + 1, allowed });
    }
    if text.len() > MAX {
        return Err(NameProblem::TooLong { length: text.len(), max: MAX });
    }
    Ok(())
}

fn check_resource(text: &str) -> Result<(), NameProblem> {
    check_token(text)?;
    let Some((kind, name)) = text.split_once(':') else {
        return Err(NameProblem::Shape("it needs the form `kind:name`, such as `host:awesome.com`"));
    };
    check_label(kind)?;
    if name.is_empty() {
        return Err(NameProblem::Shape("nothing stands after the `:`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_a_kind_and_a_name() {
        let id = ResourceId::of("host", "awesome.com").unwrap();
        assert_eq!((id.kind(), id.name()), ("host", "awesome.com"));
        for bad in ["awesome.com", "host:", ":x", "Host:x", "host:a b", ""] {
            assert!(ResourceId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_is_taken_from_an_environment() {
        let name = EnvironmentName::new("pr-123").unwrap();
        assert_eq!(ScopeId::from(&name).as_str(), "pr-123");
    }
}
