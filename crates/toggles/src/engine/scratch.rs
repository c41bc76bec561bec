//! Room on the stack for the text of a number.

use std::fmt::{self, Display, Write};

/// Holds the text of one thing at a time: short ones on the stack, long ones on the heap.
#[derive(Default)]
pub(crate) struct Scratch {
    short: [u8; 32],
    length: usize,
    long: String,
}

impl Scratch {
    /// The text of `thing`.
    pub(crate) fn show(&mut self, thing: impl Display) -> &str {
        self.length = 0;
        self.long.clear();
        if write!(self, "{thing}").is_err() {
            return "";
        }
        if self.long.is_empty() {
            return std::str::from_utf8(self.short.get(..self.length).unwrap_or_default())
                .unwrap_or_default();
        }
        &self.long
    }
}

impl Write for Scratch {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.long.is_empty() {
            let end = self.length + text.len();
            if let Some(room) = self.short.get_mut(self.length..end) {
                room.copy_from_slice(text.as_bytes());
                self.length = end;
                return Ok(());
            }
            let short = self.short.get(..self.length).unwrap_or_default();
            self.long.push_str(std::str::from_utf8(short).map_err(|_| fmt::Error)?);
        }
        self.long.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts() {
        let mut scratch = Scratch::default();
        assert_eq!(scratch.show(12), "12");
        assert_eq!(scratch.show(1e40).len(), 41);
        assert_eq!(scratch.show(""), "");
        assert_eq!(scratch.show("0123456789abcdef0123456789abcdef"), "0123456789abcdef0123456789abcdef");
    }
}
