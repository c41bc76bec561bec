//! Where commands can run besides this host: Podman's service and an sshd on loopback, each started by the test and gone with it.
//!
//! A test whose part is missing says so and passes; with `FLOWLINE_CI=1` it fails.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use flowline_core::{SignedDuration, clock::SystemClock};
use flowline_pipeline::exec::{ContainerExecutor, Engine, Image, SshExecutor, SshHost};

/// Whether all `programs` are there; says which is not.
pub(crate) fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !Path::new(program).exists()).collect();
    if missing.is_empty() {
        return true;
    }
    let note = format!("{missing:?} missing; `.ci/tools` installs what these tests need");
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment whether they may skip")]
    let strict = std::env::var("FLOWLINE_CI").is_ok_and(|value| value == "1");
    assert!(!strict, "{note}");
    eprintln!("passed without a check: {note}");
    false
}

#[expect(clippy::disallowed_methods, reason = "these tests exist to run other programs")]
fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn eventually(what: &str, mut seen: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if seen() {
            return;
        }
        nap();
    }
    panic!("{what} did not happen");
}

/// A Podman service with storage of its own, and an image of busybox in it.
#[derive(Debug)]
pub(crate) struct Podman {
    dir: tempfile::TempDir,
    service: Child,
    image: Image,
}

impl Podman {
    pub(crate) const PROGRAMS: [&str; 3] = ["/usr/bin/podman", "/usr/sbin/runc", "/bin/busybox"];

    pub(crate) fn start() -> Option<Self> {
        have(&[&Self::PROGRAMS[..], &["/usr/bin/catatonit"]].concat()).then(|| {
            let dir = tempfile::tempdir().unwrap();
            let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\nruntime = \"runc\"\n";
            fs::write(dir.path().join("containers.conf"), settings).unwrap();
            let root = dir.path().join("img");
            for folder in ["bin", "usr/bin", "tmp", "proc", "dev", "sys", "etc", "run"] {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
            fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            for applet in run(program("/bin/busybox").arg("--list")).lines().filter(|name| *name != "busybox") {
                std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
                std::os::unix::fs::symlink("../../bin/busybox", root.join("usr/bin").join(applet)).unwrap();
            }
            let tar = dir.path().join("img.tar");
            run(program("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
            run(Self::podman(dir.path())
                .args(["import", "-q", "--change", "ENV PATH=/bin"])
                .args(["--change", "ENV IMAGE_ONLY=1"])
                .arg(&tar)
                .arg("flowline-test:1"));
            let digest = ["image", "inspect", "flowline-test:1", "--format", "{{.Digest}}"];
            let digest = run(Self::podman(dir.path()).args(digest));
            let image = format!("localhost/flowline-test@{digest}").parse().unwrap();
            let socket = dir.path().join("podman.sock");
            let service = Self::podman(dir.path())
                .args(["system", "service", "--time", "0"])
                .arg(format!("unix://{}", socket.display()))
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            eventually("podman's answer", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
            Self { dir, service, image }
        })
    }

    fn podman(dir: &Path) -> Command {
        let mut command = program("/usr/bin/podman");
        // What watches a container's memory leaves a note in its working directory.
        command.current_dir(dir).env("CONTAINERS_CONF", dir.join("containers.conf"));
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }

    pub(crate) fn image(&self) -> Image {
        self.image.clone()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    /// Ends the service, but no container.
    pub(crate) fn vanish(&mut self) {
        self.service.kill().ok();
        self.service.wait().ok();
    }

    /// The names of all containers, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        let list = run(Self::podman(self.dir.path()).args(["ps", "-a", "--format", "{{.Names}}"]));
        list.lines().map(str::to_owned).collect()
    }

    /// Makes a container that is not ours, with labels as if it were.
    pub(crate) fn make(&self, name: &str, labels: &[String]) {
        let mut podman = Self::podman(self.dir.path());
        podman.args(["create", "--name", name, "--network", "none"]);
        podman.args(labels.iter().flat_map(|label| ["--label", label]));
        run(podman.args(["flowline-test:1", "/bin/true"]));
    }

    pub(crate) async fn executor(&self) -> ContainerExecutor {
        let engine = Engine::connect(self.socket()).await.unwrap();
        ContainerExecutor::new(engine, self.image(), Arc::new(SystemClock))
            .with_grace(SignedDuration::from_secs(3))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.vanish();
        Self::podman(self.dir.path()).args(["rm", "-af", "-t", "0"]).output().ok();
        // What tidies up after the last container may still be writing there.
        for _ in 0..50 {
            if fs::remove_dir_all(self.dir.path()).is_ok() {
                break;
            }
            nap();
        }
    }
}

/// An sshd on loopback with a host key and one user key of its own.
#[derive(Debug)]
pub(crate) struct Sshd {
    dir: tempfile::TempDir,
    server: Child,
    port: u16,
}

impl Sshd {
    pub(crate) fn start() -> Option<Self> {
        have(&["/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-keygen", "/usr/bin/setsid"]).then(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            for key in ["host", "user"] {
                run(program("/usr/bin/ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(path(key)));
            }
            fs::create_dir_all("/run/sshd").ok();
            // Nobody holds the port between finding and using it; another one is tried if somebody took it.
            let (server, port) = (0..5)
                .find_map(|_| {
                    let free =
                        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                    let mut server = Self::serve(dir.path(), free);
                    let answers = |_: usize| {
                        if server.try_wait().unwrap().is_some() {
                            return Some(false);
                        }
                        nap();
                        std::net::TcpStream::connect(("127.0.0.1", free)).ok().map(|_| true)
                    };
                    (0..500).find_map(answers).unwrap_or(false).then_some((server, free))
                })
                .expect("sshd answers");
            let key = fs::read_to_string(path("host.pub")).unwrap();
            fs::write(path("known"), format!("[127.0.0.1]:{port} {key}")).unwrap();
            Self { dir, server, port }
        })
    }

    fn serve(dir: &Path, port: u16) -> Child {
        let path = |name: &str| dir.join(name).display().to_string();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            path("host"),
            path("user.pub")
        );
        fs::write(path("config"), settings).unwrap();
        let mut server = program("/usr/sbin/sshd");
        server.args(["-D", "-f"]).arg(path("config")).arg("-E").arg(path("log"));
        server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn host(&self) -> SshHost {
        self.host_trusting("known")
    }

    /// The host, whose key is looked up in the file `known` of its directory.
    pub(crate) fn host_trusting(&self, known: &str) -> SshHost {
        let user = run(program("id").arg("-un"));
        SshHost::new(&format!("{user}@127.0.0.1"), self.path(known))
            .unwrap()
            .with_port(self.port)
            .with_identity(self.path("user"))
    }

    pub(crate) fn executor(&self) -> SshExecutor {
        SshExecutor::new(self.host(), Arc::new(SystemClock))
            .with_grace(SignedDuration::from_millis(600))
            .with_root(self.path("remote").display().to_string())
    }

    /// Serves again, as a host that comes back.
    pub(crate) fn come_back(&mut self) {
        self.server = Self::serve(self.dir.path(), self.port);
    }

    /// Ends the server and every connection to it, as a host that goes away.
    pub(crate) fn vanish(&mut self) {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.server.id()));
        self.server.kill().ok();
        self.server.wait().ok();
        for child in children.unwrap_or_default().split_whitespace() {
            program("kill").args(["-9", child]).output().ok();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.vanish();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for a server to be up")]
fn nap() {
    std::thread::sleep(Duration::from_millis(20));
}
