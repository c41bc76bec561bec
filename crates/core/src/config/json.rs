//! JSON, read by `serde_json`, with places found by a scanner that walks the text once.

use serde::de::DeserializeOwned;

use super::Problem;

pub(super) fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Option<Problem>) {
    match serde_json::from_str(text) {
        Ok(value) => (Some(value), None),
        Err(error) => {
            let full = error.to_string();
            // serde_json writes the place behind its message; it is shown in front of ours.
            let message =
                full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message).to_owned();
            let offset = offset_of(text, error.line(), error.column());
            (None, Some(Problem { message, offset: Some(token_start(text, offset)) }))
        }
    }
}

/// The byte that line and column (both from 1, columns in bytes) mean.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    (start + column.saturating_sub(1)).min(text.len())
}

/// `serde_json` points at a token's last byte; people look at its first.
fn token_start(text: &str, offset: usize) -> usize {
    let bytes = text.as_bytes();
    let Some(&last) = bytes.get(offset) else { return offset };
    if last == b'"' {
        let inside = bytes[..offset].iter().rposition(|&byte| byte == b'"');
        return inside.unwrap_or(offset);
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
    if !word(last) {
        return offset;
    }
    bytes[..offset].iter().rposition(|&byte| !word(byte)).map_or(0, |before| before + 1)
}

/// The byte at which the key (in an object) or value (in a list) under `keys` starts; of the nearest part that is there.
pub(super) fn find(text: &str, keys: &[&str]) -> Option<usize> {
    // A text that is not JSON has no places.
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut scanner = Scanner { text, at: 0 };
    let mut found = None;
    for key in keys {
        match scanner.enter(key) {
            Some(offset) => found = Some(offset),
            None => break,
        }
    }
    found
}

/// Walks a text that is known to be JSON.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    /// Moves to the value under `key` of the object or list at hand; the offset of the key or the element.
    fn enter(&mut self, key: &str) -> Option<usize> {
        self.blank();
        match self.peek()? {
            b'{' => {
                self.at += 1;
                loop {
                    self.blank();
                    let start = self.at;
                    if self.peek()? != b'"' {
                        return None;
                    }
                    self.skip();
                    let name: String = serde_json::from_str(&self.text[start..self.at]).ok()?;
                    self.blank();
                    self.at += 1;
                    if name == key {
                        return Some(start);
                    }
                    self.skip();
                    self.blank();
                    if self.peek()? != b',' {
                        return None;
                    }
                    self.at += 1;
                }
            }
            b'[' => {
                self.at += 1;
                let index: usize = key.parse().ok()?;
                for _ in 0..index {
                    self.skip();
                    self.blank();
                    if self.peek()? != b',' {
                        return None;
                    }
                    self.at += 1;
                }
                self.blank();
                (self.peek()? != b']').then_some(self.at)
            }
            _ => None,
        }
    }

    /// Moves past the value at hand. Depth is counted, not recursed into.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        loop {
            self.blank();
            match self.peek() {
                None => return,
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth = depth.saturating_sub(1),
                Some(b'"') => self.text_end(),
                Some(_) => {}
            }
            let word = |byte: u8| !byte.is_ascii_whitespace() && !b",:{}[]\"".contains(&byte);
            if self.peek().is_some_and(word) {
                while self.peek().is_some_and(word) {
                    self.at += 1;
                }
            } else {
                self.at += 1;
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Moves to the closing quote of the text at hand.
    fn text_end(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => return,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn blank(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
