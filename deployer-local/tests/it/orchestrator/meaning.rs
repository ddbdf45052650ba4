//! What a Compose file says of a service is what the engine knows of its containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use deployer_core::compose::{ComposeReader, Fate, fates};
use deployer_core::{AppSpec, Orchestrator as _, Release, ServiceRelease};
use deployer_local::{DockerOrchestrator, Engine, HostSecrets};
use serde_json::{Value, json};

use crate::engine::TestApp;

/// A key of a service with its value, a pointer into what the engine says of the container, and what has to be there.
type Row = (&'static str, &'static str, Value);

/// What one container can have at once.
fn plain() -> Vec<Row> {
    vec![
        ("cap_add: [NET_ADMIN]", "/HostConfig/CapAdd", json!(["NET_ADMIN"])),
        ("cap_drop: [MKNOD]", "/HostConfig/CapDrop", json!(["MKNOD"])),
        ("cgroup: private", "/HostConfig/CgroupnsMode", json!("private")),
        ("cgroup_parent: it.slice", "/HostConfig/CgroupParent", json!("it.slice")),
        ("command: [sleep, \"600\"]", "/Config/Cmd", json!(["sleep", "600"])),
        ("cpu_period: 50ms", "/HostConfig/CpuPeriod", json!(50_000)),
        ("cpu_quota: 25000", "/HostConfig/CpuQuota", json!(25_000)),
        ("cpu_shares: 512", "/HostConfig/CpuShares", json!(512)),
        ("cpuset: \"0\"", "/HostConfig/CpusetCpus", json!("0")),
        ("device_cgroup_rules: [\"c 1:3 mr\"]", "/HostConfig/DeviceCgroupRules", json!(["c 1:3 mr"])),
        (
            "devices: [\"/dev/null:/dev/hole:rw\"]",
            "/HostConfig/Devices/0",
            json!({"PathOnHost": "/dev/null", "PathInContainer": "/dev/hole", "CgroupPermissions": "rw"}),
        ),
        ("dns: [127.0.0.53]", "/HostConfig/Dns", json!(["127.0.0.53"])),
        ("dns_opt: [use-vc]", "/HostConfig/DnsOptions", json!(["use-vc"])),
        ("dns_search: [example.test]", "/HostConfig/DnsSearch", json!(["example.test"])),
        ("domainname: example.test", "/Config/Domainname", json!("example.test")),
        ("entrypoint: [/bin/env]", "/Config/Entrypoint", json!(["/bin/env"])),
        ("environment: {ONE: \"1\"}", "/Config/Env/0", json!("ONE=1")),
        ("extra_hosts: [\"there:10.9.8.7\"]", "/HostConfig/ExtraHosts", json!(["there:10.9.8.7"])),
        ("group_add: [\"1234\"]", "/HostConfig/GroupAdd", json!(["1234"])),
        ("healthcheck: {test: [CMD, \"true\"], interval: 5s}", "/Config/Healthcheck/Test", json!(["CMD", "true"])),
        ("hostname: here", "/Config/Hostname", json!("here")),
        ("init: true", "/HostConfig/Init", json!(true)),
        ("ipc: shareable", "/HostConfig/IpcMode", json!("shareable")),
        ("label_file: labels", "/Config/Labels/of.file", json!("yes")),
        ("labels: {of.list: \"yes\"}", "/Config/Labels/of.list", json!("yes")),
        (
            "logging: {driver: local, options: {max-size: 1m}}",
            "/HostConfig/LogConfig",
            json!({"Type": "local", "Config": {"max-size": "1m"}}),
        ),
        ("mem_limit: 64m", "/HostConfig/Memory", json!(64 << 20)),
        ("mem_reservation: 32m", "/HostConfig/MemoryReservation", json!(32 << 20)),
        ("memswap_limit: 128m", "/HostConfig/MemorySwap", json!(128 << 20)),
        ("oom_kill_disable: true", "/HostConfig/OomKillDisable", json!(true)),
        ("oom_score_adj: 500", "/HostConfig/OomScoreAdj", json!(500)),
        ("pids_limit: 50", "/HostConfig/PidsLimit", json!(50)),
        ("read_only: true", "/HostConfig/ReadonlyRootfs", json!(true)),
        ("restart: on-failure:3", "/HostConfig/RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": 3})),
        ("runtime: runc", "/HostConfig/Runtime", json!("runc")),
        ("security_opt: [\"no-new-privileges:true\"]", "/HostConfig/SecurityOpt", json!(["no-new-privileges=true"])),
        ("shm_size: 32m", "/HostConfig/ShmSize", json!(32 << 20)),
        ("stdin_open: true", "/Config/OpenStdin", json!(true)),
        ("stop_grace_period: 3s", "/Config/StopTimeout", json!(3)),
        ("stop_signal: SIGINT", "/Config/StopSignal", json!("SIGINT")),
        ("sysctls: {net.core.somaxconn: 1024}", "/HostConfig/Sysctls/net.core.somaxconn", json!("1024")),
        (
            "tmpfs: [\"/scratch:size=1m,mode=1777\"]",
            "/HostConfig/Mounts/0/TmpfsOptions",
            json!({"SizeBytes": 1 << 20, "Mode": 0o1777}),
        ),
        ("tty: true", "/Config/Tty", json!(true)),
        (
            "ulimits: {nofile: {soft: 64, hard: 128}}",
            "/HostConfig/Ulimits/0",
            json!({"Name": "nofile", "Soft": 64, "Hard": 128}),
        ),
        ("user: \"1000:1000\"", "/Config/User", json!("1000:1000")),
        ("working_dir: /tmp", "/Config/WorkingDir", json!("/tmp")),
    ]
}

