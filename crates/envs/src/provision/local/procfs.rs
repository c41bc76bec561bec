//! Which processes there are, as Linux tells it in `/proc`: identity, group, mark and ports.

use std::{fs, io, path::PathBuf};

pub(super) use flowline_core::process::{Process, boot};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::provision::{PortHolder, RunningProcess};

/// The variable that carries a process's mark. Children of the process inherit it.
pub(super) const MARK: &str = "FLOWLINE_INSTANCE";

/// The process with this id now.
pub(super) fn process(pid: u32) -> Option<Process> {
    Process::find(pid)
}

/// The process that `recorded` names, if it is still that one: same boot, id and start.
pub(super) fn same(recorded: &RunningProcess) -> Option<Process> {
    if recorded.boot != boot() {
        return None;
    }
    process(recorded.pid).filter(|found| found.started == recorded.started)
}

/// All processes, by id.
pub(super) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut all: Vec<_> = pids.filter_map(process).collect();
    all.sort_by_key(|process| process.pid);
    all
}

/// The mark of a process, if it has one that we may read. A zombie has none.
pub(super) fn mark(pid: u32) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// If `process` is an ended child of ours: takes its exit status, so that nothing is left of it, and says how it ended.
pub(super) fn reap(process: &Process) -> Option<String> {
    if !process.zombie || process.parent != std::process::id() {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    Some(how_it_ended(status))
}

fn how_it_ended(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it ended".to_owned(),
    }
}

/// The process that listens on 127.0.0.1 (or on all addresses) at `port`, if it is one that we may look into. `likely` is asked first.
pub(super) fn listener(port: u16, likely: Option<u32>) -> Option<PortHolder> {
    let sockets = listening_sockets(port);
    if sockets.is_empty() {
        return None;
    }
    let holds = |process: &Process| {
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| sockets.contains(&link)))
    };
    let holder =
        likely.and_then(process).filter(|likely| holds(likely)).or_else(|| all().into_iter().find(holds))?;
    Some(PortHolder { pid: holder.pid, name: holder.name })
}

/// The sockets that listen at `port`, as `/proc/PID/fd` shows them.
fn listening_sockets(port: u16) -> Vec<PathBuf> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok());
    let mut sockets = Vec::new();
    for table in tables {
        let inodes = table.lines().skip(1).filter_map(|line| listening_inode(line, port));
        sockets.extend(inodes.map(|inode| PathBuf::from(format!("socket:[{inode}]"))));
    }
    sockets
}

/// The inode in a line of `/proc/net/tcp` if it is a listening socket (state 0A) at `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16).ok()? == port;
    listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

/// Whether `/proc` tells about processes here. Without it nothing can be adopted, so nothing is started.
pub(super) fn check() -> io::Result<()> {
    match process(std::process::id()) {
        Some(_) => Ok(()),
        None => Err(io::Error::new(io::ErrorKind::Unsupported, "there is no /proc here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_find_ourselves_and_our_port() {
        let own = process(std::process::id()).unwrap();
        assert!(all().contains(&own));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listener(port, None).unwrap().pid, own.pid);
    }

    #[test]
    fn only_listening_sockets_hold_a_port() {
        let line = "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 55 1 x 100 0 0 10 0";
        assert_eq!(listening_inode(line, 8080), Some("55".to_owned()));
        assert_eq!(listening_inode(line, 8081), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), 8080), None);
    }
}
