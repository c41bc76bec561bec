//! What is kept of a step while another one streams: its last lines, within bounds.

use std::collections::VecDeque;

/// How many lines of a step are kept while another step's group is open.
const KEPT_LINES: usize = 400;
/// How many bytes of them.
const KEPT_BYTES: usize = 128 * 1_024;

/// The last lines of a step that waits to be shown.
#[derive(Debug, Default)]
pub(super) struct Kept {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

impl Kept {
    pub(super) fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT_LINES || self.bytes > KEPT_BYTES {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len();
            self.dropped += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines, after one that says how many came before.
    pub(super) fn into_lines(self) -> Vec<Vec<u8>> {
        let note = (self.dropped > 0)
            .then(|| format!("({} earlier lines are not shown)", self.dropped).into_bytes());
        note.into_iter().chain(self.lines).collect()
    }
}
