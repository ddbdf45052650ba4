//! Drives a deployment to its verdict, shows it, and listens to Ctrl-C.

use deployer_core::{Deployment, ErrorKind, Verdict};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;
use crate::fault::Fault;
use crate::show::Show;

const CANCELLING: &str = "cancelling, bringing back what was there; press Ctrl-C again to stop watching and leave it \
                          (resume later)";

/// Watches a deployment to its end. The first Ctrl-C or SIGTERM cancels it, another Ctrl-C leaves it where it is.
pub(crate) async fn watch(mut deployment: Deployment, mut show: Show) -> Result<Option<Verdict>, Fault> {
    let mut stop = Stop::listen()?;
    let mut asked = false;
    let mut written = Ok(());
    loop {
        tokio::select! {
            biased;
            event = deployment.next_event() => {
                let Some(event) = event else { break };
                // Whoever reads the progress may go; the deployment goes on.
                written = written.and(show.event(&event));
            }
            by_interrupt = stop.wanted() => {
                if asked && by_interrupt {
                    let id = deployment.id().clone();
                    // Dropped, it is driven no further.
                    drop(deployment);
                    show.note(&format!("deployment {id} is left where it is: `deployer resume` goes on with it"));
                    show.leave();
                    return Err(Fault::Interrupted);
                }
                if !asked {
                    asked = true;
                    show.note(CANCELLING);
                    deployment.cancel(by());
                }
            }
        }
    }
    match deployment.finished().await {
        Ok(record) => {
            written.and(show.end(&record))?;
            Ok(record.verdict)
        }
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            show.note("stopped while preparing: nothing that runs was touched");
            show.leave();
            Ok(None)
        }
        Err(error) => {
            show.leave();
            Err(error.into())
        }
    }
}

/// The exit code of a deployment that was watched; none if it was stopped before it began.
pub(crate) fn exit(verdict: Option<&Verdict>) -> Exit {
    verdict.map_or(Exit::Cancelled, Exit::from)
}

/// Who signals, in words for the history.
pub(crate) fn by() -> String {
    crate::backend::author().unwrap_or_else(|| "the command line".to_owned())
}

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of them, and says whether it is Ctrl-C. Cancel safe.
    async fn wanted(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
        }
    }
}
