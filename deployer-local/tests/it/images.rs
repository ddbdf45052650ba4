//! Images built by, kept in and removed from a real Docker Engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex};

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use deployer_core::{
    AppName, BuildImage, BuildSpec, BuiltImage, Call, Digest, ErrorKind, ImageBuilder, PinnedImage, Progress,
    ProgressSink, PruneImages, PublishImage, Registry, ResolveImage, Result, SecretRef, SecretValue, ServiceName,
    Timestamp,
};
use deployer_local::{DockerBuilder, Engine, EngineRegistry};
use futures_util::FutureExt as _;
use tempfile::TempDir;

const BASE: &str = "busybox:1.36";

#[derive(Default)]
struct Seen(Mutex<Vec<Progress>>);

impl ProgressSink for Seen {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

struct Bench {
    docker: Docker,
    builder: DockerBuilder,
    registry: EngineRegistry,
    app: AppName,
    context: TempDir,
    seen: Arc<Seen>,
}

/// Runs a test with an application of its own, and removes what it made whatever becomes of it.
async fn with_app(test: impl AsyncFnOnce(&Bench)) {
    let engine = Engine::connect().await.unwrap();
    let docker = Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap();
    let bench = Bench {
        docker,
        builder: DockerBuilder::new(engine.clone()),
        registry: EngineRegistry::new(engine),
        app: AppName::new(format!("it-images-{}", uuid::Uuid::now_v7().simple())).unwrap(),
        context: tempfile::tempdir().unwrap(),
        seen: Arc::default(),
    };
    let result = AssertUnwindSafe(test(&bench)).catch_unwind().await;
    bench.clean().await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

impl Bench {
    async fn clean(&self) {
        let filter = std::collections::HashMap::from([("label", vec![format!("deployer.app={}", self.app)])]);
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        for container in self.docker.list_containers(Some(containers)).await.unwrap() {
            let force = RemoveContainerOptionsBuilder::new().force(true).build();
            self.docker.remove_container(&container.id.unwrap(), Some(force)).await.unwrap();
        }
        let images = ListImagesOptionsBuilder::new().filters(&filter).build();
        for image in self.docker.list_images(Some(images)).await.unwrap() {
            let force = RemoveImageOptionsBuilder::new().force(true).build();
            self.docker.remove_image(&image.id, Some(force), None).await.unwrap();
        }
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.context.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn dockerfile(&self, text: &str) -> BuildSpec {
        self.file("Dockerfile", text);
        BuildSpec::new(self.context.path())
    }

    async fn build_service(&self, service: &str, build: BuildSpec) -> Result<BuiltImage> {
        let service = ServiceName::new(service).unwrap();
        let progress: Arc<dyn ProgressSink> = Arc::<Seen>::clone(&self.seen);
        let request = BuildImage::new(call(), self.app.clone(), service, build, BTreeMap::new(), progress);
        self.builder.build(request).await
    }

    async fn build(&self, build: BuildSpec) -> Result<BuiltImage> {
        self.build_service("web", build).await
    }

    async fn resolve(&self, reference: &str) -> Result<PinnedImage> {
        self.registry.resolve(ResolveImage::new(call(), reference, Arc::new(Seen::default()))).await
    }

    async fn publish(&self, image: &BuiltImage) -> Result<PinnedImage> {
        let service = ServiceName::new("web").unwrap();
        let request = PublishImage::new(call(), self.app.clone(), service, image.clone(), Arc::new(Seen::default()));
        self.registry.publish(request).await
    }

    async fn prune(&self, keep: &[&Digest]) -> BTreeSet<String> {
        let keep = keep.iter().copied().cloned().collect();
        let removed = self.registry.prune(PruneImages::new(call(), self.app.clone(), keep)).await.unwrap();
        removed.into_iter().collect()
    }

    async fn labels(&self, image: &str) -> std::collections::HashMap<String, String> {
        self.docker.inspect_image(image).await.unwrap().config.unwrap().labels.unwrap()
    }

    fn progress_of(&self, item: &str) -> Vec<String> {
        let seen = self.seen.0.lock().unwrap();
        seen.iter().filter(|progress| progress.item.ends_with(item)).map(|progress| progress.message.clone()).collect()
    }
}

fn call() -> Call {
    Call::new("a test", Timestamp::from_millis(i64::MAX))
}

#[tokio::test]
async fn a_build_takes_its_context_arguments_target_and_labels() {
    with_app(async |bench| {
        for name in [".env", "node_modules/x", "src/main", "keep/k", "keep/other"] {
            bench.file(name, "x");
        }
        bench.file(".dockerignore", ".env\nnode_modules\nkeep\n!keep/k\n");
        let mut build = bench
            .dockerfile(&format!(
                "FROM {BASE} AS first\nARG GREETING\nCOPY . /ctx\n\
                 RUN cd /ctx && test ! -e .env && test ! -e node_modules && test -e src/main && test -e keep/k \
                 && test ! -e keep/other && test \"$GREETING\" = 'a b&c' && : {} && echo it is $((20 + 22))\n\
                 FROM first AS second\nRUN false\n",
                bench.app
            ))
            .with_arg("GREETING", "a b&c")
            .with_target("first");
        build.labels.insert("mine".to_owned(), "1".to_owned());
        build.labels.insert("deployer.app".to_owned(), "not mine to choose".to_owned());
        let image = bench.build(build).await.unwrap();
        assert_eq!(image.reference, format!("deployer/{}/web:{}", bench.app, image.digest.short()));
        let labels = bench.labels(&image.reference).await;
        assert_eq!((labels["mine"].as_str(), labels["deployer.app"].as_str()), ("1", bench.app.as_str()));

        let instruction = "echo it is $((20 + 22))";
        let progress = bench.progress_of(instruction);
        assert_eq!(progress.first().map(String::as_str), Some("started"), "{progress:?}");
        assert!(progress.contains(&"it is 42".to_owned()), "{progress:?}");
        assert_eq!(progress.last().map(String::as_str), Some("done"), "{progress:?}");
    })
    .await;
}

#[tokio::test]
async fn a_build_has_the_hosts_network_and_shared_memory_that_were_asked_for() {
    with_app(async |bench| {
        let run = "grep -q '10.9.8.7.*there' /etc/hosts && test \"$(ls /sys/class/net)\" = lo";
        let mut build = bench.dockerfile(&format!("FROM {BASE}\nRUN : {} && {run}\n", bench.app));
        build.extra_hosts = vec!["there:10.9.8.7".to_owned()];
        build.network = Some("none".to_owned());
        build.tags = vec![format!("{}:one", bench.app), format!("{}:two", bench.app)];
        let image = bench.build(build.clone()).await.unwrap();
        for tag in &build.tags {
            assert_eq!(bench.resolve(tag).await.unwrap().digest, image.digest, "{tag}");
        }

        let sized = format!("FROM {BASE}\nRUN {run} && grep -q '/dev/shm .*size=16384k' /proc/mounts\n");
        build.shm_size = Some(16 << 20);
        bench.file("Dockerfile", &sized);
        bench.build(build.clone()).await.unwrap();

        // With secrets there is another way to BuildKit.
        let values = BTreeMap::from([("token".to_owned(), SecretValue::new("hush"))]);
        let service = ServiceName::new("web").unwrap();
        let request = BuildImage::new(call(), bench.app.clone(), service, build, values, Arc::new(Seen::default()));
        let error = bench.builder.build(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("`shm_size`"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_equal_build_is_an_equal_image_from_the_cache() {
    with_app(async |bench| {
        let build = bench.dockerfile(&format!("FROM {BASE}\nCOPY Dockerfile /\nRUN echo {}\n", bench.app));
        let first = bench.build(build.clone()).await.unwrap();
        bench.seen.0.lock().unwrap().clear();
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::open(bench.context.path().join("Dockerfile")).unwrap().set_modified(old).unwrap();
        assert_eq!(bench.build(build.clone()).await.unwrap(), first);
        assert_eq!(bench.progress_of(&format!("RUN echo {}", bench.app)).last().unwrap(), "cached");
        let mut anew = build;
        anew.no_cache = true;
        bench.seen.0.lock().unwrap().clear();
        bench.build(anew).await.unwrap();
        assert_eq!(bench.progress_of(&format!("RUN echo {}", bench.app)).last().unwrap(), "done");
    })
    .await;
}

#[tokio::test]
async fn a_failing_instruction_is_named_with_its_last_lines() {
    with_app(async |bench| {
        let run = format!("RUN : {}; i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo line $i; done; exit 7", bench.app);
        let error = bench.build(bench.dockerfile(&format!("FROM {BASE}\n{run}\n"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Workload);
        assert!(error.message().contains(&run) && error.message().contains("exit code: 7"), "{error}");
        let (_, output) = error.context().iter().find(|(key, _)| *key == "last output").unwrap();
        let expected: Vec<String> = (31..=50).map(|number| format!("line {number}")).collect();
        assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_not_in_the_context_fails_its_instruction() {
    with_app(async |bench| {
        bench.file(".dockerignore", "there");
        bench.file("there", "x");
        let error = bench.build(bench.dockerfile(&format!("FROM {BASE}\nCOPY there /\n"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Workload);
        assert!(error.message().contains("COPY there /") && error.message().contains("not found"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_is_invalid_input() {
    with_app(async |bench| {
        for (text, target, word) in [
            ("FROM scratch\nBOGUS x\n".to_owned(), None, "BOGUS"),
            (String::new(), None, ""),
            (format!("FROM {BASE} AS here\n"), Some("elsewhere"), "elsewhere"),
        ] {
            let mut build = bench.dockerfile(&text);
            build.target = target.map(str::to_owned);
            let error = bench.build(build).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.message().contains(word), "{error}");
        }
        let error = bench.build(BuildSpec::new(bench.context.path().join("nowhere"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.operation(), Some("builder.build"));
    })
    .await;
}

#[tokio::test]
async fn a_base_image_that_is_nowhere_is_not_found() {
    with_app(async |bench| {
        let error = bench.build(bench.dockerfile("FROM registry.invalid/nothing:1\n")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.help().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_frontend_that_cannot_be_had_is_done_without() {
    with_app(async |bench| {
        let build = bench.dockerfile(&format!(
            "# syntax=registry.invalid/frontend:1\nFROM {BASE}\nRUN --mount=type=cache,target=/c touch /c/x && : {}\n",
            bench.app
        ));
        bench.build(build).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_dockerfile_may_be_text_and_the_image_may_have_a_name_more() {
    with_app(async |bench| {
        let mut build = BuildSpec::new(bench.context.path());
        build.dockerfile_inline = Some(format!("FROM {BASE}\nEXPOSE 9000/udp 8443 80\nLABEL of={}\n", bench.app));
        build.tag = Some(format!("{}:mine", bench.app));
        let image = bench.build(build).await.unwrap();
        let pinned = bench.resolve(&format!("{}:mine", bench.app)).await.unwrap();
        assert_eq!((pinned.digest.clone(), pinned.location.as_str()), (image.digest.clone(), image.digest.as_str()));
        assert_eq!(pinned.exposed_ports, [80, 8443]);
        assert_eq!(pinned.reference, format!("{}:mine", bench.app));
        assert_eq!(bench.resolve(&image.reference).await.unwrap().digest, image.digest);
        assert_eq!(bench.resolve(image.digest.as_str()).await.unwrap().digest, image.digest);
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_not_found_with_a_remedy() {
    with_app(async |bench| {
        let id = format!("sha256:{}", "0".repeat(64));
        for reference in ["registry.invalid/nothing:1", id.as_str()] {
            let error = bench.resolve(reference).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.help().is_some() && error.to_string().contains(reference), "{error}");
        }
        let error = bench.resolve("../containers/json").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    })
    .await;
}

#[tokio::test]
async fn published_images_are_there_until_they_are_pruned() {
    with_app(async |bench| {
        let text = |content: &str| format!("FROM {BASE}\nLABEL content={content}-{}\n", bench.app);
        let first = bench.build(bench.dockerfile(&text("first"))).await.unwrap();
        let pinned = bench.publish(&first).await.unwrap();
        assert_eq!(pinned.digest, first.digest);
        assert_eq!(bench.publish(&first).await.unwrap(), pinned, "publishing again changes nothing");
        let second = bench.build(bench.dockerfile(&text("second"))).await.unwrap();
        let second = bench.publish(&second).await.unwrap();
        let both = [pinned.clone(), second.clone()];
        assert_eq!(bench.registry.missing(&both).await.unwrap(), []);
        assert!(bench.prune(&[&pinned.digest, &second.digest]).await.is_empty());
        assert_eq!(bench.prune(&[&second.digest]).await, BTreeSet::from([first.reference.clone()]));
        assert_eq!(bench.registry.missing(&both).await.unwrap(), [pinned]);
        assert_eq!(bench.publish(&first).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(bench.prune(&[&second.digest]).await.is_empty(), "pruning again changes nothing");
    })
    .await;
}

#[tokio::test]
async fn pruning_leaves_what_is_used_named_by_others_or_another_applications() {
    with_app(async |bench| {
        let text = |content: &str| format!("FROM {BASE}\nLABEL content={content}-{}\n", bench.app);
        let used = bench.build(bench.dockerfile(&text("used"))).await.unwrap();
        let named = bench.build(bench.dockerfile(&text("named"))).await.unwrap();
        let nameless = bench.build(bench.dockerfile(&text("nameless"))).await.unwrap();
        let body = ContainerCreateBody { image: Some(used.digest.to_string()), ..ContainerCreateBody::default() };
        let container = bench.docker.create_container(None::<CreateContainerOptions>, body).await.unwrap();
        let tag = TagImageOptionsBuilder::new().repo(bench.app.as_str()).tag("by-hand").build();
        bench.docker.tag_image(&named.reference, Some(tag)).await.unwrap();

        with_app(async |other| {
            let theirs = other.build(other.dockerfile(&text("theirs"))).await.unwrap();
            let nameless_too = bench.docker.inspect_image(&nameless.reference).await.unwrap().id.unwrap();
            let removed = bench.prune(&[]).await;
            assert_eq!(removed, BTreeSet::from([named.reference.clone(), nameless.reference.clone()]));
            assert_eq!(nameless_too, nameless.digest.as_str());
            let there = async |id: &Digest| bench.docker.inspect_image(id.as_str()).await.is_ok();
            assert!(there(&theirs.digest).await && there(&used.digest).await && there(&named.digest).await);
            assert!(!there(&nameless.digest).await);
        })
        .await;

        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        bench.docker.remove_container(&container.id, Some(force)).await.unwrap();
        assert_eq!(bench.prune(&[]).await, BTreeSet::from([used.reference]));
    })
    .await;
}

#[tokio::test]
async fn what_lost_its_name_is_pruned_by_its_label() {
    with_app(async |bench| {
        let text = |content: &str| format!("FROM {BASE}\nLABEL content={content}-{}\n", bench.app);
        let lost = bench.build(bench.dockerfile(&text("lost"))).await.unwrap();
        let heir = bench.build(bench.dockerfile(&text("heir"))).await.unwrap();
        let (repository, tag) = lost.reference.rsplit_once(':').unwrap();
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        bench.docker.tag_image(heir.digest.as_str(), Some(options)).await.unwrap();
        assert_eq!(bench.prune(&[&heir.digest]).await, BTreeSet::from([lost.digest.to_string()]));
        assert_eq!(bench.resolve(&lost.reference).await.unwrap().digest, heir.digest);
    })
    .await;
}

async fn build_with_secret(bench: &Bench, text: &str, value: Option<&str>) -> Result<BuiltImage> {
    let mut build = bench.dockerfile(text);
    build.secrets.insert("token".to_owned(), SecretRef::new("of-the-test"));
    let service = ServiceName::new("web").unwrap();
    let values = value.into_iter().map(|value| ("token".to_owned(), SecretValue::new(value))).collect();
    let request = BuildImage::new(call(), bench.app.clone(), service, build, values, Arc::new(Seen::default()));
    bench.builder.build(request).await
}

#[cfg(not(feature = "build-secrets"))]
#[tokio::test]
async fn build_secrets_are_refused_without_the_means() {
    with_app(async |bench| {
        let error = build_with_secret(bench, "FROM scratch", Some("hush")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.help().is_some_and(|help| help.contains("build-secrets")), "{error}");
        let error = build_with_secret(bench, "FROM scratch", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    })
    .await;
}

#[cfg(feature = "build-secrets")]
#[tokio::test]
async fn build_secrets_are_read_while_building_and_stay_out_of_the_image() {
    with_app(async |bench| {
        let run = "RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = 'hush hush'";
        let text = format!("FROM {BASE}\nLABEL of={}\n{run} && : {}\n", bench.app, bench.app);
        let image = build_with_secret(bench, &text, Some("hush hush")).await.unwrap();
        assert_eq!(image.reference, format!("deployer/{}/web:{}", bench.app, image.digest.short()));
        let inspected = bench.docker.inspect_image(&image.reference).await.unwrap();
        assert_eq!(inspected.repo_tags.unwrap(), [image.reference]);
        assert_eq!(bench.labels(image.digest.as_str()).await["deployer.app"], bench.app.as_str());
        let after = format!("FROM {BASE}\n{run} && : not {}\n", bench.app);
        let error = build_with_secret(bench, &after, Some("another value")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Workload);
        assert!(!format!("{error:?}").contains("another value"), "{error:?}");
    })
    .await;
}
