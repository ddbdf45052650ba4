//! The check that runs inside the instance: a command with the program's environment and working directory.

use std::process::Stdio;
use std::time::Duration;

use deployer_core::{CheckCommand, ContainerCheck};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Checked;

/// While it has not passed yet, it is asked at least so often, so that nobody waits for a long interval to pass.
const WHILE_STARTING: Duration = Duration::from_millis(500);

/// Checks of one run of a program. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Checks {
    answers: Option<mpsc::Receiver<Checked>>,
    _task: JoinSet<()>,
}

impl Checks {
    /// Begins to check; `command` makes a command that has the program's surroundings.
    pub(super) fn begin(
        check: Option<&ContainerCheck>,
        command: impl Fn(&[String]) -> Command + Send + Sync + 'static,
    ) -> Self {
        let mut task = JoinSet::new();
        let answers = check.and_then(|check| {
            let line = match &check.command {
                CheckCommand::Exec(line) => line.clone(),
                CheckCommand::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
                CheckCommand::Disabled => return None,
            };
            let (sender, receiver) = mpsc::channel(1);
            task.spawn(go_on(check.clone(), move || command(&line), sender));
            Some(receiver)
        });
        Self { answers, _task: task }
    }

    /// The next answer that differs from the one before; never, if nothing is checked. Cancel safe.
    pub(super) async fn next(&mut self) -> Checked {
        if let Some(answers) = &mut self.answers
            && let Some(answer) = answers.recv().await
        {
            return answer;
        }
        std::future::pending().await
    }
}

async fn go_on(check: ContainerCheck, command: impl Fn() -> Command, answers: mpsc::Sender<Checked>) {
    let began = Instant::now();
    let patience = check.start_period + check.interval * check.retries;
    let (mut passed, mut failures, mut last) = (false, 0, None);
    loop {
        let answer = match timeout(check.timeout, ask(command())).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the check did not end within {:?}", check.timeout)),
        };
        let checked = match answer {
            Ok(()) => {
                (passed, failures) = (true, 0);
                Checked::Passes
            }
            Err(detail) => {
                failures += 1;
                let fails = if passed { failures >= check.retries } else { began.elapsed() >= patience };
                match (fails, passed) {
                    (true, _) => Checked::Fails(detail),
                    (false, true) => Checked::Passes,
                    (false, false) => Checked::NotYet(detail),
                }
            }
        };
        if last.as_ref() != Some(&checked) {
            last = Some(checked.clone());
            if answers.send(checked).await.is_err() {
                return;
            }
        }
        sleep(if passed { check.interval } else { check.interval.min(WHILE_STARTING) }).await;
    }
}

async fn ask(mut command: Command) -> Result<(), String> {
    let asked = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).output();
    let output = asked.await.map_err(|error| format!("the check cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it wrote nothing");
    let code = output.status.code().map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
    Err(format!("the check ended with {code}: {}", last.trim()))
}
