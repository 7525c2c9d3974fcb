//! Termination signals of the operating system.

use std::io;

use tokio::signal;

/// Waits for SIGINT and, where it exists, SIGTERM.
pub(crate) struct Terminate {
    #[cfg(unix)]
    signals: [signal::unix::Signal; 2],
}

impl Terminate {
    /// Starts listening. From now on such a signal does not kill the program.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        use signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            signals: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
        })
    }

    /// Waits for a signal. A signal that arrives between two calls is not missed.
    #[cfg(unix)]
    pub(crate) async fn wait(&mut self) {
        let [term, interrupt] = &mut self.signals;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn wait(&mut self) {
        let _ = signal::ctrl_c().await;
    }
}
