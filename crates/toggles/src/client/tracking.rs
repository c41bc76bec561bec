//! What goes with a tracking event: an optional number and free fields.

use std::{collections::BTreeMap, sync::Arc};

use super::Field;

/// What happened, beyond its name: how much (`value`), and anything else.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrackingDetails {
    value: Option<f64>,
    fields: BTreeMap<Arc<str>, Field>,
}

impl TrackingDetails {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much: `99.77`.
    pub fn of(value: f64) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// The same with a field.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, field: impl Into<Field>) -> Self {
        self.fields.insert(name.into(), field.into());
        self
    }

    /// How much.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// The field `name`.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// All fields, ordered by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (&**name, field))
    }
}
