//! Our own provisioners keep the contract.

use std::sync::Arc;

use flowline_core::{clock::ManualClock, digest::Digest};
use flowline_envs::{
    provision::{
        local::{LocalOptions, LocalProvisioner},
        memory::MemoryProvisioner,
    },
    testkit::{
        Broken,
        provision::{Bench, suite},
    },
};

use super::{
    server::{self, behaviour},
    stage::{Stage, api, web},
};

#[tokio::test]
async fn files_in_memory_keep_the_contract() -> Result<(), Broken> {
    let memory = || Arc::new(MemoryProvisioner::new(Arc::new(ManualClock::default())));
    suite(async || Ok(Bench::new(memory(), |n| web(Digest::of(n.to_be_bytes()))))).await.verdict()
}

fn options() -> LocalOptions {
    LocalOptions::default().with_kept(2)
}

#[tokio::test]
async fn files_on_this_host_keep_the_contract() -> Result<(), Broken> {
    suite(async || {
        let stage = Stage::with(options());
        let local = stage.provisioner.clone();
        Ok(Bench::new(Arc::new(local), move |n| {
            web(stage.artifact(&[("index.html", &n.to_string(), false)]))
        }))
    })
    .await
    .verdict()
}

#[tokio::test]
async fn processes_on_this_host_keep_the_contract() -> Result<(), Broken> {
    let report = suite(async || {
        let stage = Stage::with(options());
        let local: LocalProvisioner = stage.provisioner.clone();
        let broken = stage.api("broken", behaviour::EXITS);
        let server = move |n: u32| api(stage.server(&n.to_string(), behaviour::FINE), server::spec());
        Ok(Bench::new(Arc::new(local), server).with_broken(broken))
    })
    .await;
    report.verdict()
}
