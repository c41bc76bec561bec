//! What a case expects of an evaluation, its context and its hooks.

use std::sync::PoisonError;

use super::world::{Asked, Outcome, World, same};
use crate::{
    client::{Details, ErrorCode, Field, FlagMetadata, MetadataValue, Reason},
    value::Value,
};

impl World {
    pub(super) fn asked(&self) -> Result<&Asked, String> {
        self.asked.as_ref().ok_or_else(|| "no flag was named".to_owned())
    }

    pub(super) fn details(&self) -> Result<&Details<Value>, String> {
        self.details.as_ref().ok_or_else(|| "no flag was evaluated".to_owned())
    }

    pub(super) fn value_is(&self, expected: &str) -> Outcome {
        let value = &self.details()?.value;
        let expected = if self.asked()?.kind == "string" {
            Value::from(expected)
        } else {
            serde_json::from_str::<Value>(expected).map_err(|error| format!("`{expected}`: {error}"))?
        };
        if *value == expected { Ok(()) } else { Err(format!("the value is `{value}`, not `{expected}`")) }
    }

    pub(super) fn field_is(&self, name: &str, expected: &str) -> Outcome {
        let value = self.details()?.value.get(name).cloned().unwrap_or_default();
        same(name, unquoted(expected), &value.scalar_text().unwrap_or_default())
    }

    pub(super) fn variant_is(&self, expected: &str) -> Outcome {
        same("the variant", expected, self.details()?.variant.as_deref().unwrap_or("null"))
    }

    pub(super) fn reason_is(&self, expected: &str) -> Outcome {
        same("the reason", expected, self.details()?.reason.as_ref().map_or("null", Reason::as_str))
    }

    pub(super) fn code_is(&self, expected: &str) -> Outcome {
        same("the error code", expected, self.details()?.error_code().map_or("", ErrorCode::as_str))
    }

    pub(super) fn merged_has(&self, key: &str, value: &str) -> Outcome {
        let provider = self.provider.as_ref().ok_or("no provider is bound")?;
        let context = provider.context.lock().unwrap_or_else(PoisonError::into_inner);
        same(key, value, context.get(key).and_then(Field::as_text).unwrap_or("not there"))
    }

    pub(super) fn context_is_as_it_was(&self) -> Outcome {
        let now = self.contexts.get("Invocation").cloned();
        if now.is_some() && now == self.original { Ok(()) } else { Err(format!("it is {now:?}")) }
    }

    /// Details are owned values: what one holder does to its copy, no other holder sees.
    pub(super) fn details_are_values(&self) -> Outcome {
        let details = self.details()?;
        let mut copy = details.clone();
        copy.metadata = FlagMetadata::from_iter([("more", true)]);
        copy.value = Value::Null;
        if details.metadata == copy.metadata || details.value.is_null() {
            return Err("a copy shares what it changes".to_owned());
        }
        Ok(())
    }

    pub(super) fn metadata_has(&self, table: &[Vec<String>]) -> Outcome {
        let metadata = &self.details()?.metadata;
        for row in table.iter().skip(1) {
            let [key, kind, value] = &row[..] else { return Err(format!("{row:?} is no row")) };
            let (found, text) = match metadata.get(key) {
                Some(MetadataValue::Bool(yes)) => ("Boolean", yes.to_string()),
                Some(MetadataValue::Integer(number)) => ("Integer", number.to_string()),
                Some(MetadataValue::Float(number)) => ("Float", number.to_string()),
                Some(MetadataValue::Text(text)) => ("String", text.to_string()),
                _ => return Err(format!("there is no {key}")),
            };
            same(&format!("the type of {key}"), kind, found)?;
            same(key, value, &text)?;
        }
        Ok(())
    }

    pub(super) fn stages_of(&self, hook: &str) -> bool {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let stages: Vec<_> = calls.iter().filter(|call| call.hook == hook).map(|call| call.stage).collect();
        stages == ["before", "after", "finally"]
    }

    /// Before in the order of adding, everything later in reverse.
    pub(super) fn hooks_in_order(&self) -> Outcome {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        for (stage, reversed) in [("before", false), ("after", true), ("finally", true)] {
            let mut order: Vec<_> =
                calls.iter().filter(|call| call.stage == stage).map(|call| call.hook).collect();
            if reversed {
                order.reverse();
            }
            if order != self.hooks {
                return Err(format!("{stage} ran in the order {order:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn hooks_heard(&self, stages: &str, table: &[Vec<String>]) -> Outcome {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in stages.split(',').map(str::trim) {
            let heard = calls.iter().find(|call| call.stage == stage).and_then(|call| call.details.as_ref());
            let details = heard.ok_or_else(|| format!("{stage} heard nothing"))?;
            for row in table.iter().skip(1) {
                let [_, key, value] = &row[..] else { return Err(format!("{row:?} is no row")) };
                let text = match key.as_str() {
                    "flag_key" => details.key.to_string(),
                    "value" => {
                        details.value.scalar_text().map_or_else(|| details.value.to_string(), String::from)
                    }
                    "variant" => details.variant.as_deref().unwrap_or("null").to_owned(),
                    "reason" => details.reason.as_ref().map_or("null", Reason::as_str).to_owned(),
                    "error_code" => details.error_code().map_or("null", ErrorCode::as_str).to_owned(),
                    other => return Err(format!("details have no {other}")),
                };
                same(&format!("{key} in {stage}"), value, &text)?;
            }
        }
        Ok(())
    }
}

pub(super) fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}
