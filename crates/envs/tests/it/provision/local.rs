//! What the contract does not say: how this host does it.

use std::{
    fs,
    net::TcpListener,
    num::NonZeroU16,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use flowline_core::{
    SignedDuration,
    error::{ErrorKind, Kinded as _, chain},
};
use flowline_envs::provision::{
    Goal, InstanceState, Observed, PortChoice, ProcessSpec, ProvisionError, Provisioner as _, WorkloadChange,
    local::{LocalOptions, LocalProvisioner},
};

use super::{
    server::{self, behaviour},
    stage::{Stage, api, fence, granted, kill, web},
};

/// An error's text without what differs from run to run.
fn said(stage: &Stage, error: &ProvisionError, words: &[(&str, &str)]) -> String {
    let root = stage.root.path().canonicalize().unwrap();
    let text = chain(error).replace(root.to_str().unwrap(), "ROOT");
    words.iter().fold(text, |text, (word, shown)| text.replace(word, shown))
}

fn is_gone(pid: u32) -> bool {
    !fs::exists(format!("/proc/{pid}")).unwrap()
}

#[tokio::test]
async fn a_candidate_answers_beside_the_active_one() {
    let stage = Stage::new();
    let (one, two) = (stage.api("one", behaviour::FINE), stage.api("two", behaviour::FINE));
    stage.converge(&one, Goal::Alone).await;
    let observed = stage.stage(&two).await.unwrap();
    let page = |id| server::get(observed.instance(id).unwrap().port().unwrap());
    assert_eq!(page(one.instance()).as_deref(), Some("one"));
    assert_eq!(page(two.instance()).as_deref(), Some("two"));
    let log = observed.instance(two.instance()).unwrap().log.clone().unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("release "));
    stage.destroy(&one).await;
    assert_eq!((stage.processes(), stage.left()), (vec![], vec![]));
}

#[tokio::test]
async fn a_process_sees_what_is_declared_and_nothing_else() {
    let stage = Stage::new();
    let workload = stage
        .script("env | sort; exit 1", |spec| spec.with_env("MODE", "{environment}/{component}").unwrap());
    let error = stage.stage(&workload).await.unwrap_err();
    let ProvisionError::Ended { log, .. } = &error else { panic!("{error}") };
    let names: Vec<_> = log.0.iter().map(|line| line.split('=').next().unwrap()).collect();
    // `PWD` and `_` are the shell's own.
    let names: Vec<_> =
        names.into_iter().filter(|name| !matches!(*name, "PWD" | "_" | "OLDPWD" | "SHLVL")).collect();
    assert_eq!(names, ["FLOWLINE_INSTANCE", "MODE", "PATH"]);
    assert!(log.0.contains(&"MODE=production/api".to_owned()));
}

