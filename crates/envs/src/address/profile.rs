//! How other systems turn a branch into a label, for whoever must meet a name that one of them gave: [`Profile`].
//!
//! Our own rule is [`LabelRule`](super::label::LabelRule); prefer it. Of these, only GitLab's keeps names apart that read alike, and only
//! below 24 characters.

use flowline_core::digest::Digest;

use super::MAX_LABEL;

/// Another system's rule for labels. Facts about the systems, read in their sources and tests in 2026.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// GitLab's environment slug (`CI_ENVIRONMENT_SLUG`): at most 24 characters, six base-36 digits after what was changed.
    GitLabEnvironment,
    /// Cloudflare Pages' branch alias: cut at 28 characters, so two branches can get one name.
    CloudflarePages,
    /// Cloudflare Workers' preview alias, which shares a label with the script's name.
    CloudflareWorkers {
        /// The script's name.
        script: String,
    },
}

impl Profile {
    /// What the system calls `branch`. `None` if it has no name for it, or one that we can't know (Cloudflare Pages draws a random one for a
    /// branch without a letter or digit).
    pub fn label(&self, branch: &str) -> Option<String> {
        match self {
            Self::GitLabEnvironment => Some(gitlab(branch, &base36_of_sha256(branch))),
            Self::CloudflarePages => {
                let text = replaced(branch);
                let label = text.get(..28.min(text.len()))?.trim_matches('-');
                (!label.is_empty()).then(|| label.to_owned())
            }
            Self::CloudflareWorkers { script } => workers(branch, script),
        }
    }
}

/// `suffix` are the last six base-36 digits of the name's SHA-256.
fn gitlab(name: &str, suffix: &str) -> String {
    let mut text = replaced(name);
    if !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        text.insert_str(0, "env-");
    }
    let text = squeezed(&text);
    if text == name && text.len() <= 24 {
        return text.strip_suffix('-').unwrap_or(&text).to_owned();
    }
    let stem = text.get(..17.min(text.len())).unwrap_or(&text);
    format!("{}-{suffix}", stem.strip_suffix('-').unwrap_or(stem))
}

fn workers(branch: &str, script: &str) -> Option<String> {
    const HASH: usize = 4;
    let text = squeezed(&replaced(branch));
    let text = text.trim_matches('-');
    let room = MAX_LABEL.checked_sub(script.len() + 1)?;
    if text.is_empty() {
        return None;
    }
    if text.len() <= room {
        return Some(text.to_owned());
    }
    let stem = text.get(..room.checked_sub(HASH + 1)?)?.trim_end_matches('-');
    let hash = Digest::of(branch).hex();
    (!stem.is_empty()).then(|| format!("{stem}-{}", &hash[..HASH]))
}

/// Lower case, everything but ASCII letters and digits a hyphen, one for each character.
fn replaced(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.to_lowercase().chars().map(keep).collect()
}

fn squeezed(text: &str) -> String {
    text.chars().fold(String::new(), |mut text, character| {
        if character != '-' || !text.ends_with('-') {
            text.push(character);
        }
        text
    })
}

