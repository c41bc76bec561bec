//! What is not evaluated twice in one evaluation: flags and segments that ask for others, so that a graph costs its size and not its paths.

use crate::{
    engine::{Ask, Evaluation},
    model::Truth,
};

/// How many flags and segments that ask for others one evaluation evaluates at most; the next ones count as depending on themselves.
const MAX_ASKING: usize = 4_096;

/// So many are evaluated before anything is kept: a small graph needs no memory.
const FREE: usize = 16;

/// What asking flags and segments came to, by their addresses. Empty, and without cost, as long as few are asked for.
#[derive(Default)]
pub(super) struct Memo<'a> {
    known: Vec<(usize, Known<'a>)>,
    /// How often a circle was met. What was evaluated meanwhile is true of that way through the graph only, and is not kept.
    pub(super) circles: usize,
    spent: usize,
}

#[derive(Clone, Copy)]
enum Known<'a> {
    Flag(Ask, Evaluation<'a>),
    Segment(Truth),
}

impl<'a> Memo<'a> {
    /// What the flag came to for somebody who asked for as much.
    pub(super) fn flag(&self, id: usize, ask: Ask) -> Option<Evaluation<'a>> {
        self.known.iter().find_map(|(have, known)| match known {
            Known::Flag(asked, evaluation) if *have == id && *asked == ask => Some(*evaluation),
            _ => None,
        })
    }

    /// What the segment came to.
    pub(super) fn segment(&self, id: usize) -> Option<Truth> {
        self.known.iter().find_map(|(have, known)| match known {
            Known::Segment(truth) if *have == id => Some(*truth),
            _ => None,
        })
    }

    pub(super) fn keep_flag(&mut self, id: usize, ask: Ask, evaluation: Evaluation<'a>) {
        if self.spent > FREE {
            self.known.push((id, Known::Flag(ask, evaluation)));
        }
    }

    pub(super) fn keep_segment(&mut self, id: usize, truth: Truth) {
        if self.spent > FREE {
            self.known.push((id, Known::Segment(truth)));
        }
    }

    /// Counts one more that is evaluated; whether that is too many.
    pub(super) fn is_spent(&mut self) -> bool {
        self.spent += 1;
        self.spent > MAX_ASKING
    }
}
