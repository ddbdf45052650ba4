//! Processes by more than their number, which the system gives to another one as soon as they are gone.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr as _;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One process, told from every other that had its number before or will have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: i32,
    /// When it began, in the clock ticks of this boot.
    began: u64,
    /// Which boot that is.
    boot: String,
}

impl ProcessId {
    /// The process that has this number now, if one has.
    pub(crate) fn of(pid: u32) -> io::Result<Option<Self>> {
        let Ok(pid) = i32::try_from(pid) else { return Ok(None) };
        let Some(stat) = Stat::read(pid)? else { return Ok(None) };
        Ok(Some(Self { pid, began: stat.began, boot: boot()? }))
    }

    /// Whether it still runs. One that has ended and was not fetched by its parent yet does not.
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        let stat = Stat::read(self.pid)?;
        Ok(stat.is_some_and(|stat| stat.began == self.began && !stat.is_dead()) && boot()? == self.boot)
    }

    /// A handle that stays with this process whatever becomes of its number; none, if it has ended. Within a runtime.
    pub(crate) fn open(&self) -> io::Result<Option<Process>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number may have got a new bearer just before.
        Ok(if self.is_alive()? { Some(Process::new(handle, pid)?) } else { None })
    }

    /// A handle on a child of this process that was not waited for yet, whether it still runs or not.
    pub(crate) fn handle(&self) -> io::Result<Process> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::NotFound)?;
        Process::new(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?, pid)
    }
}

/// A handle on a process.
#[derive(Debug)]
pub(crate) struct Process {
    handle: AsyncFd<OwnedFd>,
    pid: Pid,
}

impl Process {
    #[expect(
        deprecated,
        reason = "unsound for types that change or close their descriptor, which `OwnedFd` does not; \
                                   its successor is an unsafe function"
    )]
    fn new(handle: OwnedFd, pid: Pid) -> io::Result<Self> {
        Ok(Self { handle: AsyncFd::with_interest(handle, Interest::READABLE)?, pid })
    }

    /// Sends it a signal. Nothing happens if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        gone_is_fine(rustix::process::pidfd_send_signal(self.handle.get_ref(), signal))
    }

    /// Sends a signal to it and to all that it started, as far as they stayed in its process group.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        gone_is_fine(rustix::process::kill_process_group(self.pid, signal))
    }

    /// The memory that it and its process group have in use.
    pub(crate) fn memory_bytes(&self) -> io::Result<u64> {
        group_memory_bytes(self.pid.as_raw_nonzero().get())
    }

    /// Returns when it has ended. Does not fetch its exit code, so that its number stays taken for now. Cancel safe.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.handle.readable().await.map(|_| ())
    }
}

fn gone_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
        _ => Ok(()),
    }
}

/// The signal of this name, such as `SIGTERM` or `TERM`, or of this number.
pub(crate) fn signal_named(name: &str) -> Option<Signal> {
    let upper = name.to_ascii_uppercase();
    Some(match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        "KILL" => Signal::KILL,
        number => return Signal::from_named_raw(i32::from_str(number).ok()?),
    })
}

fn group_memory_bytes(group: i32) -> io::Result<u64> {
    let mut pages = 0;
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        if let Some(stat) = Stat::read(pid)?
            && stat.group == group
        {
            pages += stat.resident_pages;
        }
    }
    Ok(pages * rustix::param::page_size() as u64)
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    state: char,
    group: i32,
    began: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It ended between opening and reading.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = Self::parse(&text);
        stat.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is odd")))
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold spaces and parentheses of its own.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            group: fields.get(2)?.parse().ok()?,
            began: fields.get(19)?.parse().ok()?,
            resident_pages: fields.get(21)?.parse().ok()?,
        })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
