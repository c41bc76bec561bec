//! What a template becomes: one instance for each item, named by the item's key.

use flowline_core::error::ErrorKind;
use serde_json::Value;

use crate::{
    plan::{Each, StepId},
    step::StepError,
};

/// What one instance is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) value: Value,
}

/// The items of a template: the entries of an object by their keys, or a list of texts, each its own key; in order of keys.
pub(super) fn items(each: &Each, output: Option<&Value>) -> Result<Vec<Item>, StepError> {
    let refuse = |problem: String| StepError::new(ErrorKind::Invalid, problem);
    let from = format!("step `{}` gave{}", each.over.step, at(&each.over.at));
    let value = output
        .and_then(|output| output.pointer(&each.over.at))
        .ok_or_else(|| refuse(format!("{from} nothing to repeat the step for")))?;
    let mut items: Vec<Item> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| Item { key: key.clone(), value: value.clone() }).collect()
        }
        Value::Array(list) => list
            .iter()
            .map(|value| match value {
                Value::String(key) => Ok(Item { key: key.clone(), value: value.clone() }),
                _ => Err(refuse(format!("{from} a list of other things than texts; give each item a key"))),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(refuse(format!("{from} neither an object nor a list of texts"))),
    };
    items.sort_by(|a, b| a.key.cmp(&b.key));
    if let Some(twice) = items.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return Err(refuse(format!("{from} the item `{}` twice", twice[0].key)));
    }
    if items.len() > each.max as usize {
        let (found, max) = (items.len(), each.max);
        return Err(refuse(format!(
            "{from} {found} items, and the plan allows {max}; plan it again with a higher maximum"
        )));
    }
    Ok(items)
}

/// The id of the instance of `template` for `item`.
pub(super) fn instance(template: &StepId, item: &Item) -> Result<StepId, StepError> {
    StepId::new(format!("{template}/{}", item.key)).map_err(|error| {
        StepError::new(ErrorKind::Invalid, format!("the item `{}` cannot name a step", item.key))
            .because(error)
    })
}

fn at(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") }
}
