//! On what it was measured.

use std::process::Command;
use std::time::Duration;

/// One line about this machine.
pub(crate) fn describe() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let engine = engine.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let built = if cfg!(debug_assertions) { "development build" } else { "release build" };
    let engine = if engine.is_empty() { String::new() } else { format!(", Docker Engine {engine}") };
    format!("{cpus} processors, Linux {}{engine}, {built}", kernel.trim())
}

/// The processor time of all child processes that have been waited for, in steps of 10 ms.
pub(crate) fn time_of_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before may contain anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The processor time of this thread.
pub(crate) fn own_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}
