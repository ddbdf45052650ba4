//! The manual's column for ECS tells the truth: what it calls refused is refused, and nothing else.

use std::sync::Arc;

use aws_sdk_ecs::types::UlimitName;
use deployer_aws::{AwsOptions, Capacity};
use deployer_core::compose::{ComposeReader, Fate, fates};
use deployer_core::{AppName, DeployOptions, Deployer, DeploymentId, Problems, Verdict};
use deployer_testkit::MemoryStore;

use crate::stage::{Stage, config};

/// Keys of a service that only a platform of containers can heed, with a value each.
const SAMPLES: &[&str] = &[
    "blkio_config: {weight: 300}",
    "cap_add: [SYS_PTRACE]",
    "cap_drop: [ALL]",
    "cgroup: private",
    "cgroup_parent: x",
    "configs: [c]",
    "cpu_period: 50000",
    "cpu_quota: 50000",
    "cpu_rt_period: 50000",
    "cpu_rt_runtime: 50000",
    "cpu_shares: 10",
    "cpuset: \"0\"",
    "device_cgroup_rules: [\"c 1:3 mr\"]",
    "devices: [/dev/null]",
    "dns: [10.0.0.2]",
    "dns_opt: [use-vc]",
    "dns_search: [example.test]",
    "domainname: example.test",
    "extra_hosts: [\"a:10.0.0.1\"]",
    "gpus: all",
    "group_add: [\"12\"]",
    "hostname: here",
    "ipc: host",
    "logging: {driver: local}",
    "mem_swappiness: 10",
    "memswap_limit: 1g",
    "networks: [n]",
    "oom_kill_disable: true",
    "oom_score_adj: 10",
    "pid: host",
    "pids_limit: 10",
    "platform: linux/amd64",
    "privileged: true",
    "runtime: runc",
    "secrets: [s]",
    "security_opt: [\"no-new-privileges:true\"]",
    "shm_size: 64m",
    "stdin_open: true",
    "stop_signal: SIGINT",
    "storage_opt: {size: 1g}",
    "sysctls: {net.core.somaxconn: 1024}",
    "tty: true",
    "ulimits: {nofile: 1024}",
    "userns_mode: host",
    "uts: host",
];

fn name() -> String {
    format!("fates-{}", DeploymentId::fresh().as_str().get(24..).unwrap())
}

fn read(service: &str) -> deployer_core::AppSpec {
    let text = format!(
        "services: {{web: {{image: x, {service}}}}}\nnetworks: {{n: }}\nconfigs: {{c: {{content: x}}}}\n\
         secrets: {{s: {{external: true}}}}\n"
    );
    let read = ComposeReader::new().with_project_name("shop").read_str(&text, "compose.yaml", "/nowhere");
    read.unwrap_or_else(|problems| panic!("{service}: {problems}")).spec
}

async fn check(stage: &Stage, options: AwsOptions, service: &str) -> Problems {
    let backend = stage.backend(&config(), options, Arc::new(MemoryStore::new())).unwrap();
    backend.orchestrator.check(&read(service)).await.unwrap()
}

#[tokio::test]
async fn what_the_manual_says_of_ecs_is_so() {
    let stage = Stage::new(&name()).await.unwrap();
    let key = |sample: &str| sample.split_once(':').unwrap().0.to_owned();
    let all = fates();
    for sample in SAMPLES {
        let name = key(sample);
        let fate = all.iter().find(|fate| fate.path == format!("services.*.{name}")).unwrap().ecs;
        // What Fargate refuses, EC2 may have.
        let problems = check(&stage, stage.options().with_capacity(Capacity::Ec2), sample).await;
        assert_eq!(problems.has_errors(), matches!(fate, Fate::Refused(_)), "{sample}: {fate:?}\n{problems}");
        let warns = problems.0.len() > problems.errors().count();
        assert_eq!(warns, matches!(fate, Fate::Ignored(_)), "{sample}: {fate:?}\n{problems}");
    }
    for key in all.iter().filter(|key| matches!(key.ecs, Fate::Refused(_)) && key.docker != key.ecs) {
        let service = key.path.strip_prefix("services.*.").filter(|name| !name.contains('.'));
        let sampled = |name| SAMPLES.iter().any(|sample| sample.starts_with(&format!("{name}:")));
        assert!(service.is_none_or(sampled), "{} has no sample", key.path);
    }
    for sample in ["cap_add: [NET_ADMIN]", "ulimits: {nproc: 5}", "privileged: true", "shm_size: 1m"] {
        assert!(check(&stage, stage.options(), sample).await.has_errors(), "Fargate has no {sample}");
    }
    assert!(check(&stage, stage.options(), "platform: linux/arm64").await.has_errors());
    stage.clear().await.unwrap();
}

#[tokio::test]
async fn options_of_containers_are_in_the_task_definition() {
    let stage = Stage::new(&name()).await.unwrap();
    let deployer = Deployer::new(stage.backend(&config(), stage.options(), Arc::new(MemoryStore::new())).unwrap());
    let text = format!(
        "services: {{web: {{image: \"{}\", command: [/shop, web], cap_add: [SYS_PTRACE], cap_drop: [ALL], tty: true, stdin_open: true, \
         sysctls: {{net.core.somaxconn: 1024}}, ulimits: {{nofile: {{soft: 64, hard: 128}}}}}}}}",
        stage.image
    );
    let spec = ComposeReader::new().with_project_name("shop").read_str(&text, "compose.yaml", "/nowhere").unwrap().spec;
    let verdict = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap().verdict.unwrap();
    let families = stage.ecs.list_services().cluster(&stage.name).send().await.unwrap();
    let service = families.service_arns().first().unwrap();
    let services = stage.ecs.describe_services().cluster(&stage.name).services(service).send().await.unwrap();
    let definition = services.services().first().unwrap().task_definition().unwrap();
    let found = stage.ecs.describe_task_definition().task_definition(definition).send().await.unwrap();
    let web = found.task_definition().unwrap().container_definitions().first().unwrap().clone();
    deployer.destroy(&AppName::new("shop").unwrap(), false).finished().await.unwrap();
    stage.clear().await.unwrap();
    assert!(matches!(verdict, Verdict::Promoted { .. }), "{verdict}");
    let capabilities = web.linux_parameters().unwrap().capabilities().unwrap();
    assert_eq!((capabilities.add(), capabilities.drop()), (&["SYS_PTRACE".to_owned()][..], &["ALL".to_owned()][..]));
    assert_eq!((web.pseudo_terminal(), web.interactive()), (Some(true), Some(true)));
    let control = web.system_controls().first().unwrap();
    assert_eq!((control.namespace(), control.value()), (Some("net.core.somaxconn"), Some("1024")));
    let limit = web.ulimits().first().unwrap();
    assert_eq!((limit.name(), limit.soft_limit(), limit.hard_limit()), (&UlimitName::Nofile, 64, 128));
}
