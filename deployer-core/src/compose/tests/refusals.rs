//! Nothing is dropped silently.

use super::{complaints, file, lines, read, web_with_warnings};
use crate::compose::keys;

#[test]
fn every_supported_key_is_looked_at() {
    // A list of lists is right for no key, so each key that is read complains about it.
    for key in keys::SERVICE.supported() {
        let value = if key == "image" { "image: [[[]]]".to_owned() } else { format!("{key}: [[[]]]") };
        let found = complaints(&value);
        assert!(found.iter().any(|line| line.starts_with(key)), "{key}: {found:?}");
    }
    for (section, before) in [
        (&keys::BUILD, "build: {"),
        (&keys::DEPLOY, "deploy: {"),
        (&keys::RESOURCES, "deploy: {resources: {"),
        (&keys::LIMITS, "deploy: {resources: {limits: {"),
        (&keys::RESERVATIONS, "deploy: {resources: {reservations: {"),
        (&keys::HEALTHCHECK, "healthcheck: {"),
        (&keys::DEPENDENCY, "depends_on: {db: {"),
        (&keys::ENV_FILE, "env_file: [{"),
        (&keys::EXTENDS, "extends: {service: db, "),
        (&keys::BLKIO, "blkio_config: {"),
        (&keys::RATE, "blkio_config: {device_read_bps: [{"),
        (&keys::WEIGHT, "blkio_config: {weight_device: [{"),
        (&keys::DEVICE, "devices: [{"),
        (&keys::DEVICE_REQUEST, "gpus: [{"),
        (&keys::DEVICE_REQUEST, "deploy: {resources: {reservations: {devices: [{"),
        (&keys::RESTART_POLICY, "deploy: {restart_policy: {"),
        (&keys::FILE, "configs: [{"),
        (&keys::FILE, "secrets: [{"),
        (&keys::LOGGING, "logging: {"),
        (&keys::ULIMIT, "ulimits: {nofile: {"),
        (&keys::MOUNT_BIND, "volumes: [{type: bind, source: /x, target: /x, bind: {"),
        (&keys::MOUNT_VOLUME, "volumes: [{type: volume, target: /x, volume: {"),
        (&keys::PORT, "ports: [{"),
        (&keys::MOUNT, "volumes: [{"),
        (&keys::MOUNT_TMPFS, "volumes: [{type: tmpfs, target: /x, tmpfs: {"),
        (&keys::SERVICE_NETWORK, "networks: {backend: {"),
        (&keys::BUILD_SECRET, "build: {secrets: [{"),
        (&keys::DEPLOYER, "x-deployer: {"),
        (&keys::ROUTE, "x-deployer: {route: {"),
        (&keys::HEALTH, "x-deployer: {health: {"),
        (&keys::HTTP_PROBE, "x-deployer: {health: {http: {"),
        (&keys::TCP_PROBE, "x-deployer: {health: {tcp: {"),
        (&keys::GATE, "x-deployer: {gates: [{"),
        (&keys::SMOKE, "x-deployer: {gates: [{name: x, smoke: {"),
        (&keys::ERROR_RATE, "x-deployer: {gates: [{name: x, error-rate: {"),
        (&keys::LATENCY, "x-deployer: {gates: [{name: x, latency: {"),
        (&keys::APPROVAL, "x-deployer: {gates: [{name: x, approval: {"),
        (&keys::CALLBACK, "x-deployer: {gates: [{name: x, callback: {"),
        (&keys::HOOK, "x-deployer: {hooks: [{"),
        (&keys::CANARY_STEP, "x-deployer: {strategy: {type: canary, steps: [{"),
    ] {
        for key in section.supported() {
            let after: String = before
                .chars()
                .rev()
                .filter(|c| matches!(c, '{' | '['))
                .map(|c| if c == '{' { '}' } else { ']' })
                .collect();
            let text = format!("{before}{key}: [[[]]]{after}");
            let found = complaints(&text);
            assert!(found.iter().any(|line| line.contains(key)), "{text}: {found:?}");
        }
    }
    for (kind, section) in [("rolling", &keys::ROLLING), ("blue-green", &keys::BLUE_GREEN), ("linear", &keys::LINEAR)] {
        for key in section.supported().filter(|key| *key != "type") {
            let text = format!("x-deployer: {{strategy: {{type: {kind}, {key}: [[[]]]}}}}");
            let found = complaints(&text);
            assert!(found.iter().any(|line| line.contains(key)), "{text}: {found:?}");
        }
    }
    for (top, section) in [
        ("networks", &keys::NETWORK),
        ("volumes", &keys::VOLUME),
        ("secrets", &keys::SECRET),
        ("configs", &keys::CONFIG),
    ] {
        for key in section.supported() {
            let text = format!("services: {{web: {{image: x}}}}\n{top}: {{n: {{{key}: [[[]]]}}}}\n");
            let found = lines(&read(&text).unwrap_err());
            assert!(found.iter().any(|line| line.starts_with(&format!("{top}.n.{key}"))), "{text}: {found:?}");
        }
    }
}

