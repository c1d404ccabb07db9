//! Ctrl-C, and the signal that stops services. After [`Signals::new`] they don't end the program by themselves.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};

pub(crate) struct Signals {
    #[cfg(unix)]
    signals: (Signal, Signal),
    #[cfg(windows)]
    signals: (CtrlC, CtrlBreak),
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        #[cfg(windows)]
        let signals = (ctrl_c()?, ctrl_break()?);
        Ok(Self { signals })
    }

    pub(crate) async fn asked_to_stop(&mut self) {
        let (interrupt, terminate) = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
