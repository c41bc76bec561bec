//! Whether the kernel killed for want of memory.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
};

use rustix::fs::{Mode, OFlags};

/// More records than a kernel keeps.
const RECORDS: usize = 100_000;

/// How often the kernel of this host has killed a process for want of memory, in a container or not; nothing if it does not tell.
pub(super) fn kills() -> Option<u64> {
    read_kills(&fs::read_to_string("/proc/vmstat").ok()?)
}

fn read_kills(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Whether the kernel's log says so of the container `id`, since it had killed `before` times. Docker tells by itself whether this was a
/// container's end, Podman not always. Where this user may not read the log, nothing is concluded.
pub(super) fn killed_in(id: &str, before: Option<u64>) -> bool {
    // The log is long, and mostly there is nothing to look for.
    if id.is_empty() || before.zip(kills()).is_none_or(|(before, now)| before == now) {
        return false;
    }
    let Ok(log) = rustix::fs::open("/dev/kmsg", OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) else {
        return false;
    };
    let (mut log, mut record) = (File::from(log), [0_u8; 8 * 1024]);
    for _ in 0..RECORDS {
        match log.read(&mut record) {
            Ok(length) if names(&record[..length], id) => return true,
            Ok(1..) => {}
            // It was overwritten before it was read; the next one is there.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => break,
        }
    }
    false
}

/// The memory of a container is that of a control group whose name holds the container's.
fn names(record: &[u8], id: &str) -> bool {
    let record = String::from_utf8_lossy(record);
    record
        .split_once("oom_memcg=")
        .is_some_and(|(_, rest)| rest.split(',').next().unwrap_or_default().contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_number_is_read() {
        assert_eq!(read_kills("pgfault 9\noom_kill_other 3\noom_kill 7\n"), Some(7));
        assert_eq!((read_kills("pgfault 9\n"), read_kills("oom_kill x\n")), (None, None));
    }

    #[test]
    fn only_the_record_of_this_container_counts() {
        let record = "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=libpod-b2,mems_allowed=0,\
                      oom_memcg=/libpod_parent/libpod-a1,task_memcg=/libpod_parent/libpod-c3,task=tail,pid=9,uid=0";
        assert!(names(record.as_bytes(), "a1"));
        assert!(!names(record.as_bytes(), "b2") && !names(record.as_bytes(), "c3"));
    }
}
