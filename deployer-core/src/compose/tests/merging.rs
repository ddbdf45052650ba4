//! Two files or services become one, key by key.

use super::show;
use crate::compose::budget::Budget;
use crate::compose::merge::{merge, settle};
use crate::compose::node::Node;
use crate::compose::report::Report;
use crate::compose::source::parse;

fn tree(text: &str) -> Node {
    let mut tree =
        parse(text, 0, &mut Budget::default()).unwrap_or_else(|faults| panic!("{text}: {faults:?}")).remove(0);
    settle(&mut tree);
    tree
}

fn merged(report: &mut Report, base: &str, over: &str, path: &[&str]) -> Node {
    let over = parse(over, 0, &mut Budget::default()).unwrap_or_else(|faults| panic!("{over}: {faults:?}")).remove(0);
    let mut merged = merge(report, tree(base), over, path);
    settle(&mut merged);
    merged
}

#[test]
fn the_keys_of_a_service_are_merged_as_compose_does() {
    for (base, over, expected) in [
        // The usual way.
        ("{image: a, user: u}", "{image: b}", "{image: b, user: u}"),
        ("{image: a}", "{image: }", "{image: a}"),
        ("{image: }", "{image: a}", "{image: a}"),
        ("{deploy: {replicas: 1, mode: x}}", "{deploy: {replicas: 2}}", "{deploy: {replicas: 2, mode: x}}"),
        ("{security_opt: [a, b]}", "{security_opt: [b, c]}", "{security_opt: [a, b, b, c]}"),
        ("{x-a: {b: [1]}}", "{x-a: {b: [2], c: 3}}", "{x-a: {b: [1, 2], c: 3}}"),
        // What a later value replaces.
        ("{command: [a, b]}", "{command: c}", "{command: c}"),
        ("{command: a}", "{command: }", "{command: }"),
        ("{entrypoint: [a]}", "{entrypoint: [b]}", "{entrypoint: [b]}"),
        (
            "{healthcheck: {test: [CMD, a], retries: 3}}",
            "{healthcheck: {test: [CMD, b]}}",
            "{healthcheck: {test: [CMD, b], retries: 3}}",
        ),
        (
            "{ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}}",
            "{ulimits: {nofile: {soft: 4}, nproc: {soft: 5}}}",
            "{ulimits: {nofile: {soft: 4}, nproc: {soft: 5}}}",
        ),
        // Names with values.
        ("{environment: {A: 1, B: 2}}", "{environment: {B: 3, C: 4}}", "{environment: {A: 1, B: 3, C: 4}}"),
        ("{environment: [A=1, B=2]}", "{environment: [B=3, C]}", "{environment: [A=1, B=3, C]}"),
        ("{environment: {A: 1, B: 2}}", "{environment: [B=x=y, C=, D]}", "{environment: {A: 1, B: x=y, C: '', D: }}"),
        ("{environment: [A=1, B]}", "{environment: {A: 2}}", "{environment: {A: 2, B: }}"),
        ("{environment: {A: 1}}", "{environment: {A: }}", "{environment: {A: }}"),
        ("{environment: {A: 1}}", "{environment: }", "{environment: {A: 1}}"),
        ("{labels: [a=1]}", "{labels: {a: 2}}", "{labels: {a: 2}}"),
        ("{sysctls: [a=1]}", "{sysctls: {b: 1}}", "{sysctls: {a: 1, b: 1}}"),
        ("{annotations: {a: 1}}", "{annotations: [a=2]}", "{annotations: {a: 2}}"),
        // `build`, as text or mapping.
        ("{build: .}", "{build: ./a}", "{build: {context: ./a}}"),
        ("{build: .}", "{build: {target: t}}", "{build: {context: ., target: t}}"),
        ("{build: {context: ., args: {A: 1}}}", "{build: ./b}", "{build: {context: ./b, args: {A: 1}}}"),
        ("{build: {args: [A=1]}}", "{build: {args: {A: 2}}}", "{build: {args: {A: 2}}}"),
        ("{build: {tags: [a, b]}}", "{build: {tags: [b, c]}}", "{build: {tags: [a, b, c]}}"),
        (
            "{build: {additional_contexts: [a=./a]}}",
            "{build: {additional_contexts: {b: ./b}}}",
            "{build: {additional_contexts: {a: ./a, b: ./b}}}",
        ),
        // Names with settings.
        ("{networks: [a, b]}", "{networks: [b, c]}", "{networks: [a, b, c]}"),
        ("{networks: [a, b]}", "{networks: {b: {aliases: [x]}}}", "{networks: {a: , b: {aliases: [x]}}}"),
        ("{networks: {a: {aliases: [x]}}}", "{networks: [a]}", "{networks: {a: {aliases: [x]}}}"),
        (
            "{networks: {a: {aliases: [x, y]}}}",
            "{networks: {a: {aliases: [y, z]}}}",
            "{networks: {a: {aliases: [x, y, z]}}}",
        ),
        ("{depends_on: [a]}", "{depends_on: [a, b]}", "{depends_on: [a, b]}"),
        (
            "{depends_on: [a]}",
            "{depends_on: {a: {condition: service_healthy}}}",
            "{depends_on: {a: {condition: service_healthy, required: true}}}",
        ),
        (
            "{depends_on: {a: {condition: service_healthy}}}",
            "{depends_on: {a: {required: false}}}",
            "{depends_on: {a: {condition: service_healthy, required: false}}}",
        ),
        (
            "{depends_on: {a: {condition: service_healthy, restart: true}}}",
            "{depends_on: [a]}",
            "{depends_on: {a: {condition: service_started, restart: true, required: true}}}",
        ),
        ("{models: [a]}", "{models: {a: {endpoint_var: X}}}", "{models: {a: {endpoint_var: X}}}"),
        // Lists whose items have a key.
        ("{volumes: ['a:/x', 'b:/y']}", "{volumes: ['c:/x:ro']}", "{volumes: ['c:/x:ro', 'b:/y']}"),
        (
            "{volumes: ['a:/x', './b:/y']}",
            "{volumes: [{type: tmpfs, target: /x}, '/z']}",
            "{volumes: [{type: tmpfs, target: /x}, './b:/y', '/z']}",
        ),
        (
            "{volumes: [{type: bind, source: a, target: /x, read_only: true}]}",
            "{volumes: ['c:/x']}",
            "{volumes: ['c:/x']}",
        ),
        (
            "{devices: ['/dev/a:/dev/x']}",
            "{devices: ['/dev/b:/dev/x', /dev/y]}",
            "{devices: ['/dev/b:/dev/x', /dev/y]}",
        ),
        (
            "{secrets: [foo, bar]}",
            "{secrets: [{source: zot, target: /run/secrets/foo}]}",
            "{secrets: [{source: zot, target: /run/secrets/foo}, bar]}",
        ),
        ("{configs: [a]}", "{configs: [{source: b, target: /a}]}", "{configs: [{source: b, target: /a}]}"),
        ("{env_file: a.env}", "{env_file: [b.env, a.env]}", "{env_file: [a.env, b.env]}"),
        (
            "{env_file: [b.env, a.env]}",
            "{env_file: [{path: a.env, required: false}]}",
            "{env_file: [b.env, {path: a.env, required: false}]}",
        ),
        ("{dns: [8.8.8.8, 9.9.9.9]}", "{dns: 9.9.9.9}", "{dns: [8.8.8.8, 9.9.9.9]}"),
        ("{dns_search: a}", "{dns_search: b}", "{dns_search: [a, b]}"),
        ("{tmpfs: /a}", "{tmpfs: ['/b', '/a:size=1m']}", "{tmpfs: ['/a:size=1m', '/b']}"),
        ("{expose: [80, 81]}", "{expose: ['81', 82]}", "{expose: [80, '81', 82]}"),
        ("{ports: [80]}", "{ports: [81]}", "{ports: [80, 81]}"),
        ("{cap_add: [A]}", "{cap_add: [A, B]}", "{cap_add: [A, B]}"),
        ("{profiles: [a]}", "{profiles: [a, b]}", "{profiles: [a, b]}"),
        ("{links: [a, b]}", "{links: ['b:c', a=d]}", "{links: [a=d, b, 'b:c']}"),
        ("{external_links: [a]}", "{external_links: [a]}", "{external_links: [a, a]}"),
        ("{label_file: a}", "{label_file: b}", "{label_file: [a, b]}"),
        (
            "{extra_hosts: [a=1.1.1.1]}",
            "{extra_hosts: ['a:1.1.1.1', a=2.2.2.2]}",
            "{extra_hosts: ['a:1.1.1.1', a=2.2.2.2]}",
        ),
        (
            "{extra_hosts: {a: 1.1.1.1}}",
            "{extra_hosts: {b: 2.2.2.2, a: [1.1.1.1, 3.3.3.3]}}",
            "{extra_hosts: [a=1.1.1.1, a=3.3.3.3, b=2.2.2.2]}",
        ),
        // `logging`, by its driver.
        (
            "{logging: {driver: d, options: {a: 1}}}",
            "{logging: {driver: d, options: {b: 2}}}",
            "{logging: {driver: d, options: {a: 1, b: 2}}}",
        ),
        (
            "{logging: {driver: d, options: {a: 1}}}",
            "{logging: {driver: e, options: {b: 2}}}",
            "{logging: {driver: e, options: {b: 2}}}",
        ),
        (
            "{logging: {options: {a: 1}}}",
            "{logging: {driver: e, options: {b: 2}}}",
            "{logging: {options: {a: 1, b: 2}, driver: e}}",
        ),
        // Ours.
        (
            "{x-deployer: {strategy: rolling}}",
            "{x-deployer: {strategy: recreate}}",
            "{x-deployer: {strategy: {type: recreate}}}",
        ),
        (
            "{x-deployer: {strategy: {type: rolling, surge: 2}}}",
            "{x-deployer: {strategy: {unavailable: 1}}}",
            "{x-deployer: {strategy: {type: rolling, surge: 2, unavailable: 1}}}",
        ),
        (
            "{x-deployer: {strategy: {type: rolling, surge: 2}}}",
            "{x-deployer: {strategy: {type: blue-green, bake: 1s}}}",
            "{x-deployer: {strategy: {type: blue-green, bake: 1s}}}",
        ),
        (
            "{x-deployer: {gates: [{name: a, smoke: {}}, {name: b, approval: {}}]}}",
            "{x-deployer: {gates: [{name: a, smoke: {path: /x}}]}}",
            "{x-deployer: {gates: [{name: a, smoke: {path: /x}}, {name: b, approval: {}}]}}",
        ),
        // Tags.
        ("{ports: [80], image: a}", "{ports: !reset [], image: b}", "{image: b}"),
        ("{image: a}", "{ports: !reset []}", "{image: a}"),
        ("{environment: {A: 1, B: 2}}", "{environment: {A: !reset null}}", "{environment: {B: 2}}"),
        ("{environment: [A=1, B=2]}", "{environment: {A: !reset null}}", "{environment: {B: 2}}"),
        ("{ports: [80]}", "{ports: !override [81]}", "{ports: [81]}"),
        ("{build: {context: ., target: t}}", "{build: !override ./b}", "{build: ./b}"),
        ("{environment: {A: 1}}", "{environment: !override {B: 2}}", "{environment: {B: 2}}"),
        ("{deploy: {mode: x}}", "{deploy: !override {replicas: 1, mode: !reset y}}", "{deploy: {replicas: 1}}"),
    ] {
        let mut report = Report::default();
        let found = merged(&mut report, base, over, &["services", "web"]);
        assert_eq!(show(&found), show(&tree(expected)), "{base} and {over}");
        assert_eq!(report.finish().0, [], "{base} and {over}");
    }
}

