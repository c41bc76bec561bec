//! Where a far command's output ends: a [`Mark`] that nobody can guess stands there, and whatever follows is ours.

use std::{fs::File, io::Read as _};

/// Text that ends a stream: new for each session.
pub(super) fn new_mark() -> std::io::Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("@flowline-{:032x}@", u128::from_be_bytes(bytes)))
}

/// Parts a stream at its mark. Holds back only what may be the mark's beginning.
#[derive(Debug)]
pub(super) struct Parted {
    mark: Vec<u8>,
    held: Vec<u8>,
    found: bool,
}

impl Parted {
    pub(super) fn at(mark: &str) -> Self {
        Self { mark: mark.as_bytes().to_vec(), held: Vec::new(), found: false }
    }

    /// Whether the mark came by.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// Takes what was read: what stands before the mark, and what stands after it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        if self.found {
            return (Vec::new(), bytes.to_vec());
        }
        self.held.extend_from_slice(bytes);
        if let Some(at) = self.held.windows(self.mark.len()).position(|window| window == self.mark) {
            self.found = true;
            let after = self.held.split_off(at + self.mark.len());
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), after);
        }
        let longest = self.held.len().min(self.mark.len() - 1);
        let keep = (1..=longest).rev().find(|keep| self.held.ends_with(&self.mark[..*keep])).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), Vec::new())
    }

    /// The stream ended without its mark: what was held back.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn splits_do_not_matter(before in "[@ab]{0,12}", after in "[@ab]{0,6}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let mark = "@ab@a!";
            let text = format!("{before}{mark}{after}").into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut parted, mut at, mut found) = (Parted::at(mark), 0, (Vec::new(), Vec::new()));
            for cut in cuts {
                let (head, tail) = parted.push(&text[at..cut]);
                found.0.extend(head);
                found.1.extend(tail);
                at = cut;
            }
            prop_assert!(parted.found());
            prop_assert_eq!(found, (before.into_bytes(), after.into_bytes()));
        }
    }
}
