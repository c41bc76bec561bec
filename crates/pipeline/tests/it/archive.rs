//! Archives: the same tree, the same bytes; and nothing but the tree that was meant comes out.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use flowline_core::{clock::SystemClock, digest::Digest, id::RunId, store::MemoryStore};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    pipeline::Constant,
    plan::Planner,
    run::{Ended, Report},
    steps::{Archive, PackArchive, PackArchiveStep, UnpackArchive, UnpackArchiveStep},
    testkit::{self, StepTrial, Trial},
};

use crate::{
    sync::shown,
    world::{failing, granted_world},
};

fn source(root: &Path) -> PathBuf {
    // More than one piece.
    source_with(root, 300_000)
}

fn source_with(root: &Path, bytes: usize) -> PathBuf {
    let source = root.join("source");
    if source.exists() {
        return source;
    }
    fs::create_dir_all(source.join("bin/deep")).unwrap();
    fs::write(source.join("readme.md"), "read me").unwrap();
    fs::write(source.join("bin/deep/run"), vec![b'x'; bytes]).unwrap();
    fs::set_permissions(source.join("bin/deep/run"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(source.join(format!("{}.txt", "long".repeat(40))), "a name that ustar cannot hold").unwrap();
    symlink("deep/run", source.join("bin/run")).unwrap();
    source
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    (dir, root)
}

fn world() -> (Arc<flowline_pipeline::Registry>, flowline_core::grant::Authority) {
    granted_world(&["dir:*"], |registry| {
        registry.add(PackArchiveStep).unwrap().add(UnpackArchiveStep).unwrap();
    })
}

async fn run(write: impl FnOnce(&mut Pipeline)) -> Report {
    run_as("one", write).await
}

async fn run_as(id: &str, write: impl FnOnce(&mut Pipeline)) -> Report {
    let (registry, authority) = world();
    let mut pipeline = Pipeline::new("archive", "storefront".parse().unwrap());
    write(&mut pipeline);
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::new(SystemClock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, Arc::new(SystemClock));
    runner.run(&RunId::new(id).unwrap(), &plan, &Cancel::new()).await.unwrap()
}

async fn packed(root: &Path, spec: PackArchive) -> Archive {
    let mut output = None;
    let report = run(|pipeline| output = Some(pipeline.step("pack", spec))).await;
    assert!(report.succeeded(), "{root:?} {report:?}");
    report.state.output(&output.unwrap()).unwrap().unwrap()
}

async fn refused(archive: &Archive, into: &Path) -> String {
    let feed = Constant(archive.clone());
    let report = run(|pipeline| drop(pipeline.feed("unpack", UnpackArchive::new(into), feed))).await;
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    let root = into.parent().unwrap();
    assert!(!into.exists() || fs::read_dir(into).unwrap().count() < 2);
    cause.to_string().replace(&root.display().to_string(), "ROOT")
}

#[tokio::test]
async fn packing_keeps_every_promise() {
    let report = testkit::step(async || {
        let (dir, root) = temp();
        let spec = PackArchive::new("site", source(&root), root.join("artifacts"));
        StepTrial::new(PackArchiveStep, spec, move || shown_names(&root.join("artifacts"))).keeping(dir)
    })
    .await;
    report.assert();
}

fn shown_names(dir: &Path) -> String {
    let Ok(found) = fs::read_dir(dir) else { return String::new() };
    let mut names: Vec<_> = found
        .map(|found| found.unwrap())
        .map(|found| (found.file_name(), Digest::of(fs::read(found.path()).unwrap()).short()))
        // What a cut left beside is no archive.
        .filter(|(name, _)| !name.to_string_lossy().ends_with(".new"))
        .collect();
    names.sort();
    format!("{names:?}")
}

#[tokio::test]
async fn unpacking_keeps_every_promise() {
    let (_dir, root) = temp();
    let archive = packed(&root, PackArchive::new("site", source(&root), root.join("artifacts"))).await;
    let report = testkit::step(async || {
        let (dir, root) = temp();
        let spec = UnpackArchive::new(root.join("site"));
        StepTrial::new(UnpackArchiveStep, spec, move || shown(&root.join("site")))
            .with_input(serde_json::to_value(&archive).unwrap())
            .keeping(dir)
    })
    .await;
    report.assert();
}

#[tokio::test]
async fn packing_and_unpacking_survive_a_crash_anywhere() {
    // One place for all trials, as the archive's path is part of what is compared.
    let (_dir, root) = temp();
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let root = root.join("world");
            if root.exists() {
                fs::remove_dir_all(&root).unwrap();
            }
            let (registry, authority) = world();
            let mut pipeline = Pipeline::new("archive", "storefront".parse().unwrap());
            let spec = PackArchive::new("site", source_with(&root, 3_000), root.join("artifacts"));
            let packed = pipeline.step("pack", spec);
            let unpacked = pipeline.feed("unpack", UnpackArchive::new(root.join("site")), &packed);
            if fails {
                failing(&mut pipeline, &unpacked);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let check = move |ended: &Ended| {
                let there = shown(&root.join("site")) == shown(&root.join("source"));
                match ended {
                    Ended::Succeeded if there => Ok(()),
                    Ended::Undone { .. } if !root.join("site").exists() => Ok(()),
                    _ => Err(format!("{ended:?}")),
                }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        report.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test]
async fn the_same_tree_gives_the_same_bytes() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (_dir, root) = temp();
        for gzip in [true, false] {
            let spec = PackArchive { gzip, ..PackArchive::new("site", source(&root), root.join("out")) };
            let archive = packed(&root, spec).await;
            assert_eq!(Digest::of(fs::read(&archive.path).unwrap()), archive.digest);
            seen.push((archive.path.file_name().unwrap().to_owned(), archive.digest, archive.tree));
        }
        // Times don't count, contents and permissions do.
        fs::set_permissions(root.join("source/readme.md"), PermissionsExt::from_mode(0o600)).unwrap();
        let spec = PackArchive::new("site", root.join("source"), root.join("out"));
        assert_ne!(packed(&root, spec).await.tree, seen[0].2);
    }
    assert_eq!(seen[..2], seen[2..]);
}

/// One thread lets each packing go on after a piece of the other.
#[tokio::test]
async fn packing_one_tree_twice_at_a_time_mixes_nothing() {
    let (_dir, root) = temp();
    let spec = PackArchive::new("site", source_with(&root, 3_000_000), root.join("out"));
    let pack = async |id: &str| {
        let mut output = None;
        let report = run_as(id, |pipeline| output = Some(pipeline.step("pack", spec.clone()))).await;
        assert!(report.succeeded(), "{report:?}");
        report.state.output(&output.unwrap()).unwrap().unwrap()
    };
    let (one, other) = tokio::join!(pack("one"), pack("other"));
    assert_eq!(one, other);
    assert_eq!(Digest::of(fs::read(&one.path).unwrap()), one.digest);
    assert_eq!(fs::read_dir(root.join("out")).unwrap().count(), 1, "nothing is left beside");
}

#[tokio::test]
async fn an_archive_that_is_there_is_kept_if_it_is_whole() {
    use std::os::unix::fs::MetadataExt;
    let (_dir, root) = temp();
    let spec = PackArchive::new("site", source(&root), root.join("out"));
    let first = packed(&root, spec.clone()).await;
    let file = || fs::metadata(&first.path).unwrap().ino();
    let (before, left) = (file(), root.join("out/.site-left.tar.gz.new"));
    fs::write(&left, "somebody else's").unwrap();
    assert_eq!(packed(&root, spec.clone()).await, first);
    assert_eq!(file(), before);
    // A damaged one is no archive.
    fs::write(&first.path, "damaged").unwrap();
    assert_eq!(packed(&root, spec).await, first);
    assert_eq!(Digest::of(fs::read(&first.path).unwrap()), first.digest);
    assert!(left.exists());
}

#[tokio::test]
async fn other_tools_can_read_it() {
    let (_dir, root) = temp();
    let archive = packed(&root, PackArchive::new("site", source(&root), root.join("out"))).await;
    fs::create_dir(root.join("by-tar")).unwrap();
    let mut tar = tokio::process::Command::from(tar_program(&archive.path, &root.join("by-tar")));
    assert!(tar.status().await.unwrap().success());
    assert_eq!(shown(&root.join("by-tar")), shown(&root.join("source")));
}

#[expect(clippy::disallowed_methods, reason = "the point is another program")]
fn tar_program(archive: &Path, into: &Path) -> std::process::Command {
    let mut tar = std::process::Command::new("tar");
    tar.arg("-xzpf").arg(archive).arg("-C").arg(into);
    tar
}

#[tokio::test]
async fn an_archive_that_is_not_the_one_meant_is_not_unpacked() {
    let (_dir, root) = temp();
    let good = packed(&root, PackArchive::new("site", source(&root), root.join("out"))).await;
    let into = root.join("site");
    let other = Archive { tree: Digest::of("another"), ..good.clone() };
    assert!(refused(&other, &into).await.contains("the tree of"));
    let mut bytes = fs::read(&good.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&good.path, bytes).unwrap();
    assert!(refused(&good, &into).await.contains("the digest of"));
    fs::create_dir(&into).unwrap();
    fs::write(into.join("precious"), "").unwrap();
    insta::assert_snapshot!(refused(&good, &into).await, @"step `unpack` failed: ROOT/site is there already and holds something else; move it away, or unpack elsewhere");
    assert!(into.join("precious").exists());
}

#[tokio::test]
async fn an_archive_cannot_write_outside_itself() {
    let (_dir, root) = temp();
    let mut said = Vec::new();
    for (number, evil) in EVIL.iter().enumerate() {
        let path = root.join(format!("evil-{number}.tar"));
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, kind, link) in *evil {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(0);
            // Past the checks of the crate that writes it.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            tar.append(&header, std::io::empty()).unwrap();
        }
        tar.into_inner().unwrap().flush().unwrap();
        let digest = Digest::of(fs::read(&path).unwrap());
        let archive = Archive { path, digest, tree: digest, bytes: 0 };
        said.push(refused(&archive, &root.join("site")).await);
        assert!(!root.join("escaped").exists());
    }
    let said = said.join("\n");
    insta::assert_snapshot!(said, @r"
    step `unpack` failed: ROOT/evil-0.tar cannot be unpacked: its entry `../escaped` leads out of the archive
    step `unpack` failed: ROOT/evil-1.tar cannot be unpacked: its entry `/tmp/flowline-escaped` leads out of the archive
    step `unpack` failed: ROOT/evil-2.tar cannot be unpacked: its entry `up` is a link that may lead out of the archive
    step `unpack` failed: ROOT/evil-3.tar cannot be unpacked: its entry `here/inside` comes before its directory, or lies in a link
    step `unpack` failed: ROOT/evil-4.tar cannot be unpacked: its entry `hard` is neither a file, a directory nor a link
    step `unpack` failed: ROOT/evil-5.tar cannot be unpacked: its entry `device` is neither a file, a directory nor a link
    step `unpack` failed: the files of an archive cannot be used: cannot create ROOT/.site.unpacking/twice: File exists (os error 17)
    step `unpack` failed: ROOT/evil-7.tar cannot be unpacked: its entry `l` is a link that may lead out of the archive
    step `unpack` failed: ROOT/evil-8.tar cannot be unpacked: its entry `l` is a link that may lead out of the archive
    ");
}

#[tokio::test]
async fn a_link_that_another_link_leads_outside_is_not_packed() {
    let (_dir, root) = temp();
    let source = source(&root);
    fs::write(root.join("outside"), "of the tree").unwrap();
    symlink(".", source.join("s")).unwrap();
    symlink("s/../outside", source.join("l")).unwrap();
    assert_eq!(fs::read_to_string(source.join("l")).unwrap(), "of the tree");
    let (registry, authority) = world();
    let mut pipeline = Pipeline::new("archive", "storefront".parse().unwrap());
    drop(pipeline.step("pack", PackArchive::new("site", &source, root.join("out"))));
    let planner = Planner::new(registry, authority, Arc::new(SystemClock));
    let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
    let said = flowline_core::error::chain(&error).replace(&root.display().to_string(), "ROOT");
    insta::assert_snapshot!(said, @"step `pack` cannot say what it would do: the link ROOT/source/l leads to s/../outside, which may be out of its tree; make it relative, with `..` at its beginning only and no further up than the tree, or put a copy there");
    assert!(!root.join("out").exists());
}

type Entries = &'static [(&'static str, tar::EntryType, &'static str)];
const EVIL: &[Entries] = &[
    &[("../escaped", tar::EntryType::Regular, "")],
    &[("/tmp/flowline-escaped", tar::EntryType::Regular, "")],
    &[("up", tar::EntryType::Symlink, ".."), ("up/escaped", tar::EntryType::Regular, "")],
    &[("here", tar::EntryType::Symlink, "."), ("here/inside", tar::EntryType::Regular, "")],
    &[("hard", tar::EntryType::Link, "/etc/passwd")],
    &[("device", tar::EntryType::Char, "")],
    &[("twice", tar::EntryType::Regular, ""), ("twice", tar::EntryType::Regular, "")],
    &[("s", tar::EntryType::Symlink, "."), ("l", tar::EntryType::Symlink, "s/../outside")],
    &[("l", tar::EntryType::Symlink, "s/s/s/../../../etc/passwd"), ("s", tar::EntryType::Symlink, ".")],
];