#[tokio::test]
async fn what_goes_wrong_at_a_start_is_said_with_the_last_output() {
    let stage = Stage::new();
    let mut all = Vec::new();
    let exits = stage.script("echo starting; echo 'no table `orders`' >&2; exit 3", |spec| spec);
    all.push(said(&stage, &stage.stage(&exits).await.unwrap_err(), &[]));
    let killed = stage.script("kill -9 $$", |spec| spec);
    all.push(said(&stage, &stage.stage(&killed).await.unwrap_err(), &[]));
    let command = |words: &[&str], artifact| api(artifact, ProcessSpec::new(words).unwrap());
    let plain = stage.artifact(&[("run", "#!/bin/sh\n", false), ("bad", "#!/no/such/interpreter\n", true)]);
    for words in [["./run"], ["./walk"], ["no-such-program"], ["./bad"], ["/"]] {
        let error = stage.stage(&command(&words, plain)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        all.push(said(&stage, &error, &[]));
    }
    let absent = command(&["x"], flowline_core::digest::Digest::of("absent"));
    let error = stage.stage(&absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    all.push(said(&stage, &error, &[]));
    insta::assert_snapshot!(all.join("\n"), @r"
    instance 05a83e8339ea of `process:production/api` ended before it was ready: it exited with code 3; the last it wrote:
      | starting
      | no table `orders`
    instance a072fc1d4a35 of `process:production/api` ended before it was ready: signal 9 ended it; it wrote nothing
    cannot start `./run` for `process:production/api`: ROOT/environments/production/api.process/releases/000003/run is not executable; set its mode in the artifact
    cannot start `./walk` for `process:production/api`: ROOT/environments/production/api.process/releases/000004/walk is not there; is it in the artifact?
    cannot start `no-such-program` for `process:production/api`: it is in none of /usr/local/bin:/usr/bin:/bin; give its path or set another PATH
    cannot start `ROOT/environments/production/api.process/releases/000006/bad` for `process:production/api`: the system refused; is its interpreter there, and is it for this machine?: No such file or directory (os error 2)
    cannot start `/` for `process:production/api`: / is no file
    artifact 5ad38304b535 is not in the store at ROOT/artifacts; import it first
    ");
    assert_eq!(stage.processes(), [0; 0]);
}

#[tokio::test]
async fn a_process_that_never_answers_is_stopped_and_said_to_be_unready() {
    let stage = Stage::new();
    let unwell = api(
        stage.server("x", behaviour::UNWELL),
        server::spec().with_ready_timeout(SignedDuration::from_millis(1_500)),
    );
    let error = stage.stage(&unwell).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let text = error.to_string();
    assert!(
        text.contains("did not become ready within 1.5s") && text.contains("GET /health answered 503"),
        "{text}"
    );
    assert_eq!(stage.processes(), [0; 0]);
    let observed = stage.observe(&unwell).await;
    let instance = observed.instance(unwell.instance()).unwrap();
    assert_eq!(instance.state, InstanceState::Failed { why: "it did not become ready in time".to_owned() });
}

/// A script that does something first and then becomes the server.
fn then_serves(stage: &Stage, first: &str) -> flowline_envs::provision::Workload {
    let spec = server::spec();
    let words =
        ["./run".to_owned()].into_iter().chain(spec.command().iter().map(|word| word.as_str().to_owned()));
    let artifact =
        stage.artifact(&[("run", &format!("#!/bin/sh\n{first}\nexec \"$@\"\n"), true), ("page", "x", false)]);
    let spec = ProcessSpec::new(words)
        .and_then(|spec| spec.with_env("SERVE_PORT", "{port}"))
        .and_then(|spec| spec.with_env("SERVE_RELEASE", "{release}"))
        .unwrap();
    api(artifact, spec)
}

#[tokio::test]
async fn everything_that_a_process_started_is_stopped_with_it() {
    let stage = Stage::new();
    // One in its group, one in a session of its own, one that cleared its environment.
    let first = "sleep 1000 &\nsetsid sleep 1000 &\nenv -i /bin/sleep 1000 &";
    let workload = then_serves(&stage, first);
    let observed = stage.stage(&workload).await.unwrap();
    let leader = observed.instances[0].process.as_ref().unwrap().pid;
    let group = || {
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Ended ones may wait for an init that takes its time.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| {
                !rest.starts_with('Z') && rest.split(' ').nth(2) == Some(&leader.to_string())
            })
        })
        .count()
    };
    assert_eq!((stage.processes().len(), group()), (3, 3));
    stage.apply(&workload, WorkloadChange::Discard(workload.instance())).await.unwrap();
    assert_eq!((stage.processes().len(), group()), (0, 0));
    assert!(is_gone(leader), "it was not reaped");
}

#[tokio::test]
async fn a_process_that_does_not_want_to_stop_is_made_to() {
    let stage = Stage::new();
    let mut workload = then_serves(&stage, "trap '' TERM");
    let flowline_envs::provision::WorkloadKind::Process(spec) = &mut workload.kind else { panic!() };
    *spec = spec.clone().with_stop_grace(SignedDuration::from_millis(50));
    let observed = stage.stage(&workload).await.unwrap();
    let pid = observed.instances[0].process.as_ref().unwrap().pid;
    stage.apply(&workload, WorkloadChange::Retire(workload.instance())).await.unwrap();
    assert!(is_gone(pid));
    assert_eq!(stage.observe(&workload).await.instances[0].state, InstanceState::Stopped);
}

#[tokio::test]
async fn a_process_that_died_is_shown_and_comes_back_at_the_same_port() {
    let stage = Stage::new();
    let workload = stage.api("one", behaviour::FINE);
    let before = stage.converge(&workload, Goal::Alone).await;
    let process = before.active().unwrap().process.clone().unwrap();
    kill(process.pid);
    let observed = loop {
        let observed = stage.observe(&workload).await;
        if observed.instances[0].process.is_none() {
            break observed;
        }
    };
    let why = "signal 9 ended it".to_owned();
    assert_eq!(observed.instances[0].state, InstanceState::Failed { why: why.clone() });
    assert!(is_gone(process.pid), "it was not reaped");
    assert_eq!(stage.observe(&workload).await.instances[0].state, InstanceState::Failed { why });
    let after = stage.converge(&workload, Goal::Alone).await;
    let again = after.active().unwrap().process.clone().unwrap();
    assert_ne!(again.pid, process.pid);
    assert_eq!(again.port, process.port);
    assert_eq!(server::get(again.port).as_deref(), Some("one"));
}

