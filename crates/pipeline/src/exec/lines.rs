//! Cuts a stream of bytes into lines with bounded memory.

/// Cuts bytes at newlines, and pieces that grow too long at the limit. Bytes are kept as they are; only the newline goes, and a carriage
/// return before it stays.
#[derive(Debug)]
pub struct LineSplitter {
    pending: Vec<u8>,
    limit: usize,
}

impl LineSplitter {
    /// Cuts lines longer than `limit` bytes; at least 1.
    pub fn new(limit: usize) -> Self {
        Self { pending: Vec::new(), limit: limit.max(1) }
    }

    /// Takes more bytes; calls `line` for each line that is complete, with whether it was cut and goes on in the next.
    ///
    /// ```
    /// use flowline_pipeline::exec::LineSplitter;
    /// let mut splitter = LineSplitter::new(4);
    /// let mut lines = Vec::new();
    /// splitter.push(b"ab\ncdefg", |line, cut| lines.push((line.to_vec(), cut)));
    /// splitter.finish(|line, cut| lines.push((line.to_vec(), cut)));
    /// assert_eq!(lines, [(b"ab".to_vec(), false), (b"cdef".to_vec(), true), (b"g".to_vec(), false)]);
    /// ```
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = self.limit - self.pending.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    if self.pending.is_empty() {
                        line(&bytes[..end], false);
                    } else {
                        self.pending.extend_from_slice(&bytes[..end]);
                        line(&self.pending, false);
                        self.pending.clear();
                    }
                    bytes = &bytes[end + 1..];
                }
                // The line is full and goes on: a newline just after the limit would have been found above.
                None if window.len() > room => {
                    self.pending.extend_from_slice(&bytes[..room]);
                    line(&self.pending, true);
                    self.pending.clear();
                    bytes = &bytes[room..];
                }
                None => {
                    self.pending.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The stream ended: what is left is a line, if there is any.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8], bool)) {
        if !self.pending.is_empty() {
            line(&self.pending, false);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[Vec<u8>], limit: usize) -> Vec<(Vec<u8>, bool)> {
        let mut splitter = LineSplitter::new(limit);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line, cut| lines.push((line.to_vec(), cut)));
        }
        splitter.finish(|line, cut| lines.push((line.to_vec(), cut)));
        lines
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter_and_nothing_is_lost(
            chunks in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..20), 0..8),
            limit in 1..9_usize,
        ) {
            let whole = chunks.concat();
            let lines = split(&chunks, limit);
            prop_assert_eq!(&lines, &split(std::slice::from_ref(&whole), limit));
            let mut again: Vec<u8> = Vec::new();
            for (line, cut) in &lines {
                prop_assert!(line.len() <= limit);
                again.extend(line);
                if !cut { again.push(b'\n') }
            }
            if !whole.ends_with(b"\n") { again.pop(); }
            prop_assert_eq!(again, whole);
        }
    }
}
