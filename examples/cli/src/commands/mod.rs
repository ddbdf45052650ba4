//! The subcommands.

mod change;
mod environment;
mod logs;
mod look;
mod signal;

use crate::args::{Args, Command};
use crate::exit::Exit;
use crate::fault::Fault;

/// Does what the arguments say.
pub(crate) async fn run(args: Args) -> Result<Exit, Fault> {
    let global = args.global;
    match args.command {
        Command::Check => look::check(&global),
        Command::Config => look::config(&global),
        Command::Plan => look::plan(&global).await,
        Command::Status => look::status(&global).await,
        Command::History { limit } => look::history(&global, limit).await,
        Command::Logs { follow, tail, services, .. } => logs::logs(&global, services, tail, follow).await,
        Command::Deploy { message, supersede } => change::deploy(&global, message, supersede).await,
        Command::Rollback { to } => change::rollback(&global, to).await,
        Command::Resume => change::resume(&global).await,
        Command::Destroy { volumes, yes } => change::destroy(&global, volumes, yes).await,
        Command::Prune { keep } => change::prune(&global, keep).await,
        Command::Cancel { message } => signal::cancel(&global, message).await,
        Command::Environment { command } => environment::environment(&global, command).await,
        Command::Promote => signal::promote(&global).await,
    }
}