#[test]
fn every_other_known_key_is_refused_or_warned_about() {
    for key in keys::SERVICE.refused() {
        let found = complaints(&format!("{key}: x"));
        assert_eq!(found, [format!("{key}: `{key}` is not supported")]);
    }
    for key in keys::SERVICE.ignored() {
        let (_, warnings) = web_with_warnings(&format!("{key}: x"));
        assert_eq!(warnings.len(), 1, "{key}");
        assert!(warnings[0].starts_with(&format!("{key}: `{key}` has no effect: ")), "{warnings:?}");
    }
    assert_eq!(super::web("isolation: false\ntty:\n"), super::web(""), "what is asked for is so anyway");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    for (keys, path, help) in [
        ("imag: x", "services.web.imag", "did you mean `image`?"),
        ("x-deployer: {stratgy: recreate}", "services.web.x-deployer.stratgy", "did you mean `strategy`?"),
        (
            "x-deployer: {health: {min_healthy: 1s}}",
            "services.web.x-deployer.health.min_healthy",
            "did you mean `min-healthy`?",
        ),
        (
            "x-deployer: {x-mine: 1}",
            "services.web.x-deployer.x-mine",
            "`x-deployer` may have `balancing`, `drain`, `gates`, `health`, `hooks`, `route`, `routes`, `scaling`, `secrets`, `strategy`",
        ),
        ("deploy: {replica: 2}", "services.web.deploy.replica", "did you mean `replicas`?"),
    ] {
        let problems = read(&file(keys)).unwrap_err();
        let problem = &problems.0[0];
        assert_eq!((problem.path.as_str(), problem.help.as_deref()), (path, Some(help)));
    }
    let problems = read("servces: {}\nservices: {web: {image: x}}\n").unwrap_err();
    assert_eq!(problems.0[0].help.as_deref(), Some("did you mean `services`?"));
}

#[test]
fn extensions_of_others_are_left_alone() {
    let (_, warnings) = web_with_warnings("x-other: {a: 1}\nbuild: {context: ., x-y: 1}\ndeploy: {x-z: 1}");
    assert_eq!(warnings, [""; 0]);
    assert_eq!(complaints("deploy: {x-deployer: {}}"), ["deploy.x-deployer: `x-deployer` is no key of `deploy`"]);
    let (_, warnings) = web_with_warnings("x-deploy: {a: 1}");
    assert_eq!(warnings, ["x-deploy: `x-deploy` is of no known tool"]);
}

#[test]
fn the_shape_of_the_file_is_checked() {
    for (text, expected) in [
        ("services: {web: {image: x}}\nx-deployer: {}\n", "x-deployer: `x-deployer` is no key of the file"),
        ("- a\n", ": a Compose file is a mapping"),
        ("hello\n", ": a Compose file is a mapping"),
        ("name: shop\n", "services: an application needs at least one service"),
        ("services:\n", "services: an application needs at least one service"),
        ("services: []\n", "services: a mapping is needed here, not a list"),
        ("services: {web: }\n", "services.web: a mapping is needed here, not nothing"),
        ("services: {web: x}\n", "services.web: \"x\" is not a mapping"),
        ("services: {web: {}}\n", "services.web: the service has neither `image` nor `build`"),
        (
            "services: {\"a b\": {image: x}}\n",
            "services.a b: a name is 1 to 63 letters, digits, `-`, `_` and `.`, beginning with a letter or digit",
        ),
        (
            "services: {web: {image: x}}\nnetworks: {\"a/b\": }\n",
            "networks.a/b: a name has letters, digits, `-`, `_` and `.`",
        ),
        ("services: {web: {image: x}}\nsecrets: {s: {driver: x}}\n", "secrets.s.driver: `driver` is not supported"),
        ("services: {web: {image: x}}\nconfigs: {s: {file: ./s}}\n", "configs.s.file: /nowhere/shop/s does not exist"),
        ("services: {web: {image: x}}\ninclude: [a.yaml]\n", "include[0]: there is no file /nowhere/shop/a.yaml"),
        ("services: {web: {image: \"${\"}}\n", "image: the `}` that closes `${` is missing"),
        ("services: {web: {image: \"${TAG:?say which}\"}}\n", "image: the variable TAG is required: say which"),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}\n",
            "services.a.depends_on: services wait for each other: a -> b -> a",
        ),
    ] {
        let found = lines(&read(text).unwrap_err());
        assert_eq!(found.first().map(String::as_str), Some(expected), "{text}: {found:?}");
    }
}

#[test]
fn a_missing_variable_hides_no_other_problem_and_causes_none() {
    let text = "name: Bad\nservices: {web: {image: x, init: \"${NONE:?set it}\", imag: y}}\n";
    let found = lines(&read(text).unwrap_err());
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[1..], ["init: the variable NONE is required: set it", "imag: `imag` is no key of a service"]);
}

#[test]
fn the_manual_names_every_key_of_ours() {
    let manual = include_str!("../../../../docs/compose.md");
    for section in [&keys::DEPLOYER, &keys::HEALTH, &keys::GATE, &keys::SCALING, &keys::SCHEDULE] {
        for key in section.supported() {
            assert!(manual.contains(&format!("`{key}`")) || manual.contains(&format!("{key}:")), "{key}");
        }
    }
}