#[tokio::test]
async fn a_taken_port_is_said_with_its_holder() {
    let stage = Stage::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let fixed = |port| server::spec().with_port(PortChoice::Fixed(NonZeroU16::new(port).unwrap()));
    let workload = api(stage.server("one", behaviour::FINE), fixed(port));
    let error = stage.stage(&workload).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let (pid, at, name) =
        (std::process::id().to_string(), port.to_string(), fs::read_to_string("/proc/self/comm").unwrap());
    let words = [(name.trim_end(), "NAME"), (at.as_str(), "PORT"), (pid.as_str(), "PID")];
    insta::assert_snapshot!(said(&stage, &error, &words), @"port PORT for `process:production/api` is taken by process PID (`NAME`); free it or choose another");
    drop(holder);
    let observed = stage.stage(&workload).await.unwrap();
    assert_eq!(observed.instances[0].port(), Some(port));
}

#[tokio::test]
async fn another_program_that_answers_on_the_port_is_not_taken_for_ours() {
    let stage = Stage::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = std::env::current_exe().unwrap();
    // The answer comes from a process that has neither the mark nor the group.
    let first = format!(
        "setsid env -i SERVE_PORT={port} SERVE_RELEASE=$PWD timeout 60 {} --exact provision::server::acts_as_a_server &\nsleep 1000",
        own.display()
    );
    let mut workload = then_serves(&stage, &first);
    let flowline_envs::provision::WorkloadKind::Process(spec) = &mut workload.kind else { panic!() };
    *spec = spec.clone().with_port(PortChoice::Fixed(NonZeroU16::new(port).unwrap()));
    let error = stage.stage(&workload).await.unwrap_err();
    let ProvisionError::PortTaken { holder: Some(holder), .. } = error else { panic!("{error}") };
    kill(holder.pid);
    assert_eq!(stage.processes(), [0; 0]);
}

#[tokio::test]
async fn a_pid_that_belongs_to_another_program_now_is_never_signalled() {
    let stage = Stage::new();
    let workload = stage.api("one", behaviour::FINE);
    let observed = stage.converge(&workload, Goal::Alone).await;
    let process = observed.active().unwrap().process.clone().unwrap();
    #[expect(clippy::disallowed_methods, reason = "somebody else's program")]
    let mut innocent = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    // As if the pid had come round: the record names it, with the start of the process that had it before.
    let record = stage.root.path().join("environments/production/api.process/record.json");
    let text = fs::read_to_string(&record).unwrap();
    let text = text.replace(&format!("\"pid\": {}", process.pid), &format!("\"pid\": {}", innocent.id()));
    fs::write(&record, text).unwrap();
    kill(process.pid);
    assert!(matches!(stage.observe(&workload).await.instances[0].state, InstanceState::Failed { .. }));
    let mut captured = observed.clone();
    captured.instances[0].process.as_mut().unwrap().pid = innocent.id();
    stage.provisioner.destroy(&granted(&workload), &captured, &fence(1)).await.unwrap();
    assert!(innocent.try_wait().unwrap().is_none(), "an innocent was stopped");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    assert_eq!(stage.left(), [""; 0]);
}

#[tokio::test]
async fn current_is_never_missing_while_it_moves() {
    let stage = Stage::new();
    let pages = ["one", "two"].map(|page| web(stage.artifact(&[("index.html", page, false)])));
    stage.converge(&pages[0], Goal::Alone).await;
    let current = stage.provisioner.current(&granted(&pages[0])).unwrap().join("index.html");
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let done = std::sync::Arc::clone(&done);
        move || {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let page = fs::read_to_string(&current).unwrap();
                assert!(page == "one" || page == "two", "{page}");
                reads += 1;
            }
            reads
        }
    });
    for number in 0..20 {
        stage.converge(&pages[(number + 1) % 2], Goal::Alone).await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}

#[tokio::test]
async fn a_release_that_was_changed_where_it_stood_is_made_anew() {
    let stage = Stage::new();
    let [one, two] = ["one", "two"].map(|page| web(stage.artifact(&[("index.html", page, false)])));
    let observed = stage.converge(&one, Goal::Alone).await;
    let directory = observed.active().unwrap().directory.clone().unwrap();
    stage.converge(&two, Goal::Alone).await;
    fs::write(directory.join("index.html"), "changed by hand").unwrap();
    stage.converge(&one, Goal::Alone).await;
    assert_eq!(fs::read_to_string(directory.join("index.html")).unwrap(), "one");
}

