//! A Docker Engine of its own in swarm mode: leaving a swarm breaks the name service of every container that runs on an engine.
//! It has a network namespace of its own too, as two engines would undo each other's packet filters.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The network between the services and the proxy.
pub(crate) const NETWORK: &str = "bench";
/// The name of the network namespace.
const SPACE: &str = "deployer-bench";
/// Where the engine is reached from this machine, and where this machine is from there.
pub(crate) const ADDRESS: &str = "10.231.17.2";
const HOST: &str = "10.231.17.1";

/// The engine. It ends with this.
#[derive(Debug)]
pub(crate) struct Swarm {
    directory: PathBuf,
    engine: Child,
}

impl Swarm {
    /// Starts the engine, with these images of the usual one.
    pub(crate) fn start(images: &[&str]) -> Self {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-swarm")).to_owned();
        // What a run before this one has left that was killed.
        end(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let directory = directory.canonicalize().unwrap();
        // No way out: the engine asks for every image elsewhere first, and waits for an answer.
        run("ip", &format!("netns add {SPACE}"));
        run("ip", "link add bench-host type veth peer name bench-swarm");
        run("ip", &format!("link set bench-swarm netns {SPACE}"));
        run("ip", &format!("addr add {HOST}/30 dev bench-host"));
        run("ip", "link set bench-host up");
        for inside in [&*format!("addr add {ADDRESS}/30 dev bench-swarm"), "link set bench-swarm up", "link set lo up"]
        {
            run("ip", &format!("-n {SPACE} {inside}"));
        }
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{SPACE}")).arg("dockerd");
        for (option, name) in [("data-root", "data"), ("exec-root", "run"), ("pidfile", "pid")] {
            command.arg(format!("--{option}")).arg(directory.join(name));
        }
        command.arg("--host").arg(socket(&directory));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let swarm = Self { engine: command.spawn().unwrap(), directory };
        let began = Instant::now();
        while !swarm.docker().arg("version").output().unwrap().status.success() {
            assert!(began.elapsed() < Duration::from_secs(60), "the engine does not start: target/bench-swarm/log");
            std::thread::sleep(Duration::from_millis(100));
        }
        swarm.run("swarm init --advertise-addr 127.0.0.1 --task-history-limit 0");
        swarm.run(&format!("network create --driver overlay --attachable {NETWORK}"));
        let mut saved = Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn().unwrap();
        let loaded = swarm.docker().arg("load").stdin(saved.stdout.take().unwrap()).output().unwrap();
        assert!(saved.wait().unwrap().success() && loaded.status.success(), "the images cannot be copied");
        swarm
    }

    /// The command line of this engine.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(socket(&self.directory));
        command
    }

    /// Runs a command of which only that it succeeds matters.
    pub(crate) fn run(&self, arguments: &str) {
        succeed(self.docker().args(arguments.split(' ')));
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // It ends the containers itself when it is told to leave; what fails here is removed with the directory.
        let _left = self.docker().args(["swarm", "leave", "--force"]).output();
        let _told = Command::new("kill").arg(self.engine.id().to_string()).output();
        let _ended = self.engine.wait();
        end(&self.directory);
    }
}

fn socket(directory: &Path) -> String {
    format!("unix://{}", directory.join("socket").display())
}

/// Ends an engine that still runs, and removes all that it has.
fn end(directory: &Path) {
    let pid = std::fs::read_to_string(directory.join("pid")).unwrap_or_default();
    let is_ours = || {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !pid.is_empty() && line.contains("bench-swarm")
    };
    if is_ours() {
        let _told = Command::new("kill").arg(&pid).output();
    }
    for _ in 0..200 {
        if !is_ours() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _gone = Command::new("ip").args(["link", "delete", "bench-host"]).output();
    let _gone = Command::new("ip").args(["netns", "delete", SPACE]).output();
    let _gone = std::fs::remove_dir_all(directory);
}

fn run(program: &str, arguments: &str) {
    succeed(Command::new(program).args(arguments.split(' ')));
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
