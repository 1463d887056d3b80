//! The signals that ask a process to end.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::Shutdown;

/// From now on the first SIGINT or SIGTERM drains, the second one stops. The task lives as long as the process.
///
/// # Errors
/// The system refuses the handlers.
pub fn on_signals(shutdown: &Shutdown) -> io::Result<JoinHandle<()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = shutdown.clone();
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_draining() {
                shutdown.stop();
            } else {
                shutdown.drain();
            }
        }
    }))
}
