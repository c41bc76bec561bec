//! Commands that give way to everything else on the host.

use std::sync::Arc;

use async_trait::async_trait;
use flowline_pipeline::{
    Cancel,
    exec::{Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines},
};

/// Runs each command of another executor under `nice`.
#[derive(Debug, Clone)]
pub struct NiceExecutor {
    inner: Arc<dyn Executor>,
    niceness: u8,
}

const NICE: &str = "/usr/bin/nice";

impl NiceExecutor {
    /// Runs through `inner`, with a niceness of 0 to 19: the higher, the more it gives way.
    pub fn new(inner: Arc<dyn Executor>, niceness: u8) -> Self {
        Self { inner, niceness: niceness.min(19) }
    }
}

#[async_trait]
impl Executor for NiceExecutor {
    fn capabilities(&self) -> ExecutorCapabilities {
        self.inner.capabilities()
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        let mut nice = command.clone();
        nice.program = NICE.to_owned();
        nice.args = vec!["-n".to_owned(), self.niceness.to_string(), command.program.clone()];
        nice.args.extend(command.args.iter().cloned());
        match self.inner.run(&nice, lines, cancel).await {
            // This is how `nice` says that there is no such program.
            Err(ExecError::Code { code: 127, last, .. })
                if last.last().is_some_and(|line| line.starts_with(NICE)) =>
            {
                let looked = command.env.get("PATH").cloned().unwrap_or_default();
                Err(ExecError::NoProgram { program: command.program.clone(), looked })
            }
            other => other,
        }
    }
}
