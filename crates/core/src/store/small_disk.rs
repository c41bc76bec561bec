//! For tests: a disk that fills up, and one that turns out to be read-only.

use std::path::Path;

/// A file system in memory of a given size; unmounted when dropped.
pub(super) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    pub(super) fn of_kilobytes(size: u32) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}k"), "tmpfs"]);
        if !mounted {
            eprintln!("skipped: mounting a small tmpfs is not permitted here");
        }
        mounted.then_some(disk)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Nothing can be written any more.
    pub(super) fn protect(&self) {
        assert!(self.run("mount", &["-o", "remount,ro"]));
    }

    /// There is more room.
    pub(super) fn grow(&self, kilobytes: u32) {
        assert!(self.run("mount", &["-o", &format!("remount,size={kilobytes}k")]));
    }

    #[expect(clippy::disallowed_methods, reason = "a small disk is made by mounting one")]
    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = std::process::Command::new(program);
        let command = command.args(arguments).arg(self.0.path()).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &[]);
    }
}
