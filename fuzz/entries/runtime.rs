//! The parser of the proxy's answers: any bytes are read, what makes no sense is left out, and nothing is made up.

#[path = "../../deployer-local/src/proxy/runtime.rs"]
#[expect(dead_code, reason = "only what reads answers is run")]
mod parser;

use parser::{parse_live, parse_processes, parse_sessions};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count();
    let live = parse_live(&text);
    assert!(live.servers.len() <= lines);
    assert!(text.contains(&live.layout));
    for (backend, name) in live.servers.keys() {
        assert!(text.contains(backend) && text.contains(name));
    }
    let sessions = parse_sessions(&text);
    assert!(sessions.values().sum::<u64>() <= lines as u64);
    if let Some(processes) = parse_processes(&text) {
        assert!(text.contains("master") && processes.leaving.len() < lines);
    }
}
