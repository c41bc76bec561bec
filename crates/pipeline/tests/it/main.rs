//! Tests of flowline-pipeline that use only its public face.

#[cfg(test)]
#[cfg(unix)]
mod archive;
#[cfg(test)]
mod attempts;
#[cfg(test)]
#[cfg(unix)]
mod container;
#[cfg(test)]
mod delivery;
#[cfg(test)]
#[cfg(unix)]
mod exec;
#[cfg(test)]
mod fresh;
#[cfg(test)]
mod gates;
#[cfg(test)]
mod kills;
#[cfg(test)]
#[cfg(unix)]
mod leftovers;
#[cfg(test)]
mod locks;
#[cfg(test)]
#[cfg(unix)]
mod making;
#[cfg(test)]
#[cfg(unix)]
mod places;
#[cfg(test)]
#[cfg(unix)]
mod portability;
#[cfg(test)]
#[cfg(unix)]
mod releases;
#[cfg(test)]
mod run;
#[cfg(test)]
#[cfg(unix)]
mod secrets;
#[cfg(test)]
#[cfg(unix)]
mod shipped;
#[cfg(test)]
mod skip;
#[cfg(test)]
mod sql;
#[cfg(test)]
#[cfg(unix)]
mod ssh;
#[cfg(test)]
mod step_suite;
#[cfg(test)]
#[cfg(unix)]
mod steps;
#[cfg(test)]
#[cfg(unix)]
mod sync;
#[cfg(test)]
#[cfg(unix)]
mod terraform;
#[cfg(test)]
mod world;
