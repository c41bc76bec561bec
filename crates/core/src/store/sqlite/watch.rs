//! Hears of other processes' commits: a thread that looks every 5 ms, and only while somebody waits.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use rusqlite::Connection;

use super::{Shared, schema};
use crate::store::StoreError;

/// How long another process's commit may stay unnoticed.
const PERIOD: Duration = Duration::from_millis(5);
/// After how many looks without anybody waiting the thread ends; starting one costs more than a look.
const IDLE: u32 = 200;

#[derive(Debug, Default)]
pub(super) struct Watch {
    running: Mutex<bool>,
}

/// Sees to it that the thread runs. Call it after the one who waits was entered.
pub(super) fn ensure(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let mut running = shared.watch.running.lock().unwrap_or_else(PoisonError::into_inner);
    if *running {
        return Ok(());
    }
    let connection = schema::reader(&shared.place, &shared.options)?;
    let weak = Arc::downgrade(shared);
    thread::Builder::new()
        .name("flowline-watch".to_owned())
        .spawn(move || watch(&weak, &connection))
        .map_err(|error| shared.place.io_problem("watch", error))?;
    *running = true;
    Ok(())
}

fn watch(shared: &Weak<Shared>, connection: &Connection) {
    let mut seen = None;
    let mut idle = 0;
    while let Some(shared) = shared.upgrade() {
        if shared.waiters.is_empty() {
            idle += 1;
            if idle > IDLE {
                let mut running = shared.watch.running.lock().unwrap_or_else(PoisonError::into_inner);
                // Whoever came since then calls `ensure` after this.
                if shared.waiters.is_empty() {
                    *running = false;
                    return;
                }
            }
        } else {
            idle = 0;
            // The first look finds what came between the waiter's own look and the start of the thread. An error here meets the
            // waiters themselves: they are woken and ask.
            let version = data_version(connection).ok();
            if version.is_none() || version != seen {
                seen = version;
                match schema::head(connection) {
                    Ok(head) => shared.waiters.wake(head),
                    Err(_) => shared.waiters.wake(crate::store::Position(u64::MAX)),
                }
            }
        }
        drop(shared);
        thread::park_timeout(PERIOD);
    }
}

/// A number that changes with each commit of another connection.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
