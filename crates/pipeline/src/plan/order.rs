//! In which order steps can run: after everything they wait for, otherwise as they were written.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Indices `0..count` so that every one comes after its predecessors, the lowest first where there is a choice; or a cycle, each member
/// waiting for the next, and the last for the first.
pub(crate) fn topological(predecessors: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let count = predecessors.len();
    let mut successors = vec![Vec::new(); count];
    let mut waiting = vec![0_usize; count];
    for (index, before) in predecessors.iter().enumerate() {
        waiting[index] = before.len();
        for before in before {
            successors[*before].push(index);
        }
    }
    let mut ready: BinaryHeap<_> = (0..count).filter(|index| waiting[*index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for after in &successors[index] {
            waiting[*after] -= 1;
            if waiting[*after] == 0 {
                ready.push(Reverse(*after));
            }
        }
    }
    if order.len() == count { Ok(order) } else { Err(cycle(predecessors, &waiting)) }
}

/// Every index that still waits has a predecessor that still waits, so walking back must meet itself.
fn cycle(predecessors: &[Vec<usize>], waiting: &[usize]) -> Vec<usize> {
    let Some(start) = waiting.iter().position(|waiting| *waiting > 0) else { return Vec::new() };
    let mut seen = vec![None; predecessors.len()];
    let (mut path, mut at) = (Vec::new(), start);
    while seen[at].is_none() {
        seen[at] = Some(path.len());
        path.push(at);
        let Some(next) = predecessors[at].iter().find(|before| waiting[**before] > 0) else { break };
        at = *next;
    }
    let mut cycle = path.split_off(seen[at].unwrap_or(0));
    // Begin with the lowest, so that the same cycle is always named the same.
    let lowest = (0..cycle.len()).min_by_key(|place| cycle[*place]).unwrap_or(0);
    cycle.rotate_left(lowest);
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_order_is_kept_where_it_can_be() {
        assert_eq!(topological(&[vec![2], vec![], vec![], vec![0, 1]]), Ok(vec![1, 2, 0, 3]));
    }

    #[test]
    fn a_cycle_is_named_in_order() {
        // 4 waits for the cycle 1 <- 2 <- 3 <- 1 without being in it.
        assert_eq!(topological(&[vec![], vec![3], vec![1], vec![2], vec![3]]), Err(vec![1, 3, 2]));
        assert_eq!(topological(&[vec![0]]), Err(vec![0]));
    }
}
