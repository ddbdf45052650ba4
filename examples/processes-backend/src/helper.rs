//! The processes that stay when the deployer has gone: the same program, called with other arguments.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::{keeper, proxy};

/// Is the helper, if the program was called as one, until it has nothing left to do. Call it first of all in `main`, before
/// there is a runtime.
pub fn run_if_helper() -> Option<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (what, arguments) = arguments.split_first()?;
    let what = what.to_str()?;
    let done = match (what, arguments) {
        (keeper::KEEP | keeper::STOP, [directory]) => block_on(keeper::run(what, PathBuf::from(directory))),
        (proxy::PROXY, [directory, ingress]) => {
            let ingress = ingress.to_str().and_then(|text| text.parse().ok())?;
            block_on(proxy::run(PathBuf::from(directory), ingress))
        }
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what}: {error}");
            ExitCode::FAILURE
        }
    })
}

fn block_on(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    // One thread: what is done here is waiting.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
