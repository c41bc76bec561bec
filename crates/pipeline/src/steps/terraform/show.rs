//! What `show -json` says of a plan file, as lines of our own plan. Values that are sensitive never get that far.

use std::collections::{BTreeMap, BTreeSet};

use flowline_core::id::ResourceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TerraformError;
use crate::step::Action;

/// One resource that a plan file changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceChange {
    /// Its address: `module.web.aws_instance.app[0]`.
    pub address: String,
    /// What becomes of it.
    pub action: Action,
    /// What changes about it, one line each, without sensitive values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl ResourceChange {
    /// What it is to grants: its address below the stack's resource, characters that are no printable ASCII percent-encoded.
    pub(super) fn resource(&self, stack: &ResourceId) -> Result<ResourceId, TerraformError> {
        const ODD: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'%').add(b'/');
        let address = percent_encoding::utf8_percent_encode(&self.address, ODD);
        ResourceId::of(stack.kind(), format!("{}/{address}", stack.name()))
            .map_err(|error| TerraformError::Address { address: self.address.clone(), source: error.into() })
    }
}

/// What a plan file does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) complete: bool,
    /// Whether Terraform itself says that there is something to apply, which may be more than what is listed.
    pub(super) applyable: bool,
    /// Whether something comes under management that was there before.
    pub(super) imports: bool,
    pub(super) changes: Vec<ResourceChange>,
    pub(super) outputs: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Plan {
    /// Since Terraform 1.8; plans of before are complete.
    #[serde(default = "yes")]
    complete: bool,
    /// Since Terraform 1.7; plans of before say nothing.
    #[serde(default)]
    applyable: bool,
    #[serde(default)]
    errored: bool,
    #[serde(default)]
    resource_changes: Vec<Planned>,
    #[serde(default)]
    output_changes: BTreeMap<String, Change>,
}

#[derive(Deserialize)]
struct Planned {
    address: String,
    /// Where the state has it so far, if the module moved it.
    #[serde(default)]
    previous_address: Option<String>,
    #[serde(default)]
    mode: String,
    change: Change,
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    before_sensitive: Value,
    #[serde(default)]
    after_sensitive: Value,
    /// Set if it is there already and comes under management.
    #[serde(default)]
    importing: Option<Importing>,
}

#[derive(Deserialize)]
struct Importing {
    /// How the provider knows it; some are known by something else.
    #[serde(default)]
    id: Option<String>,
}

fn yes() -> bool {
    true
}

/// Reads the answer of `show -json`.
pub(super) fn read(answer: &[u8]) -> Result<Shown, TerraformError> {
    let plan: Plan = serde_json::from_slice(answer)
        .map_err(|error| TerraformError::Shape { command: "terraform show", source: error.into() })?;
    let mut changes: Vec<ResourceChange> = Vec::new();
    let mut imports = false;
    let mut left: BTreeMap<String, String> = BTreeMap::new();
    for planned in plan.resource_changes.into_iter().filter(|planned| planned.mode != "data") {
        let actions: Vec<_> = planned.change.actions.iter().map(String::as_str).collect();
        // A resource that only moves, or is only taken in, is not changed, and the state is.
        let moved = planned.previous_address.filter(|before| *before != planned.address);
        let importing = planned.change.importing.as_ref();
        imports |= importing.is_some();
        let action = match actions.as_slice() {
            ["no-op"] if moved.is_some() || importing.is_some() => Action::Update,
            ["no-op" | "read"] => continue,
            ["create"] => Action::Create,
            ["update"] => Action::Update,
            ["delete" | "forget"] => Action::Delete,
            ["delete", "create"] | ["create", "delete" | "forget"] => Action::Replace,
            other => {
                let source = format!("unknown actions {other:?} of `{}`", planned.address).into();
                return Err(TerraformError::Shape { command: "terraform show", source });
            }
        };
        let mut details = Vec::new();
        if let Some(before) = moved {
            details.push(format!("moved from {before}"));
            left.insert(before, planned.address.clone());
        }
        details.extend(importing.map(|importing| match &importing.id {
            Some(id) => format!("imported as {}", short(Some(&id.as_str().into()))),
            None => "imported".to_owned(),
        }));
        details.extend(planned.change.details());
        changes.push(ResourceChange { address: planned.address, action, details });
    }
    // What moved away is touched, too: a grant for one address is none for taking away another.
    for (address, to) in left {
        let detail = format!("moved to {to}");
        match changes.iter_mut().find(|change| change.address == address) {
            Some(change) => change.details.insert(0, detail),
            None => changes.push(ResourceChange { address, action: Action::Update, details: vec![detail] }),
        }
    }
    changes.sort_by(|one, other| one.address.cmp(&other.address));
    let changed = |change: &Change| change.actions != ["no-op"];
    let outputs = plan.output_changes.into_iter().filter(|(_, change)| changed(change));
    Ok(Shown {
        complete: plan.complete && !plan.errored,
        applyable: plan.applyable,
        imports,
        changes,
        outputs: outputs.map(|(name, _)| name).collect(),
    })
}

