//! What is there, asked of the operating system and not of the backend.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deployer_core::{AppName, InstanceId};
use deployer_testkit::conformance::{CaseResult, Seen, SeenInstance, SeenTask};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// The processes of one state directory.
#[derive(Debug)]
pub(crate) struct Oracle {
    state: PathBuf,
}

/// A process, by what `/proc` says.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    start: String,
    environment: BTreeMap<String, String>,
    command: String,
}

impl Oracle {
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// What is there of an application.
    pub(crate) fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        let directory = self.state.join("apps").join(app.as_str());
        let programs = self.programs(app)?;
        let mut seen = Seen::nothing();
        let mut known = Vec::new();
        for instance in entries(&directory.join("instances"))? {
            let Some(record) = json(&instance.join("instance.json"))? else { continue };
            let root = instance.join("root").display().to_string();
            let program = programs.iter().find(|program| program.environment.get("HOME") == Some(&root));
            known.push(root);
            let id: InstanceId = parse(&record["id"])?;
            let (running, start) = (program.is_some(), program.map(Process::identity).unwrap_or_default());
            match record["role"].get("Instance") {
                Some(role) => seen.instances.push(SeenInstance {
                    revision: parse(&role["revision"])?,
                    ordinal: parse(&role["ordinal"])?,
                    id,
                    running,
                    start,
                }),
                None => seen.tasks.push(SeenTask { id, running, start }),
            }
        }
        // Programs of which the backend knows nothing any more.
        let lost =
            programs.iter().filter(|program| program.environment.get("HOME").is_none_or(|home| !known.contains(home)));
        seen.shared.extend(lost.map(|program| format!("process {} {}", program.pid, program.command)));
        if directory.join("shared.json").exists() {
            seen.shared.push("what services share".to_owned());
        }
        if let Some(table) = json(&self.state.join("proxy/table.json"))? {
            let entries = table["apps"].get(app.as_str()).and_then(Value::as_object);
            seen.shared.extend(entries.into_iter().flatten().map(|(service, _)| format!("entry {service}")));
        }
        for address in entries(&self.state.join("addresses"))? {
            let taken_for = fs::read_to_string(&address)?;
            // That of an instance is as much a part of it as its directory.
            if taken_for.starts_with(&format!("{app} service ")) {
                seen.shared.push(taken_for);
            }
        }
        let volumes = entries(&directory.join("volumes"))?;
        seen.volumes.extend(volumes.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())));
        Ok(seen)
    }

    /// The leaders of the programs that were started for an application.
    fn programs(&self, app: &AppName) -> CaseResult<Vec<Process>> {
        let inside = self.state.join("apps").join(app.as_str()).join("instances");
        let mut processes = processes()?;
        processes.retain(|process| {
            let home = process.environment.get("HOME").map(Path::new);
            home.is_some_and(|home| home.starts_with(&inside)) && process.environment.contains_key("INSTANCE")
        });
        Ok(processes)
    }

    /// Where a program of the application finds another service.
    pub(crate) fn address_of(&self, app: &AppName, service: &str) -> Option<String> {
        let variable = format!("{}_HOST", service.to_ascii_uppercase());
        self.programs(app).ok()?.into_iter().find_map(|program| program.environment.get(&variable).cloned())
    }

    /// Kills the program of an instance with all that it has started.
    pub(crate) fn kill(&self, app: &AppName, id: &InstanceId) -> CaseResult {
        let root = self.state.join("apps").join(app.as_str()).join("instances").join(id.as_str()).join("root");
        for program in self.programs(app)? {
            if program.environment.get("HOME").is_some_and(|home| Path::new(home) == root)
                && let Some(pid) = Pid::from_raw(program.pid)
            {
                // It may have ended just now.
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
        Ok(())
    }

    /// Kills everything that was started for the state directory, keepers first so that they start nothing again.
    pub(crate) fn kill_all(&self) -> CaseResult {
        let state = self.state.display().to_string();
        // Until there is nothing left: a keeper may have been about to start something.
        loop {
            let mut all = processes()?;
            let ours = |process: &Process| {
                process.command.contains(&state)
                    || process.environment.get("HOME").is_some_and(|home| home.starts_with(&state))
            };
            all.retain(ours);
            if all.is_empty() {
                return Ok(());
            }
            all.sort_by_key(|process| process.environment.contains_key("INSTANCE"));
            for pid in all.iter().filter_map(|process| Pid::from_raw(process.pid)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::yield_now();
        }
    }
}

impl Process {
    fn identity(&self) -> String {
        format!("{} since {}", self.pid, self.start)
    }
}

/// All processes that run.
fn processes() -> CaseResult<Vec<Process>> {
    let mut processes = Vec::new();
    for path in entries(Path::new("/proc"))? {
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        // One that ends meanwhile cannot be read, and neither can one of another user.
        let read = |name: &str| fs::read(path.join(name)).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stat = text(&read("stat"));
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        if matches!(fields.first(), Some(&"Z" | &"X") | None) {
            continue;
        }
        let environment = read("environ");
        let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
            let (name, value) =
                text(variable).split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))?;
            Some((name, value))
        });
        let command = text(&read("cmdline")).replace('\0', " ");
        processes.push(Process {
            pid,
            start: fields.get(19).map(ToString::to_string).unwrap_or_default(),
            environment: variables.collect(),
            command,
        });
    }
    Ok(processes)
}

fn entries(directory: &Path) -> CaseResult<Vec<PathBuf>> {
    let mut paths = Vec::new();
    if directory.is_dir() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

fn json(path: &Path) -> CaseResult<Option<Value>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).map_err(|error| error.to_string())?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> CaseResult<T> {
    Ok(serde_json::from_value(value.clone()).map_err(|error| error.to_string())?)
}
