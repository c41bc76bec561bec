//! How this process is called in leases, so that another one can tell whether it is dead.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use flowline_core::process::started;

/// A name that no other holder ever had: the process id, when the process started (clock ticks since the host's start), and a number.
pub(super) fn name_of_this() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let started = started(pid).unwrap_or(0);
    format!("process/{pid}/{started}/{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether the holder is a process of this host that is certainly gone: its id is free, or another process has it now.
///
/// Anything that is no such name, and any host without `/proc`, answers no: the lease's own expiry decides then.
pub(super) fn is_dead(holder: &str) -> bool {
    let mut parts = holder.strip_prefix("process/").into_iter().flat_map(|rest| rest.split('/'));
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (Some(pid), Some(then)) = (number(), number()) else { return false };
    let (Ok(pid), true) = (u32::try_from(pid), fs::exists("/proc/self/stat").unwrap_or(false)) else {
        return false;
    };
    started(pid) != Some(then)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_names_differ() {
        let (one, other) = (name_of_this(), name_of_this());
        assert_ne!(one, other);
        assert!(!is_dead(&one));
    }

    #[test]
    fn a_reused_id_is_another_process() {
        let pid = std::process::id();
        assert!(is_dead(&format!("process/{pid}/1/0")), "this process did not start with the host");
        assert!(is_dead(&format!("process/{}/1/0", u32::MAX)));
        for unknown in ["run/deploy-7", "process/x/1/0", "process/1", ""] {
            assert!(!is_dead(unknown), "{unknown}");
        }
    }
}
