//! SIGTERM and SIGINT: the first asks for a clean stop, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::program;

/// The two signals, from now on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen; from here on the signals no longer end the process by themselves.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for either; the answer is the exit code by which a shell knows it.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + 15,
            _ = self.interrupt.recv() => 128 + 2,
        }
    }

    /// Lets the next signal end the process while the caller stops cleanly.
    pub fn end_at_the_next(mut self) {
        tokio::spawn(async move {
            let code = self.next().await;
            eprintln!("millpond: second signal, ending at once; what was acknowledged is safe");
            program::end(u8::try_from(code).unwrap_or(u8::MAX));
        });
    }
}