/// What shares things with the host, and what another container has to have.
fn host() -> Vec<Row> {
    vec![
        ("cgroup: host", "/HostConfig/CgroupnsMode", json!("host")),
        ("command: sleep 600", "/Config/Cmd", json!(["sleep", "600"])),
        ("cpus: 0.5", "/HostConfig/NanoCpus", json!(500_000_000)),
        ("ipc: host", "/HostConfig/IpcMode", json!("host")),
        ("mem_swappiness: 10", "/HostConfig/MemorySwappiness", json!(10)),
        ("pid: host", "/HostConfig/PidMode", json!("host")),
        ("userns_mode: host", "/HostConfig/UsernsMode", json!("host")),
        ("uts: host", "/HostConfig/UTSMode", json!("host")),
    ]
}

/// Keys that other tests show, or that no container shows.
const ELSEWHERE: [&str; 22] = [
    "blkio_config",   // needs a kernel with weights; see the options' own test
    "build",          // the builder's tests
    "configs",        // below
    "cpu_rt_period",  // needs a kernel with real-time groups
    "cpu_rt_runtime", // the same
    "depends_on",     // the plan's tests
    "deploy",         // the reader's tests: the same as keys here
    "env_file",       // the reader's tests: the same as `environment`
    "expose",         // the balancer's tests
    "extends",        // the reader's tests
    "gpus",           // needs a driver
    "image",          // every test
    "links",          // below
    "networks",       // below
    "platform",       // below
    "ports",          // the balancer's tests, and below
    "privileged",     // below: it cannot be started everywhere
    "profiles",       // the reader's tests
    "scale",          // the plan's tests
    "secrets",        // below
    "storage_opt",    // needs a file system with quotas
    "volumes",        // below
];

#[test]
fn every_key_that_has_an_effect_is_shown_to_have_it() {
    let named = |rows: Vec<Row>| rows.into_iter().map(|(key, ..)| key.split(':').next().unwrap().to_owned());
    let shown: Vec<String> = named(plain()).chain(named(host())).chain(ELSEWHERE.map(str::to_owned)).collect();
    for key in fates() {
        let Some(name) = key.path.strip_prefix("services.*.").filter(|name| !name.contains('.')) else { continue };
        if matches!(key.docker, Fate::Deployed | Fate::Translated(_)) {
            assert!(shown.iter().any(|shown| shown == name), "{name} is shown by no test");
        }
    }
}

/// Reads a Compose file in a directory with these files.
fn read(app: &TestApp, text: &str, files: &[(&str, &str)]) -> (AppSpec, HostSecrets, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let reader = ComposeReader::new().with_project_name(app.name.as_str()).with_env("PASSWORD", "from-variable");
    let read = reader.read_str(text, "compose.yaml", dir.path()).unwrap_or_else(|problems| panic!("{problems}"));
    (read.spec, HostSecrets::new().with_compose(&read.secrets), dir)
}

