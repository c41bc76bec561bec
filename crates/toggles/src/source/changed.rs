//! Which flags two documents have different, by fingerprints of what they mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use crate::model::{FlagSet, Segment};

/// Fingerprints of the flags of a document, and of the segments that each asks for.
#[derive(Debug, Default)]
pub(super) struct Prints(BTreeMap<Arc<str>, u64>);

impl Prints {
    /// Those of `set`. A segment counts as part of every flag that asks for it, also by way of others.
    pub(super) fn of(set: &FlagSet) -> Self {
        let segments = Segments::of(&set.segments);
        let mut text = String::new();
        let flags = set.flags.iter().map(|flag| {
            if segments.0.is_empty() {
                return (Arc::from(&*flag.key), print(flag));
            }
            shown(&mut text, flag);
            let mut hash = Xxh3::new();
            hash.update(text.as_bytes());
            for print in segments.asked_in(&text) {
                hash.update(&print.to_le_bytes());
            }
            (Arc::from(&*flag.key), hash.digest())
        });
        Self(flags.collect())
    }

    /// The flags that are not as they were `before`, that are new and that are gone, by key.
    pub(super) fn changed(&self, before: &Self) -> Vec<Arc<str>> {
        let new = self.0.iter().filter(|(key, print)| before.0.get(*key) != Some(print));
        let gone = before.0.keys().filter(|key| !self.0.contains_key(*key));
        let changed: BTreeSet<_> = new.map(|(key, _)| key).chain(gone).cloned().collect();
        changed.into_iter().collect()
    }
}

/// Segments as they are named in what asks for them, with a fingerprint of each and of all that it asks for.
struct Segments(BTreeMap<String, u64>);

impl Segments {
    fn of(segments: &[Segment]) -> Self {
        let own: BTreeMap<String, String> =
            segments.iter().map(|segment| (format!("{:?}", segment.name), format!("{segment:?}"))).collect();
        let prints = own.keys().map(|name| {
            let (mut reached, mut open) = (BTreeSet::from([name]), vec![name]);
            while let Some(text) = open.pop().and_then(|name| own.get(name)) {
                let asked = own.keys().filter(|other| text.contains(other.as_str()));
                open.extend(asked.filter(|other| reached.insert(*other)));
            }
            let mut hash = Xxh3::new();
            reached.iter().filter_map(|name| own.get(*name)).for_each(|text| hash.update(text.as_bytes()));
            (name.clone(), hash.digest())
        });
        Self(prints.collect())
    }

    fn asked_in(&self, text: &str) -> impl Iterator<Item = u64> {
        self.0.iter().filter(|(name, _)| text.contains(name.as_str())).map(|(_, print)| *print)
    }
}

fn shown(text: &mut String, value: &impl Debug) {
    text.clear();
    // Writing to a text does not fail.
    let _always = write!(text, "{value:?}");
}

fn print(value: &impl Debug) -> u64 {
    struct Hashed(Xxh3);
    impl Write for Hashed {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Hashed(Xxh3::new());
    // Nor does hashing.
    let _always = write!(hashed, "{value:?}");
    hashed.0.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, flagd::Flagd, flowline::Flowline, unleash::Unleash};

    fn changed(format: &dyn Format, before: &str, after: &str) -> String {
        let prints = |text| Prints::of(&format.read(text).unwrap());
        prints(after).changed(&prints(before)).join(" ")
    }

    #[test]
    fn what_differs_is_named_and_what_does_not_is_not() {
        let ours = Flowline::default();
        let before = r#"{"flags": {"a": {}, "b": {"state": {"on": true}}, "c": {}, "d": {"owner": "ada"}}}"#;
        let after =
            r#"{"flags": {"e": {}, "c": {}, "b": {"state": {"on": false}}, "d": {"owner": "grace"}}}"#;
        assert_eq!(changed(&ours, before, after), "a b d e");
        assert_eq!(changed(&ours, before, before), "");
        let rule = |percent: u8| {
            format!(
                r#"{{"flags": {{"x": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "off",
                "targeting": {{"if": [{{"fractional": [["on", {percent}], ["off", 50]]}}, "on", "off"]}}}}}}}}"#
            )
        };
        assert_eq!(changed(&Flagd::default(), &rule(10), &rule(11)), "x");
        assert_eq!(changed(&Flagd::default(), &rule(10), &rule(10)), "");
    }

    #[test]
    fn a_segment_counts_for_whoever_asks_for_it() {
        let document = |country: &str| {
            format!(
                r#"{{"version": 2, "features": [
                    {{"name": "a", "enabled": true, "strategies": [{{"name": "default", "segments": [1]}}]}},
                    {{"name": "b", "enabled": true, "strategies": [{{"name": "default", "segments": [2]}}]}},
                    {{"name": "c", "enabled": true, "strategies": [{{"name": "default"}}]}}],
                "segments": [
                    {{"id": 1, "constraints": [{{"contextName": "country", "operator": "IN", "values": ["{country}"]}}]}},
                    {{"id": 2, "constraints": []}}]}}"#
            )
        };
        assert_eq!(changed(&Unleash::new(), &document("NO"), &document("SE")), "a");
    }
}