/// The last six digits of the digest, read as one number in base 36.
fn base36_of_sha256(name: &str) -> String {
    const LAST: u64 = 36_u64.pow(6);
    let digest = Digest::of(name);
    let mut number =
        digest.as_bytes().iter().fold(0, |number, byte| (number * 256 + u64::from(*byte)) % LAST);
    let mut digits = ['0'; 6];
    for digit in digits.iter_mut().rev() {
        // Always a digit below 36.
        *digit = u32::try_from(number % 36).ok().and_then(|value| char::from_digit(value, 36)).unwrap_or('0');
        number /= 36;
    }
    digits.iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::address::label::LabelRule;

    #[test]
    fn what_the_systems_say() {
        assert_eq!(gitlab("foo-", "xxxxxx"), "foo");
        assert_eq!(gitlab("1-foo", "xxxxxx"), "env-1-foo-xxxxxx");
        assert_eq!(Profile::GitLabEnvironment.label("production").unwrap(), "production");
        assert_eq!(
            Profile::CloudflarePages.label("janpio-driver/adapters-tracing-and-metrics").unwrap(),
            "janpio-driver-adapters-traci"
        );
        assert_eq!(Profile::CloudflarePages.label("///"), None);
        let script = "x".repeat(62);
        assert_eq!(Profile::CloudflareWorkers { script }.label("main"), None, "no room is no name");
    }

    /// The shared cases of groups `slug` and `slug-invariant`, where they are at hand.
    #[test]
    fn the_shared_cases_hold() {
        #[expect(clippy::disallowed_methods, reason = "a test may be told where its data is")]
        let folder = std::env::var_os("FLOWLINE_CONFORMANCE").map_or_else(
            || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
            Into::into,
        );
        let file = folder.join("promotion/cases.json");
        let Ok(text) = std::fs::read_to_string(&file) else {
            println!(
                "skipped: there is no {}; set FLOWLINE_CONFORMANCE to the folder of shared cases",
                file.display()
            );
            return;
        };
        let document: Value = serde_json::from_str(&text).unwrap();
        let mut checked = 0;
        for case in document["cases"].as_array().unwrap() {
            let failed = match case["group"].as_str().unwrap() {
                "slug" => slug(&case["input"], &case["expected"]),
                "slug-invariant" => invariant(&case["input"], &case["expected"]),
                _ => continue,
            };
            checked += 1;
            assert_eq!(failed, None, "case {}", case["id"]);
        }
        println!("{checked} cases");
        assert!(checked > 0);
    }

    fn label(profile: &str, input: &Value, name: &str) -> String {
        let text = |field: &str| input[field].as_str().unwrap_or_default();
        match profile {
            "flowline-dns-label" => {
                let reserved = input["reserved"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let rule = LabelRule::new().prefix(text("prefix")).suffix(text("suffix")).reserve(reserved);
                rule.label(name).unwrap()
            }
            "gitlab-env-24" if input["suffix"].is_string() => gitlab(name, text("suffix")),
            "gitlab-env-24" => Profile::GitLabEnvironment.label(name).unwrap(),
            "cf-pages-28" => Profile::CloudflarePages.label(name).unwrap(),
            "wrangler-63" => {
                Profile::CloudflareWorkers { script: text("script").to_owned() }.label(name).unwrap()
            }
            other => panic!("there is no profile {other}"),
        }
    }

    fn slug(input: &Value, expected: &Value) -> Option<String> {
        let name = input["name"].as_str().or(input["branch"].as_str()).unwrap();
        let label = label(input["profile"].as_str().unwrap(), input, name);
        let same = expected["slug"].as_str().is_none_or(|slug| slug == label);
        let long = expected["length"].as_u64().is_none_or(|length| length == label.len() as u64);
        let fits = expected["slug_pattern"].as_str().is_none_or(|pattern| matches(pattern, &label));
        (!(same && long && fits)).then_some(label)
    }

    fn invariant(input: &Value, expected: &Value) -> Option<String> {
        let names: Vec<&str> = input["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let all = || names.iter().map(|name| label(input["profile"].as_str().unwrap(), input, name));
        let labels: Vec<String> = all().collect();
        let wants = |property: &str| expected[property].as_bool().unwrap_or(false);
        let distinct: BTreeSet<&str> = labels.iter().map(String::as_str).collect();
        if wants("all_distinct") && distinct.len() != names.iter().collect::<BTreeSet<_>>().len() {
            return Some(format!("two are equal: {labels:?}"));
        }
        if wants("stable_across_calls") && !all().eq(labels.iter().cloned()) {
            return Some("another call answers otherwise".to_owned());
        }
        let max = expected["max_label_len"].as_u64().unwrap_or(u64::MAX);
        let reserved: Vec<&str> =
            input["reserved"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        labels.into_iter().find(|label| {
            label.len() as u64 > max
                || (wants("never_empty") && label.is_empty())
                || (wants("never_equals_reserved") && reserved.contains(&label.as_str()))
                || expected["label_pattern"].as_str().is_some_and(|pattern| !matches(pattern, label))
        })
    }

    fn matches(pattern: &str, text: &str) -> bool {
        regex::Regex::new(pattern).unwrap().is_match(text)
    }
}