/// The release of a spec, in which everything runs the tests' image.
fn release(app: &TestApp, spec: AppSpec) -> Arc<Release> {
    let image = app.idle().image;
    let services: BTreeMap<_, ServiceRelease> =
        spec.services.into_iter().map(|(name, service)| (name, service.with_image(image.clone()))).collect();
    let json = json!({
        "format": Release::FORMAT, "app": spec.name, "number": 1, "services": services, "networks": spec.networks,
        "volumes": spec.volumes, "provenance": {},
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

async fn show(rows: Vec<Row>) {
    let app = TestApp::new("meaning").await;
    let keys: String = rows.iter().map(|(key, ..)| format!("    {key}\n")).collect();
    let text = format!("services:\n  web:\n    image: x\n{keys}");
    let (spec, _, _dir) = read(&app, &text, &[("labels", "of.file=yes\n")]);
    app.run(&release(&app, spec), "web", 1).await;
    let web = app.instances().await.remove(0);
    let inspected = serde_json::to_value(app.inspect(web.id.as_str()).await).unwrap();
    let found = |row: &Row| format!("{}: {}", row.0, inspected.pointer(row.1).unwrap_or(&Value::Null));
    let wrong: Vec<String> = rows.iter().filter(|row| inspected.pointer(row.1) != Some(&row.2)).map(found).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn keys_have_their_effect_on_containers() {
    show(plain()).await;
}

#[tokio::test]
async fn keys_that_share_the_host_have_their_effect_on_containers() {
    show(host()).await;
}

#[tokio::test]
async fn a_container_is_privileged_if_that_is_asked_for() {
    let app = TestApp::new("privileged").await;
    let (spec, ..) = read(&app, "services: {web: {image: x, privileged: true, command: sleep 600}}", &[]);
    let release = release(&app, spec);
    app.ensure(&release).await.unwrap();
    // Where the engine is in a container itself, it can be made and not started.
    if let Err(error) = app.launch(&release, "web", 1).await {
        assert!(error.message().contains("apply caps: operation not permitted"), "{error}");
    }
    let web = app.instances().await.remove(0);
    assert_eq!(app.inspect(web.id.as_str()).await.host_config.unwrap().privileged, Some(true));
}

/// All lines of an application, once `count` instances have said that they are done.
async fn lines(app: &TestApp, count: usize) -> Vec<String> {
    let all = async || {
        let lines = super::logs::texts(app).await;
        (lines.iter().filter(|line| *line == "done").count() == count).then_some(lines)
    };
    crate::engine::until(all).await
}

#[tokio::test]
async fn volumes_of_every_kind_are_mounted() {
    let app = TestApp::new("mounts").await;
    let text = "
services:
  web:
    image: x
    command: [sh, -c, 'grep -E \" /(named|bound|made|memory|own) \" /proc/mounts | cut -d\" \" -f2- ; cat /bound/file; stat -c %a /memory; echo done; exec sleep 600']
    volumes:
      - data:/named:nocopy
      - ./bound:/bound:ro,rprivate
      - ./missing/deep:/made
      - /own
      - { type: tmpfs, target: /memory, tmpfs: { size: 1m, mode: 1777 } }
volumes:
  data: { labels: { of.volume: \"yes\" }, driver: local }
";
    let (spec, _, dir) = read(&app, text, &[]);
    std::fs::create_dir(dir.path().join("bound")).unwrap();
    std::fs::write(dir.path().join("bound/file"), "found\n").unwrap();
    app.run(&release(&app, spec), "web", 1).await;
    let lines = lines(&app, 1).await.join("\n");
    for (path, word) in [("/named", "rw"), ("/bound", "ro"), ("/made", "rw"), ("/own", "rw"), ("/memory", "tmpfs rw")] {
        assert!(lines.contains(&format!("{path} ")) && lines.contains(word), "{path}: {lines}");
    }
    assert!(lines.contains("found\n1777"), "{lines}");
    assert!(dir.path().join("missing/deep").is_dir(), "Compose makes missing paths");
    let web = app.instances().await.remove(0);
    let inspected = serde_json::to_value(app.inspect(web.id.as_str()).await).unwrap();
    let mounts = inspected.pointer("/HostConfig/Mounts").unwrap().as_array().unwrap();
    let named = mounts.iter().find(|mount| mount["Target"] == "/named").unwrap();
    assert_eq!(named["VolumeOptions"]["NoCopy"], true);
    let volume = app.docker.inspect_volume(&format!("{}_data", app.name)).await.unwrap();
    assert_eq!((volume.driver.as_str(), volume.labels["of.volume"].as_str()), ("local", "yes"));
}

#[tokio::test]
async fn configs_and_secrets_are_files() {
    for read_only in [false, true] {
        let app = TestApp::new(if read_only { "filesro" } else { "files" }).await;
        let text = format!(
            "
services:
  web:
    image: x
    read_only: {read_only}
    command: [sh, -c, 'stat -c \"%n %a %u:%g\" /etc/app/* /run/secrets/*; cat /etc/app/* /run/secrets/*; echo; echo done; exec sleep 600']
    configs:
      - {{ source: inline, target: /etc/app/inline, uid: 12, gid: 34, mode: 0440 }}
      - {{ source: of-file, target: /etc/app/of-file }}
    secrets: [password, {{ source: token, target: renamed, mode: 0400 }}]
configs:
  inline: {{ content: \"one\\n\" }}
  of-file: {{ file: ./two.conf }}
secrets:
  password: {{ environment: PASSWORD }}
  token: {{ file: ./token }}
"
        );
        let (spec, secrets, _dir) = read(&app, &text, &[("two.conf", "two\n"), ("token", "from-file\n")]);
        let engine = Engine::connect().await.unwrap();
        let app = TestApp::with(
            if read_only { "filesro" } else { "files" },
            DockerOrchestrator::on_engine(engine, Arc::new(secrets)),
        )
        .await;
        let release = release(&app, spec);
        app.run(&release, "web", 2).await;
        let all = lines(&app, 2).await;
        for line in [
            "/etc/app/inline 440 12:34",
            "/etc/app/of-file 444 0:0",
            "/run/secrets/password 444 0:0",
            "/run/secrets/renamed 400 0:0",
            "one",
            "two",
        ] {
            assert!(all.iter().any(|found| found == line), "{line}: {all:?}");
        }
        let text = all.join("\n");
        assert!(text.contains("from-variable") && text.contains("from-file"), "{text}");
        let web = app.instances().await.remove(0);
        let inspected = app.inspect(web.id.as_str()).await;
        let shown = format!("{inspected:?} {release:?} {:?}", app.orchestrator);
        assert!(!shown.contains("from-variable") && !shown.contains("from-file"));
    }
}

#[tokio::test]
async fn networks_have_the_addresses_and_names_that_were_asked_for() {
    let app = TestApp::new("addresses").await;
    let text = "
services:
  db:
    image: x
    networks:
      back: { aliases: [database], ipv4_address: 10.213.7.200, driver_opts: { com.docker.network.note: x } }
    command: [sleep, '600']
  web:
    image: x
    links: ['db:mysql']
    networks: [back]
    command: [sh, -c, 'for name in db database mysql; do nslookup $$name 2>/dev/null | grep -o \"10.213.7.200\" | tail -1; done; echo done; exec sleep 600']
networks:
  back:
    internal: true
    labels: { of.network: 'yes' }
    ipam: { config: [{ subnet: 10.213.7.0/24, gateway: 10.213.7.1, aux_addresses: { printer: 10.213.7.9 } }] }
";
    let (spec, ..) = read(&app, text, &[]);
    let release = release(&app, spec);
    app.run(&release, "db", 1).await;
    app.launch(&release, "web", 3).await.unwrap();
    let found = lines(&app, 3).await;
    assert_eq!(found.iter().filter(|line| *line == "10.213.7.200").count(), 9, "three names for each: {found:?}");
    let network = app.docker.inspect_network(&format!("{}_back", app.name), None).await.unwrap();
    let network = serde_json::to_value(network).unwrap();
    assert_eq!((&network["Internal"], &network["Labels"]["of.network"]), (&json!(true), &json!("yes")));
    assert_eq!(network["IPAM"]["Config"][0]["Subnet"], "10.213.7.0/24");
    let addresses: Vec<String> =
        app.instances().await.into_iter().filter_map(|instance| Some(instance.address?.to_string())).collect();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    assert_eq!(addresses.iter().filter(|address| *address == "10.213.7.200").count(), 1, "{addresses:?}");
}

#[tokio::test]
async fn a_udp_port_leads_straight_to_the_container() {
    let app = TestApp::new("udp").await;
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text =
        format!("services: {{dns: {{image: x, ports: [\"127.0.0.1:{free}:5353/udp\"], command: [sleep, '600']}}}}");
    let (spec, ..) = read(&app, &text, &[]);
    let release = release(&app, spec);
    assert!(release.services["dns"].is_exclusive());
    app.run(&release, "dns", 1).await;
    let dns = app.instances().await.remove(0);
    let ports = app.inspect(dns.id.as_str()).await.network_settings.unwrap().ports.unwrap();
    let binding = ports["5353/udp"].clone().unwrap().remove(0);
    assert_eq!((binding.host_ip.as_deref(), binding.host_port), (Some("127.0.0.1"), Some(free.to_string())));
}

#[tokio::test]
async fn what_the_engine_cannot_do_is_said_before() {
    let app = TestApp::new("cannot").await;
    let text = "
services:
  own: { image: x, platform: linux/amd64 }
  other: { image: x, platform: linux/s390x }
  root: { image: x, read_only: true, configs: [c] }
configs: { c: { content: x } }
";
    let (spec, ..) = read(&app, text, &[]);
    let problems = app.orchestrator.check(&spec).await.unwrap().to_string();
    let lines: Vec<&str> = problems.lines().collect();
    assert!(problems.contains("services.other.platform: the service is for linux/s390x"), "{lines:?}");
    assert!(problems.contains("services.root.files[0]"), "{lines:?}");
    assert!(!problems.contains("services.own"), "{lines:?}");
}
