//! Smoke requests and logs.

use std::future::poll_fn;

use deployer_core::{AppName, LogLine, LogQuery, LogStream, Port, RevisionId, SmokeAnswer, SmokeRequest};

use crate::conformance::case::{Case, CaseResult, check, eventually, nothing, same};
use crate::conformance::ground::{Ground, named, revision, web};
use crate::conformance::site::{Program, TaskProgram};

pub(super) fn cases() -> Vec<Case<Ground>> {
    vec![
        Case::new("orchestrator/smoke-asks-every-running-instance", |g| Box::pin(smoke(g))),
        Case::new("orchestrator/smoke-tells-what-does-not-answer", |g| Box::pin(smoke_nowhere(g))),
        Case::new("orchestrator/smoke-of-nothing-is-empty", |g| Box::pin(smoke_nothing(g))),
        Case::new("orchestrator/logs-have-the-last-words-of-a-crash", |g| Box::pin(last_words(g))),
        Case::new("orchestrator/logs-have-the-output-of-a-task", |g| Box::pin(task_output(g))),
        Case::new("orchestrator/logs-can-be-narrowed", |g| Box::pin(narrowed(g))),
        Case::new("orchestrator/logs-follow-what-comes-later", |g| Box::pin(follow(g))),
        Case::new("orchestrator/logs-of-nothing-are-empty", |g| Box::pin(no_logs(g))),
    ]
}

/// Where the program of a release listens.
fn port(release: &deployer_core::Release) -> CaseResult<u16> {
    let service = release.services.get(&web()).ok_or("the release has the service")?;
    Ok(service.listening_ports().first().map(|port: &Port| port.target).ok_or("the service listens")?)
}

async fn ask(ground: &Ground, revision: RevisionId, port: u16, path: &str) -> CaseResult<Vec<SmokeAnswer>> {
    let deadline = ground.call().deadline;
    let request = SmokeRequest::new(deadline, ground.app(), revision, port, path.to_owned());
    Ok(ground.backend.orchestrator.smoke(request).await?)
}

/// The path under which the instances of a release are probed.
fn probe_path(release: &deployer_core::Release) -> String {
    let probe = release.services.get(&web()).and_then(|service| service.readiness.probe.clone());
    match probe {
        Some(deployer_core::Probe::Http { path, .. }) => path,
        _ => "/".to_owned(),
    }
}

async fn smoke(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let instances = ground.running(&release, 2).await?;
    let mut answers = ask(ground, revision(&release), port(&release)?, &probe_path(&release)).await?;
    answers.sort_by(|one, other| one.instance.cmp(&other.instance));
    let mut ids: Vec<_> = instances.into_iter().map(|instance| instance.id).collect();
    ids.sort();
    same("who was asked", answers.iter().map(|answer| answer.instance.clone()).collect::<Vec<_>>(), ids)?;
    let statuses: Vec<_> = answers.iter().map(|it| it.answer.as_ref().map(|(status, _)| *status)).collect();
    same("the answers' statuses", statuses, vec![Ok::<u16, &String>(200); 2])
}

async fn smoke_nowhere(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::Exits, "a")).await?;
    ground.launch(&release, 1).await?;
    for answer in ask(ground, revision(&release), port(&release)?, "/").await? {
        check(answer.answer.is_err(), format!("nobody listens there: {answer:?}"))?;
    }
    Ok(())
}

async fn smoke_nothing(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    nothing("answers", &ask(ground, revision(&release), port(&release)?, "/").await?)
}

/// The next line; none at the end.
async fn next(stream: &mut LogStream) -> CaseResult<Option<LogLine>> {
    Ok(poll_fn(|context| stream.as_mut().poll_next(context)).await.transpose()?)
}

/// All lines of a stream that ends.
async fn lines(ground: &Ground, query: LogQuery) -> CaseResult<Vec<LogLine>> {
    let mut stream = ground.backend.orchestrator.logs(query).await?;
    let mut lines = Vec::new();
    while let Some(line) = next(&mut stream).await? {
        lines.push(line);
    }
    Ok(lines)
}

/// The lines once there are so many.
async fn written(ground: &Ground, query: LogQuery, count: usize) -> CaseResult<Vec<LogLine>> {
    eventually(&ground.scope.clock(), "the lines are written", async || {
        let lines = lines(ground, query.clone()).await?;
        Ok((lines.len() >= count).then_some(lines))
    })
    .await
}

async fn last_words(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::Exits, "a")).await?;
    ground.launch(&release, 1).await?;
    let (instance, lines) = eventually(&ground.scope.clock(), "the instance has written", async || {
        // Where what crashes is replaced, the next one has another id.
        let instance = ground.instances(&release).await?.pop().ok_or("the instance is not observed")?;
        let lines = lines(ground, LogQuery::new(ground.app()).with_instance(instance.id.clone())).await?;
        Ok((!lines.is_empty()).then_some((instance, lines)))
    })
    .await?;
    let said = lines.iter().any(|line| line.text.starts_with("FATAL"));
    check(said, format!("a line must begin with FATAL: {lines:?}"))?;
    let from = lines.iter().all(|line| line.instance == instance.name && line.service.as_ref() == Some(&web()));
    check(from, format!("the lines must name {} of web: {lines:?}", instance.name))
}

async fn task_output(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    ground.running(&release, 1).await?;
    let request = ground.task(&release, "conformance-task", ground.scope.task(TaskProgram::Fails));
    ground.backend.orchestrator.start_task(request).await?;
    let task = ground.tasks().await?.pop().ok_or("the task is not observed")?;
    let lines = written(ground, LogQuery::new(ground.app()).with_instance(task.instance), 1).await?;
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    same("what the task wrote", texts, ["FATAL: no database"])
}

async fn narrowed(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::Exits, "a")).await?;
    ground.launch(&release, 2).await?;
    let all = LogQuery::new(ground.app());
    let first = ground.instances(&release).await?.remove(0);
    eventually(&ground.scope.clock(), "both have crashed twice", async || {
        let instances = ground.instances(&release).await?;
        Ok(instances.iter().all(|instance| instance.crashes >= 2).then_some(()))
    })
    .await?;
    let names = |lines: &[LogLine]| {
        let mut names: Vec<String> = lines.iter().map(|line| line.instance.clone()).collect();
        names.sort();
        names
    };
    let one = lines(ground, all.clone().with_instance(first.id.clone())).await?;
    check(one.len() >= 2 && one.iter().all(|line| line.instance == first.name), format!("of one instance: {one:?}"))?;
    let mut tails = names(&lines(ground, all.clone().with_tail(1)).await?);
    same("how many last lines there are", tails.len(), 2)?;
    tails.dedup();
    same("of how many instances they are", tails.len(), 2)?;
    nothing("lines of another service", &lines(ground, all.clone().with_services(vec![named("other")])).await?)?;
    check(!lines(ground, all.with_services(vec![web()])).await?.is_empty(), "the service has lines")
}

async fn follow(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::Exits, "a")).await?;
    ground.launch(&release, 1).await?;
    let query = LogQuery::new(ground.app()).with_tail(0).following();
    let mut stream = ground.backend.orchestrator.logs(query).await?;
    // It crashes again and again, and writes each time.
    let line = next(&mut stream).await?;
    check(line.is_some(), "a stream that follows has another line")
}

async fn no_logs(ground: &Ground) -> CaseResult {
    let unknown: AppName = ground.app();
    nothing("lines", &lines(ground, LogQuery::new(unknown)).await?)
}
