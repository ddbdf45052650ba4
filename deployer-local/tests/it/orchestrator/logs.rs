use bollard::query_parameters::RestartContainerOptions;
use deployer_core::{LogLine, LogQuery, LogStream, Orchestrator, OutputStream};
use futures_util::{StreamExt, TryStreamExt};

use crate::engine::{TestApp, named, revision, until};

async fn read(app: &TestApp, query: LogQuery) -> Vec<LogLine> {
    app.orchestrator.logs(query).await.unwrap().try_collect().await.unwrap()
}

/// The text of all that was written so far.
pub(super) async fn texts(app: &TestApp) -> Vec<String> {
    read(app, LogQuery::new(app.name.clone())).await.into_iter().map(|line| line.text).collect()
}

async fn next(stream: &mut LogStream) -> LogLine {
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, stream.next()).await.expect("a line comes").expect("it goes on").unwrap()
}

#[tokio::test]
async fn output_is_merged_by_time_and_lines_are_whole() {
    let app = TestApp::new("logs").await;
    let script = "echo begin; echo oops >&2; head -c 50000 /dev/zero | tr '\\0' x; echo; echo last; exec sleep 600";
    let release = app.release([("a", app.shell(script)), ("b", app.shell(script))]);
    app.run(&release, "a", 2).await;
    app.run(&release, "b", 1).await;
    let all = until(async || {
        let lines = read(&app, LogQuery::new(app.name.clone())).await;
        (lines.iter().filter(|line| line.text == "last").count() == 3).then_some(lines)
    });
    let all = all.await;
    assert_eq!(all.len(), 12);
    // The engine reads the two streams of a container side by side, so only each for itself is in order.
    let stdout = all.iter().filter(|line| line.stream == OutputStream::Stdout);
    assert!(stdout.is_sorted_by_key(|line| line.at), "sorted by time");
    assert!(all.iter().all(|line| line.at.is_some()));
    assert_eq!(all.iter().filter(|line| line.text == "x".repeat(50_000)).count(), 3);
    let errors: Vec<&LogLine> = all.iter().filter(|line| line.stream == OutputStream::Stderr).collect();
    assert!(errors.len() == 3 && errors.iter().all(|line| line.text == "oops"));

    let of_b = read(&app, LogQuery::new(app.name.clone()).with_services(vec![named("b")]).with_tail(1)).await;
    assert_eq!(of_b.len(), 1);
    // For the same reason either stream may have the last word.
    assert_eq!(Some(&of_b[0]), all.iter().rfind(|line| line.service == Some(named("b"))));
    let one = app.instances().await.remove(0);
    let of_one = read(&app, LogQuery::new(app.name.clone()).with_instance(one.id.clone())).await;
    assert!(of_one.len() == 4 && of_one.iter().all(|line| line.instance == one.name));
    let mut query = LogQuery::new(app.name.clone());
    query.since = all.last().unwrap().at;
    assert_eq!(read(&app, query).await.last(), all.last());
}

#[tokio::test]
async fn following_picks_up_what_is_started_later() {
    let app = TestApp::new("follow").await;
    let script = "echo from $VERSION; trap exit TERM; while :; do sleep 1 & wait; done";
    let one = app.release([("web", app.shell(script).with_env("VERSION", "one"))]);
    let two = app.release([("web", app.shell(script).with_env("VERSION", "two"))]);
    app.run(&one, "web", 1).await;
    let mut stream = app.orchestrator.logs(LogQuery::new(app.name.clone()).following()).await.unwrap();
    assert_eq!(next(&mut stream).await.text, "from one");
    app.run(&two, "web", 1).await;
    assert_eq!(next(&mut stream).await.text, "from two");
    let started = app.instances().await.into_iter().find(|each| each.revision == revision(&two, "web")).unwrap();
    app.docker.restart_container(started.id.as_str(), None::<RestartContainerOptions>).await.unwrap();
    let again = next(&mut stream).await;
    assert_eq!((again.text.as_str(), &again.instance), ("from two", &started.name), "once more after a restart");
}

#[tokio::test]
async fn following_one_container_ends_with_it() {
    let app = TestApp::new("followone").await;
    let mut service = app.shell("echo working; sleep 1; echo done");
    service.workload.restart = deployer_core::Restart::No;
    let release = app.release([("job", service)]);
    app.run(&release, "job", 1).await;
    let job = app.instances().await.remove(0);
    let lines = read(&app, LogQuery::new(app.name.clone()).with_instance(job.id).following()).await;
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["working", "done"]);
}