#[test]
fn top_level_parts_are_merged() {
    for (base, over, expected) in [
        ("{services: {a: {image: x}}}", "{services: {b: {image: y}}}", "{services: {a: {image: x}, b: {image: y}}}"),
        ("{services: {a: {image: x}, b: }}", "{services: {a: !reset }}", "{services: {b: }}"),
        (
            "{volumes: {v: {labels: [a=1]}}}",
            "{volumes: {v: {labels: {b: 2}}}}",
            "{volumes: {v: {labels: {a: 1, b: 2}}}}",
        ),
        ("{networks: {n: {external: true}}}", "{networks: {n: !override {}}}", "{networks: {n: {}}}"),
        (
            "{networks: {n: {ipam: {config: [{subnet: s, aux_addresses: {a: 1}}, {subnet: t}]}}}}",
            "{networks: {n: {ipam: {config: [{subnet: s, gateway: g, aux_addresses: {b: 2}}, {subnet: u}]}}}}",
            "{networks: {n: {ipam: {config: [{subnet: s, aux_addresses: {a: 1, b: 2}, gateway: g}, {subnet: t}, {subnet: u}]}}}}",
        ),
        ("{networks: {n: }}", "{networks: {n: {internal: true}}}", "{networks: {n: {internal: true}}}"),
    ] {
        let mut report = Report::default();
        let found = merged(&mut report, base, over, &[]);
        assert_eq!(show(&found), show(&tree(expected)), "{base} and {over}");
        assert_eq!(report.finish().0, [], "{base} and {over}");
    }
}

