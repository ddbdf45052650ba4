//! One-off tasks.

use deployer_core::{ErrorKind, ExitDetail, ObservedTask, Outcome, RemoveTask, StartTask, TaskId};

use crate::conformance::case::{Case, CaseResult, begin_and_drop, check, eventually, fails, nothing, same};
use crate::conformance::ground::Ground;
use crate::conformance::site::TaskProgram;

pub(super) fn cases() -> Vec<Case<Ground>> {
    vec![
        Case::new("orchestrator/a-task-is-observed-to-its-end", |g| Box::pin(succeeds(g))),
        Case::new("orchestrator/a-failing-task-tells-its-exit-code", |g| Box::pin(failing(g))),
        Case::new("orchestrator/a-task-is-started-once-while-it-runs", |g| Box::pin(once_running(g))),
        Case::new("orchestrator/a-task-is-started-once-when-it-has-ended", |g| Box::pin(once_ended(g))),
        Case::new("orchestrator/start-task-may-be-dropped-and-repeated", |g| Box::pin(dropped(g))),
        Case::new("orchestrator/a-task-that-cannot-start-is-a-workload-error", |g| Box::pin(cannot_start(g))),
        Case::new("orchestrator/remove-task-stops-and-forgets", |g| Box::pin(removed(g))),
        Case::new("orchestrator/remove-task-forgets-what-has-ended", |g| Box::pin(removed_ended(g))),
        Case::new("orchestrator/remove-task-of-nothing-changes-nothing", |g| Box::pin(removed_nothing(g))),
        Case::new("orchestrator/tasks-are-not-instances", |g| Box::pin(apart(g))),
    ]
}

/// Asks for a task of the application's web service.
async fn wanted(ground: &Ground, program: TaskProgram) -> CaseResult<StartTask> {
    let release = ground.prepared(ground.serves("a")).await?;
    Ok(ground.task(&release, "conformance-task", ground.scope.task(program)))
}

async fn start(ground: &Ground, request: &StartTask) -> deployer_core::Result<Outcome> {
    ground.backend.orchestrator.start_task(request.clone()).await
}

async fn remove(ground: &Ground, task: &TaskId) -> deployer_core::Result<Outcome> {
    ground.backend.orchestrator.remove_task(RemoveTask::new(ground.call(), ground.app(), task.clone())).await
}

/// The task when it has ended.
async fn ended(ground: &Ground) -> CaseResult<(ObservedTask, ExitDetail)> {
    eventually(&ground.scope.clock(), "the task ends", async || {
        let task = ground.tasks().await?.pop();
        Ok(task.and_then(|task| task.exit.clone().map(|exit| (task, exit))))
    })
    .await
}

async fn succeeds(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Succeeds).await?;
    same("the outcome", start(ground, &request).await?, Outcome::Created)?;
    let (task, exit) = ended(ground).await?;
    same("the task", task.task, request.task)?;
    same("its exit code", exit.code, Some(0))?;
    check(task.started_at.is_some(), "a task that ran was started some time")?;
    let others = |one: &&crate::conformance::site::SeenTask| one.running || one.id != task.instance;
    nothing("other tasks, or that one running", &ground.seen().await?.tasks.iter().filter(others).collect::<Vec<_>>())
}

async fn failing(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Fails).await?;
    same("the outcome", start(ground, &request).await?, Outcome::Created)?;
    same("its exit code", ended(ground).await?.1.code, Some(7))
}

async fn once_running(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Lasts).await?;
    start(ground, &request).await?;
    let before = ground.seen().await?;
    same("how many tasks there are", before.tasks.len(), 1)?;
    same("the outcome of a repetition", start(ground, &request).await?, Outcome::AlreadyThere)?;
    same("what is there", ground.seen().await?, before)
}

async fn once_ended(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Fails).await?;
    start(ground, &request).await?;
    let (first, _) = ended(ground).await?;
    let before = ground.seen().await?;
    same("the outcome of a repetition", start(ground, &request).await?, Outcome::AlreadyThere)?;
    same("what is there", ground.seen().await?, before)?;
    same("the task", ground.tasks().await?, [first])
}

async fn dropped(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Lasts).await?;
    for polls in [1, 3, 9, 27] {
        begin_and_drop(start(ground, &request), polls).await;
    }
    eventually(&ground.scope.clock(), "the repeated start", async || match start(ground, &request).await {
        Ok(_) => Ok(Some(())),
        // What was dropped may still be under way.
        Err(error) if error.retry() == deployer_core::Retry::Soon => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await?;
    let running = ground.seen().await?.tasks.iter().filter(|task| task.running).count();
    same("how many tasks run", running, 1)?;
    same("how many are observed", ground.tasks().await?.len(), 1)
}

async fn cannot_start(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(crate::conformance::site::Program::CannotStart, "a")).await?;
    let nowhere = vec!["/no/such/program".to_owned()];
    let request = ground.task(&release, "conformance-task", nowhere);
    let started = start(ground, &request).await;
    if started.is_err() {
        fails("starting it", started, ErrorKind::Workload)?;
    } else {
        // The platform takes it first and tries then.
        let (_, exit) = ended(ground).await?;
        check(exit.unrecoverable && exit.error.is_some(), format!("it must be told why it cannot start: {exit:?}"))?;
    }
    remove(ground, &request.task).await?;
    nothing("tasks", &ground.seen().await?.tasks)
}

async fn removed(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Lasts).await?;
    start(ground, &request).await?;
    same("the outcome", remove(ground, &request.task).await?, Outcome::Changed)?;
    nothing("tasks", &ground.seen().await?.tasks)?;
    nothing("observed tasks", &ground.tasks().await?)?;
    same("the outcome of a repetition", remove(ground, &request.task).await?, Outcome::AlreadyThere)
}

async fn removed_ended(ground: &Ground) -> CaseResult {
    let request = wanted(ground, TaskProgram::Succeeds).await?;
    start(ground, &request).await?;
    ended(ground).await?;
    same("the outcome", remove(ground, &request.task).await?, Outcome::Changed)?;
    nothing("observed tasks", &ground.tasks().await?)?;
    nothing("tasks", &ground.seen().await?.tasks)
}

async fn removed_nothing(ground: &Ground) -> CaseResult {
    let task = TaskId("conformance-task".to_owned());
    same("the outcome for an unknown application", remove(ground, &task).await?, Outcome::AlreadyThere)?;
    let request = wanted(ground, TaskProgram::Lasts).await?;
    start(ground, &request).await?;
    let before = ground.seen().await?;
    let other = TaskId("conformance-other".to_owned());
    same("the outcome for an unknown task", remove(ground, &other).await?, Outcome::AlreadyThere)?;
    same("what is there", ground.seen().await?, before)
}

async fn apart(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let instances = ground.running(&release, 1).await?;
    let request = ground.task(&release, "conformance-task", ground.scope.task(TaskProgram::Lasts));
    start(ground, &request).await?;
    same("the instances", ground.instances(&release).await?.len(), 1)?;
    let task = ground.tasks().await?.pop().ok_or("the task is not observed")?;
    check(task.instance != instances[0].id, "a task has an id of its own")?;
    ground.reduced(&release, 0).await?;
    let left = ground.seen().await?;
    nothing("instances", &left.instances)?;
    same("whether the tasks run", left.tasks.iter().map(|task| task.running).collect::<Vec<_>>(), [true])
}