impl Change {
    /// The attributes that change, one line each.
    fn details(&self) -> Vec<String> {
        let none = Map::new();
        let map = |value: &'_ Value| -> Map<String, Value> { value.as_object().unwrap_or(&none).clone() };
        let (before, after, unknown) = (map(&self.before), map(&self.after), map(&self.after_unknown));
        let names: BTreeSet<_> = before.keys().chain(after.keys()).chain(unknown.keys()).collect();
        let mut lines = Vec::new();
        for name in names {
            let hidden = is_marked(&self.before_sensitive, name) || is_marked(&self.after_sensitive, name);
            let known_later = is_marked(&self.after_unknown, name);
            let (old, new) = (before.get(name), after.get(name));
            if !known_later && old.unwrap_or(&Value::Null) == new.unwrap_or(&Value::Null) {
                continue;
            }
            if self.after.is_null() {
                // What goes needs no list of what it was.
                continue;
            }
            let new = match (known_later, hidden) {
                (_, true) => "(sensitive)".to_owned(),
                (true, _) => "(known after apply)".to_owned(),
                _ => short(new),
            };
            lines.push(match old.filter(|old| !old.is_null()) {
                Some(_) if hidden => format!("{name}: {new}"),
                Some(old) => format!("{name}: {} -> {new}", short(Some(old))),
                None => format!("{name}: {new}"),
            });
        }
        lines
    }
}

/// Whether Terraform marks `name`, or something in it, or everything.
fn is_marked(marks: &Value, name: &str) -> bool {
    fn any(mark: &Value) -> bool {
        match mark {
            Value::Bool(mark) => *mark,
            Value::Array(marks) => marks.iter().any(any),
            Value::Object(marks) => marks.values().any(any),
            _ => false,
        }
    }
    match marks {
        Value::Bool(all) => *all,
        marks => marks.get(name).is_some_and(any),
    }
}

