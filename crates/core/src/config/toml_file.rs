//! TOML, with the byte range of every key and value.

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::Problem;

pub(super) fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Option<Problem>) {
    match toml::from_str(text) {
        Ok(value) => (Some(value), None),
        Err(error) => {
            let problem =
                Problem { message: error.message().to_owned(), offset: error.span().map(|span| span.start) };
            (None, Some(problem))
        }
    }
}

pub(super) fn find(text: &str, keys: &[&str]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut offset = None;
    let mut value: Option<&DeValue<'_>> = None;
    let mut table = Some(document.get_ref());
    for key in keys {
        let next = match (table, value) {
            (Some(table), _) => table
                .iter()
                .find(|(name, _)| name.get_ref().as_ref() == *key)
                .map(|(name, value)| (name.span().start, value.get_ref())),
            (None, Some(DeValue::Array(list))) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| list.get(index))
                .map(|value| (value.span().start, value.get_ref())),
            (None, _) => None,
        };
        let Some((at, found)) = next else { break };
        offset = Some(at);
        table = if let DeValue::Table(inner) = found { Some(inner) } else { None };
        value = Some(found);
    }
    offset
}
