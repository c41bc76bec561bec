//! The provisioner for one plain host, with real processes.

mod contract;
mod crash;
mod local;
mod server;
mod stage;
