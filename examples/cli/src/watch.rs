//! Drives a deployment to its verdict, shows it, and listens to Ctrl-C.

use deployer_core::{Deployer, Deployment, ErrorKind, EventKind, Verdict};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;
use crate::fault::Fault;
use crate::show::Show;

const CANCELLING: &str = "cancelling, bringing back what was there; press Ctrl-C again to stop watching and leave it \
                          (resume later)";

/// What a deployment that is watched begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// With images to be built or pulled; nothing is touched until that is done.
    ByPreparing,
    /// At once.
    AtOnce,
}

/// Watches a deployment to its end. The first Ctrl-C or SIGTERM cancels it, another Ctrl-C leaves it where it is.
pub(crate) async fn watch(
    deployer: &Deployer,
    mut deployment: Deployment,
    begins: Begins,
    mut show: Show,
) -> Result<Option<Verdict>, Fault> {
    let mut stop = Stop::listen()?;
    let mut preparing = begins == Begins::ByPreparing;
    let mut open = false;
    let mut asked = false;
    let mut sent = false;
    let mut written = Ok(());
    loop {
        tokio::select! {
            biased;
            event = deployment.next_event() => {
                let Some(event) = event else { break };
                preparing &= !matches!(event.kind, EventKind::Released { .. });
                open |= event.journal().is_some();
                // Whoever reads the progress may go; the deployment goes on.
                written = written.and(show.event(&event));
            }
            by_interrupt = stop.wanted() => {
                if asked && !preparing && !by_interrupt {
                    continue;
                }
                if asked || preparing {
                    let id = deployment.id().clone();
                    // Dropped, it is driven no further.
                    drop(deployment);
                    show.note(&if preparing {
                        "stopped while preparing: nothing that runs was touched".to_owned()
                    } else {
                        format!("deployment {id} is left where it is: `deployer resume` goes on with it")
                    });
                    show.leave();
                    return if preparing { Ok(None) } else { Err(Fault::Interrupted) };
                }
                asked = true;
                show.note(CANCELLING);
            }
        }
        // Signals are for deployments that are in the journal; before that, `cancel` would meet somebody else's.
        if asked && open && !sent {
            sent = true;
            match deployer.cancel(deployment.app(), by()).await {
                // It has ended in the meantime: the verdict tells how.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => drop(result?),
            }
        }
    }
    match deployment.finished().await {
        Ok(record) => {
            written.and(show.end(&record))?;
            Ok(record.verdict)
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
