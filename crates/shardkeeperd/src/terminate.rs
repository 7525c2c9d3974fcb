//! The wish of the operating system, or of whoever sits before it, that the program ends.

use std::io;

use tokio::signal;

/// Waits for SIGINT, and where there is such a thing, SIGTERM.
pub(crate) struct Terminate {
    #[cfg(unix)]
    term: signal::unix::Signal,
}

impl Terminate {
    /// From now on such a signal does not kill the program.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            term: signal::unix::signal(signal::unix::SignalKind::terminate())?,
        })
    }

    #[cfg(unix)]
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = signal::ctrl_c() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn wait(&mut self) {
        let _ = signal::ctrl_c().await;
    }
}