#[tokio::test]
async fn a_log_is_bounded_and_kept_with_its_release() {
    let stage = Stage::with(LocalOptions::default().with_log_limit(20_000));
    let first = "i=0; while [ $i -lt 2000 ]; do echo 'a line of output'; i=$((i+1)); done";
    let workload = then_serves(&stage, first);
    let observed = stage.stage(&workload).await.unwrap();
    let log = observed.instances[0].log.clone().unwrap();
    stage.observe(&workload).await;
    assert!(fs::metadata(&log).unwrap().len() <= 20_000);
    assert!(fs::metadata(log.with_extension("log.1")).unwrap().len() <= 20_000);
    stage.apply(&workload, WorkloadChange::Retire(workload.instance())).await.unwrap();
    assert!(log.exists());
}

#[tokio::test]
async fn a_change_that_nobody_waits_for_any_more_lets_go_and_can_be_continued() {
    let stage = Stage::new();
    let workload = api(
        stage.server("x", behaviour::UNWELL),
        server::spec().with_ready_timeout(SignedDuration::from_hours(1)),
    );
    let staging = stage.stage(&workload);
    tokio::select! {
        result = staging => panic!("{result:?}"),
        () = async {
            while stage.observe(&workload).await.instances.first().is_none_or(|found| found.process.is_none()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    assert_eq!(stage.observe(&workload).await.instances[0].state, InstanceState::Starting);
    let observed = stage.apply(&workload, WorkloadChange::Discard(workload.instance())).await.unwrap();
    assert!(observed.is_empty());
    assert_eq!((stage.processes(), stage.left()), (vec![], vec!["production.api.process".to_owned()]));
}

#[tokio::test]
async fn somebody_else_who_holds_the_resource_is_named() {
    let stage = Stage::with(LocalOptions::default().with_lock_wait(Duration::from_millis(20)));
    let workload = web(stage.artifact(&[("index.html", "x", false)]));
    let lock = fs::File::create(stage.root.path().join("locks/production.web.dir")).unwrap();
    lock.lock().unwrap();
    fs::write(stage.root.path().join("locks/production.web.dir"), "4242").unwrap();
    let error = stage.stage(&workload).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    insta::assert_snapshot!(said(&stage, &error, &[]), @"`dir:production/web` is being changed by process 4242; try again when that has ended");
    drop(lock);
    stage.stage(&workload).await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_is_said_and_can_be_destroyed() {
    let stage = Stage::new();
    let workload = stage.api("one", behaviour::FINE);
    stage.converge(&workload, Goal::Alone).await;
    fs::write(stage.root.path().join("environments/production/api.process/record.json"), "{\"resource\": 1")
        .unwrap();
    let error = stage.provisioner.observe(&granted(&workload)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    insta::assert_snapshot!(said(&stage, &error, &[]), @"ROOT/environments/production/api.process/record.json is damaged: invalid type: integer `1`, expected a string at line 1 column 14; destroy the resource and deploy it again");
    stage.destroy(&workload).await;
    assert_eq!((stage.processes(), stage.left()), (vec![], vec![]));
}

#[tokio::test]
async fn a_root_that_cannot_be_one_is_said() {
    let stage = Stage::new();
    let file = stage.root.path().join("file");
    fs::write(&file, "").unwrap();
    let mut all = Vec::new();
    for root in [file.clone(), file.join("below")] {
        let error = LocalProvisioner::open(&root, LocalOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        all.push(said(&stage, &error, &[]));
    }
    insta::assert_snapshot!(all.join("\n"), @r"
    cannot create ROOT/file: a file stands where a directory is needed; choose another place: File exists (os error 17)
    cannot create ROOT/file/below: a file stands where a directory is needed; choose another place: Not a directory (os error 20)
    ");
}

#[tokio::test]
async fn what_a_dead_process_left_running_is_stopped_before_the_next_start() {
    let stage = Stage::new();
    let workload = then_serves(&stage, "sleep 1000 &");
    let observed = stage.converge(&workload, Goal::Alone).await;
    kill(observed.active().unwrap().process.as_ref().unwrap().pid);
    let again = loop {
        let again = stage.converge(&workload, Goal::Alone).await;
        if again != observed {
            break again;
        }
    };
    assert_eq!(stage.processes().len(), 2, "the server and its child; the child of the dead one is gone");
    stage.destroy(&workload).await;
    assert_eq!((stage.processes(), stage.left()), (vec![], vec![]), "{again:?}");
}

#[tokio::test]
async fn data_outlives_releases_and_goes_with_the_resource() {
    let stage = Stage::new();
    let serves = |page: &str| {
        let first = format!("echo {page} >> \"$DATA/pages\"");
        let mut workload = then_serves(&stage, &first);
        let flowline_envs::provision::WorkloadKind::Process(spec) = &mut workload.kind else { panic!() };
        *spec = spec.clone().with_env("DATA", "{data}").unwrap();
        workload
    };
    stage.converge(&serves("one"), Goal::Alone).await;
    stage.converge(&serves("two"), Goal::Alone).await;
    let data = stage.root.path().join("environments/production/api.process/data/pages");
    assert_eq!(fs::read_to_string(&data).unwrap(), "one\ntwo\n");
    stage.destroy(&serves("two")).await;
    assert!(!data.exists());
}

/// A file system of so many KiB, unmounted in the end.
struct Small(tempfile::TempDir);

impl Small {
    #[expect(clippy::disallowed_methods, reason = "only mount(8) makes a file system")]
    fn new(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        mount.output().is_ok_and(|done| done.status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    #[expect(clippy::disallowed_methods, reason = "only umount(8) takes a file system away")]
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(self.0.path()).output().ok();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_half_done_is_left() {
    let Some(small) = Small::new(1_024) else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let stage = Stage::at(small.0.path(), LocalOptions::default());
    // One fits; then there is room for neither another nor for a release of it.
    let fits = "x".repeat(600 << 10);
    let artifact = stage.artifact(&[("page", &fits, false)]);
    let dir = tempfile::tempdir().unwrap();
    super::stage::write(dir.path(), &[("page", &"y".repeat(600 << 10), false)]);
    let import = stage.provisioner.import(dir.path().to_owned()).await.unwrap_err();
    assert_eq!(import.kind(), ErrorKind::Unavailable);
    let workload = web(artifact);
    let staged = stage.stage(&workload).await.unwrap_err();
    assert_eq!(staged.kind(), ErrorKind::Unavailable);
    let root = small.0.path().canonicalize().unwrap();
    let shown = |error: &(dyn std::error::Error + 'static), word: &str| {
        let mut text = chain(error);
        // The name of a temporary directory counts imports of the process.
        if let Some(from) = text.find("incoming-") {
            let to = text[from..].find('/').unwrap();
            text.replace_range(from..from + to, "INCOMING");
        }
        let text = text.replace(root.to_str().unwrap(), "ROOT").replace(word, "DIR");
        text.replace(&artifact.hex(), "HEX")
    };
    let all = [shown(&import, dir.path().to_str().unwrap()), shown(&staged, "DIR")];
    insta::assert_snapshot!(all.join("\n"), @r"
    cannot import DIR: cannot write `ROOT/artifacts/INCOMING/page`: No space left on device (os error 28)
    cannot write ROOT/environments/production/web.dir/releases/copying-1/page: there is no space left; free some and try again: No space left on device (os error 28)
    ");
    assert_eq!(stage.provisioner.artifacts().list().unwrap(), [artifact]);
    assert_eq!(stage.left(), ["production.web.dir"], "the file of its lock");
    assert!(stage.observe(&workload).await.is_empty());
    stage.provisioner.artifacts().remove(artifact).unwrap();
    let workload = web(stage.artifact(&[("page", "small", false)]));
    assert!(stage.converge(&workload, Goal::Alone).await.active().is_some());
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_resource_from_being_destroyed() {
    let Some(small) = Small::new(1_024) else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let stage = Stage::at(small.0.path(), LocalOptions::default());
    let workload = stage.api("one", behaviour::FINE);
    stage.converge(&workload, Goal::Alone).await;
    let filler = fs::File::create(small.0.path().join("artifacts/filler")).unwrap();
    std::io::copy(&mut std::io::repeat(0), &mut &filler).unwrap_err();
    // A new token, which there is no room to remember before something is gone.
    let destroy = async |token| {
        stage.provisioner.destroy(&granted(&workload), &Observed::default(), &fence(token)).await
    };
    destroy(2).await.unwrap();
    assert_eq!(destroy(1).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(stage.processes(), [0; 0]);
    assert!(stage.observe(&workload).await.is_empty());
}
