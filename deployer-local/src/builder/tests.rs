//! The classic builder, which the engine's BuildKit hides otherwise.

use std::sync::Mutex;

use bollard::query_parameters::RemoveImageOptionsBuilder;
use deployer_core::{AppName, BuildSpec, Call, Progress, ServiceName, Timestamp};

use super::*;

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl ProgressSink for Seen {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(format!("{}: {}", progress.item, progress.message));
    }
}

async fn classic(dockerfile: &str, seen: &Arc<Seen>) -> Result<(DockerBuilder, String), Error> {
    let directory = tempfile::tempdir().unwrap();
    let mut spec = BuildSpec::new(directory.path());
    spec.dockerfile_inline = Some(dockerfile.to_owned());
    let context = Arc::new(BuildContext::gather(&spec).unwrap());
    let builder = DockerBuilder::new(Engine::connect().await.unwrap());
    let (app, service) = (AppName::new("it-classic").unwrap(), ServiceName::new("web").unwrap());
    let call = Call::new("a test", Timestamp::from_millis(i64::MAX));
    let progress: Arc<dyn ProgressSink> = Arc::<Seen>::clone(seen);
    let request = BuildImage::new(call, app, service, spec, BTreeMap::new(), progress);
    match builder.build_once(&request, &context, Version::Classic, None).await {
        Ok(image) => Ok((builder, image)),
        Err(Trouble::Failed(failed)) => Err(failed.into_error()),
        Err(Trouble::Error(error)) => Err(error),
    }
}

#[tokio::test]
async fn the_classic_builder_builds_and_is_followed() {
    let seen = Arc::new(Seen::default());
    let unique = uuid::Uuid::now_v7().simple();
    let text = format!("FROM busybox:1.36\nRUN echo hello {unique}\n");
    let (builder, image) = classic(&text, &seen).await.unwrap();
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    builder.engine.docker().remove_image(&image, Some(options), None).await.unwrap();
    let seen = seen.0.lock().unwrap();
    let of_run: Vec<_> =
        seen.iter().filter_map(|line| line.split_once(&format!("RUN echo hello {unique}: "))).collect();
    let messages: Vec<&str> = of_run.into_iter().map(|(_, message)| message).collect();
    assert_eq!(messages, ["started", &format!("hello {unique}"), "done"]);
}

#[tokio::test]
async fn what_the_classic_builder_refuses_is_classified() {
    let seen = Arc::new(Seen::default());
    let error = classic("FROM busybox:1.36\nRUN echo said; exit 7\n", &seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Workload);
    assert!(error.message().contains("RUN echo said; exit 7"), "{error}");
    assert!(error.to_string().contains("last output: said"), "{error}");
    for text in ["BOGUS x\n", "FROM scratch\nBOGUS\n", ""] {
        let error = classic(text, &seen).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let error = classic("FROM registry.invalid/nothing:1\n", &seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = classic("FROM busybox:1.36\nRUN --mount=type=cache,target=/c true\n", &seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