/// A value on one line, cut where nobody reads on.
fn short(value: Option<&Value>) -> String {
    const LONG: usize = 120;
    let text = value.unwrap_or(&Value::Null).to_string();
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(plan: &Value) -> String {
        let shown = read(plan.to_string().as_bytes()).unwrap();
        let mut lines = Vec::new();
        for change in &shown.changes {
            lines.push(format!("{} {}", change.action.sign(), change.address));
            lines.extend(change.details.iter().map(|detail| format!("    {detail}")));
        }
        lines.extend(shown.outputs.iter().map(|name| format!("output {name}")));
        lines.join("\n")
    }

    #[test]
    fn changes_become_lines_without_what_is_sensitive_or_stays() {
        let plan = json!({
            "format_version": "1.2", "complete": true, "errored": false,
            "resource_changes": [
                {"address": "x.update", "mode": "managed", "change": {
                    "actions": ["update"],
                    "before": {"name": "a", "same": 1, "password": "hunter1", "tags": {"one": "1"}},
                    "after": {"name": "b", "same": 1, "password": "hunter2", "tags": {"one": "2"}},
                    "after_unknown": {"etag": true},
                    "before_sensitive": {"password": true}, "after_sensitive": {"password": true},
                }},
                {"address": "x.create", "mode": "managed", "change": {
                    "actions": ["create"], "before": null, "after": {"name": "new", "list": [1, 2]},
                    "after_unknown": {"id": true}, "before_sensitive": false, "after_sensitive": {},
                }},
                {"address": "x.replace", "mode": "managed", "change": {
                    "actions": ["delete", "create"], "before": {"zone": "a"}, "after": {"zone": "b"},
                }},
                {"address": "x.gone", "mode": "managed", "change": {
                    "actions": ["delete"], "before": {"zone": "a"}, "after": null,
                }},
                {"address": "x.kept", "mode": "managed", "change": {"actions": ["no-op"]}},
                {"address": "data.x.read", "mode": "data", "change": {"actions": ["read"]}},
            ],
            "output_changes": {
                "address": {"actions": ["create"], "before": null, "after": "secret"},
                "kept": {"actions": ["no-op"]},
            },
        });
        insta::assert_snapshot!(shown(&plan), @r#"
        + x.create
            id: (known after apply)
            list: [1,2]
            name: "new"
        - x.gone
        ± x.replace
            zone: "a" -> "b"
        ~ x.update
            etag: (known after apply)
            name: "a" -> "b"
            password: (sensitive)
            tags: {"one":"1"} -> {"one":"2"}
        output address
        "#);
    }

    #[test]
    fn what_only_moves_or_is_taken_in_is_a_change() {
        let moved = |address: &str, before: &str| {
            json!({"address": address, "previous_address": before, "mode": "managed", "change": {
                "actions": ["no-op"], "before": {"name": "a"}, "after": {"name": "a"},
            }})
        };
        let mut edited = moved("x.edited", "x.old");
        edited["change"]["actions"] = json!(["update"]);
        edited["change"]["after"]["name"] = json!("b");
        let plan = json!({"applyable": true, "resource_changes": [
            moved("x.new", "x.before"),
            moved("x.stays", "x.stays"),
            edited,
            {"address": "x.old", "mode": "managed", "change": {
                "actions": ["create"], "before": null, "after": {"name": "c"},
            }},
            {"address": "x.found", "mode": "managed", "change": {
                "actions": ["no-op"], "before": {}, "after": {}, "importing": {"id": "i-7"},
            }},
            {"address": "x.known", "mode": "managed", "change": {
                "actions": ["no-op"], "before": {}, "after": {}, "importing": {"identity": {"name": "n"}},
            }},
        ]});
        insta::assert_snapshot!(shown(&plan), @r#"
        ~ x.before
            moved to x.new
        ~ x.edited
            moved from x.old
            name: "a" -> "b"
        ~ x.found
            imported as "i-7"
        ~ x.known
            imported
        ~ x.new
            moved from x.before
        + x.old
            moved to x.edited
            name: "c"
        "#);
        let shown = read(plan.to_string().as_bytes()).unwrap();
        assert!(shown.applyable && shown.imports);
    }

    #[test]
    fn an_address_is_named_below_its_stack() {
        let change = |address: &str| ResourceChange {
            address: address.to_owned(),
            action: Action::Create,
            details: Vec::new(),
        };
        let stack: ResourceId = "terraform:production/network".parse().unwrap();
        let named = change("module.a[\"x y\"].b/c").resource(&stack).unwrap();
        assert_eq!(named.to_string(), "terraform:production/network/module.a[\"x%20y\"].b%2Fc");
        assert!(change(&"x".repeat(300)).resource(&stack).is_err());
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for bad in
            ["", "{", "3", r#"{"resource_changes":[{"address":"x","change":{"actions":["explode"]}}]}"#]
        {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        let errored = json!({"errored": true, "resource_changes": []});
        assert!(!read(errored.to_string().as_bytes()).unwrap().complete);
    }
}
