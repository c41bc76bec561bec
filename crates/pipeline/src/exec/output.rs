//! What a command prints, on its way out: masked, cut into lines, the end of it kept. Every executor's bytes go through here.

use std::collections::VecDeque;

use flowline_core::SignedDuration;

use super::{Command, ExecError, Exited, Line, LineSplitter, Lines, Stream, mask::MaskStream};

/// Longer lines are cut.
const LONGEST_LINE: usize = 16 * 1024;
/// So many last lines go into an error.
const LAST_LINES: usize = 10;
/// So much of each of them.
const LAST_LINE: usize = 400;

/// Where both outputs of a command meet.
pub(super) struct Output<'a> {
    lines: &'a mut dyn Lines,
    keep: usize,
    exited: Exited,
    last: VecDeque<String>,
    out: Side,
    err: Side,
    masked: Vec<u8>,
}

struct Side {
    mask: MaskStream,
    splitter: LineSplitter,
}

/// How a command came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Code(i32),
    Signal(i32),
    #[cfg(feature = "container")]
    OutOfMemory(u64),
}

impl Ending {
    /// The shell's way of saying it: 128 and the signal's number.
    #[cfg(any(feature = "container", feature = "ssh"))]
    pub(super) fn of_shell(code: i32) -> Self {
        if (129..=192).contains(&code) { Self::Signal(code - 128) } else { Self::Code(code) }
    }
}

/// Why a command was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    Limit(SignedDuration),
}

impl<'a> Output<'a> {
    pub(super) fn new(command: &Command, lines: &'a mut dyn Lines) -> Self {
        let masker = command.masker();
        let side = || Side { mask: masker.stream(), splitter: LineSplitter::new(LONGEST_LINE) };
        Self {
            lines,
            keep: command.keep,
            exited: Exited::default(),
            last: VecDeque::new(),
            out: side(),
            err: side(),
            masked: Vec::new(),
        }
    }

    /// Takes what was printed.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let mut masked = std::mem::take(&mut self.masked);
        masked.clear();
        self.side(stream).mask.push(bytes, &mut masked);
        self.pass(stream, &masked);
        self.masked = masked;
    }

    /// Nothing more comes of `stream`, or is waited for.
    pub(super) fn end(&mut self, stream: Stream) {
        let mut masked = Vec::new();
        self.side(stream).mask.finish(&mut masked);
        self.pass(stream, &masked);
        let mut left = None;
        self.side(stream).splitter.finish(|bytes, cut| left = Some((bytes.to_vec(), cut)));
        if let Some((bytes, cut)) = left {
            self.line(stream, bytes, cut);
        }
    }

    /// The last complete line of either stream, cut.
    #[cfg(feature = "container")]
    pub(super) fn last_line(&self) -> &str {
        self.last.back().map_or("", String::as_str)
    }

    /// What was printed, if that is one line.
    #[cfg(feature = "container")]
    pub(super) fn only_line(&self) -> &str {
        if self.last.len() == 1 { self.last_line() } else { "" }
    }

    /// The command ended by itself: both streams are at their end.
    pub(super) fn ended(
        mut self,
        command: &Command,
        ending: Ending,
        strays: u32,
    ) -> Result<Exited, ExecError> {
        self.cut();
        self.exited.strays = strays;
        let (program, last) = (command.shown(), self.last.into());
        match ending {
            Ending::Code(0) => Ok(self.exited),
            Ending::Code(code) => Err(ExecError::Code { program, code, last }),
            Ending::Signal(signal) => Err(ExecError::Signal { program, signal, last }),
            #[cfg(feature = "container")]
            Ending::OutOfMemory(limit) => Err(ExecError::OutOfMemory { program, limit, last }),
        }
    }

    /// The command ended because it was asked to.
    pub(super) fn stopped(self, command: &Command, stop: Stop, killed: bool) -> ExecError {
        let program = command.shown();
        match stop {
            Stop::Cancelled => ExecError::Cancelled { program, killed },
            Stop::Limit(limit) => ExecError::TimedOut { program, limit, killed, last: self.last.into() },
        }
    }

    fn side(&mut self, stream: Stream) -> &mut Side {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn pass(&mut self, stream: Stream, masked: &[u8]) {
        if stream == Stream::Out {
            self.exited.stdout.extend_from_slice(masked);
            // Cutting only now and then keeps the cost of each byte constant.
            if self.exited.stdout.len() > 2 * self.keep {
                self.cut();
            }
        }
        let mut complete = Vec::new();
        self.side(stream).splitter.push(masked, |bytes, cut| complete.push((bytes.to_vec(), cut)));
        for (bytes, cut) in complete {
            self.line(stream, bytes, cut);
        }
    }

    fn cut(&mut self) {
        let over = self.exited.stdout.len().saturating_sub(self.keep);
        self.exited.stdout.drain(..over);
        self.exited.dropped += over as u64;
    }

    fn line(&mut self, stream: Stream, bytes: Vec<u8>, cut: bool) {
        let mut spare =
            if self.last.len() == LAST_LINES { self.last.pop_front() } else { None }.unwrap_or_default();
        spare.clear();
        let shown = &bytes[..bytes.len().min(LAST_LINE)];
        spare.push_str(String::from_utf8_lossy(shown).trim_end());
        self.last.push_back(spare);
        self.lines.line(Line { stream, bytes, cut });
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::secret::Secret;

    use super::*;

    #[test]
    fn both_streams_are_masked_kept_and_cut_apart() {
        let mut command = Command::new("x", "/").secret_env("KEY", Secret::new("hunter2!"));
        command.keep = 8;
        let mut lines = Vec::new();
        let mut take = |line: Line| lines.push((line.stream, line.text()));
        let mut output = Output::new(&command, &mut take);
        output.take(Stream::Out, b"a hun");
        output.take(Stream::Err, b"oh");
        output.take(Stream::Out, b"ter2!\nend of it");
        output.end(Stream::Out);
        output.end(Stream::Err);
        let exited = output.ended(&command, Ending::Code(0), 0).unwrap();
        assert_eq!((exited.stdout.as_slice(), exited.dropped), (&b"nd of it"[..], 7));
        let expected = [(Stream::Out, "a ***"), (Stream::Out, "end of it"), (Stream::Err, "oh")];
        assert_eq!(lines, expected.map(|(stream, text)| (stream, text.to_owned())));
    }

    #[test]
    fn an_error_shows_the_last_lines_and_why() {
        let command = Command::new("x", "/");
        let mut take = |_: Line| {};
        let mut output = Output::new(&command, &mut take);
        for number in 0..12 {
            output.take(Stream::Out, format!("{number}\n").as_bytes());
        }
        let error = output.stopped(&command, Stop::Limit(SignedDuration::from_secs(2)), true);
        insta::assert_snapshot!(error, @"`x` did not end within its limit of 2s, and killed because it did not stop by itself; its last lines: 2 / 3 / 4 / 5 / 6 / 7 / 8 / 9 / 10 / 11");
    }
}