#[test]
fn values_of_different_shapes_are_refused_with_both_places() {
    for (base, over, message) in [
        ("{deploy: {replicas: 1}}", "{deploy: x}", "a plain value cannot be merged with a mapping"),
        ("{ports: [80]}", "{ports: {a: b}}", "a mapping cannot be merged with a list"),
        ("{environment: {A: 1}}", "{environment: [[x]]}", "a list cannot be merged with a mapping"),
        ("{dns: [x]}", "{dns: {a: b}}", "a mapping cannot be merged with a list"),
        ("{image: x}", "{image: [y]}", "a list cannot be merged with a plain value"),
    ] {
        let mut report = Report::default();
        report.files.push("f".to_owned());
        merged(&mut report, base, over, &["services", "web"]);
        let problems = report.finish().0;
        assert_eq!(problems[0].message, message, "{base} and {over}");
        assert!(problems[0].path.starts_with("services.web."), "{problems:?}");
        assert!(problems[0].place.is_some() && problems[0].notes[0].place.is_some(), "{problems:?}");
        assert_eq!(problems.len(), 1);
    }
}

#[test]
fn what_is_twice_in_one_list_stays_there_twice() {
    let mut report = Report::default();
    let found = merged(&mut report, "{volumes: ['a:/x']}", "{volumes: ['b:/x', 'c:/x']}", &["services", "web"]);
    assert_eq!(show(&found), show(&tree("{volumes: ['b:/x', 'c:/x']}")));
}
