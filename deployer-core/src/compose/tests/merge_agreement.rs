//! Holds the merging of files against what Compose's own library, compose-go, makes of them. The cases are those of its
//! tests (`override` and `loader`, July 2026, e70e961) in fewer words: 92 of 94 become the same. Where ours differ, the
//! reason is beside them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{file, given, show};
use crate::compose::ComposeReader;
use crate::compose::budget::Budget;
use crate::compose::cursor::Cursor;
use crate::compose::merge::{merge, settle};
use crate::compose::node::Node;
use crate::compose::report::Report;
use crate::compose::source::parse;
use crate::model::AppSpec;

/// A name, or the key that is merged, two files, and the one that says the same.
type Case = (&'static str, &'static str, &'static str, &'static str);

/// Names with values. The variable `SET` is given.
const FORMS: &[Case] = &[
    ("lists", "[A=1]", "[B=2, E=, SET]", "[A=1, B=2, E=, SET]"),
    ("mappings", "{A: 1}", "{E: '', SET: null, B: 2}", "[A=1, E=, SET, B=2]"),
    ("a mapping and a list", "{A: 1}", "[B=2]", "[A=1, B=2]"),
    ("a list and a mapping", "[A=1, B=2]", "{B: 3, C: 4}", "[A=1, B=3, C=4]"),
    ("numbers", "{A: 1}", "{A: 3}", "[A=3]"),
];

/// The keys of the service of [`file`] with names and values, before and after these.
const PAIRS: &[(&str, &str)] =
    &[("environment: ", ""), ("labels: ", ""), ("sysctls: ", ""), ("build: {args: ", "}"), ("build: {labels: ", "}")];

/// Such keys that leave nothing in the application.
const UNREAD_PAIRS: &[&[&str]] = &[
    &["services", "web", "annotations"],
    &["services", "web", "build", "additional_contexts"],
    &["services", "web", "deploy", "labels"],
];

/// Keys of the service of [`file`].
const KEYS: &[Case] = &[
    ("image", "a", "b", "b"),
    ("extra_hosts", "{a: 10.0.0.1}", "{b: 10.0.0.3, a: [10.0.0.1, 10.0.0.2]}", "[a=10.0.0.1, a=10.0.0.2, b=10.0.0.3]"),
    ("environment", "[A=1, B=2, C=, D, A=3, C, D=]", "", "[A=3, B=2, C, D=]"),
    ("scale", "1", "2", "2"),
    ("command", "say one", "say two", "say two"),
    ("init", "true", "false", "false"),
    ("build", ".", "{context: src}", "{context: src}"),
    ("build", "{tags: ['w:1']}", "{tags: ['w:1', 'x/w:2']}", "{tags: ['w:1', 'x/w:2']}"),
    ("build", "{context: ., tags: ['w:1']}", "{tags: ['x/w:2']}", "{context: ., tags: ['w:1', 'x/w:2']}"),
    (
        "build",
        "{extra_hosts: [a=10.0.0.1, b=10.0.0.2]}",
        "{extra_hosts: [b=10.0.0.3, 'c=::1']}",
        "{extra_hosts: [a=10.0.0.1, b=10.0.0.2, b=10.0.0.3, 'c=::1']}",
    ),
    ("cap_add", "[BPF, CHOWN]", "[KILL, CHOWN]", "[BPF, CHOWN, KILL]"),
    ("cap_drop", "[NET_ADMIN, SYS_ADMIN]", "[NET_ADMIN, FOWNER]", "[NET_ADMIN, SYS_ADMIN, FOWNER]"),
    (
        "depends_on",
        "{db: {condition: service_healthy}}",
        "{db: {required: false}}",
        "{db: {condition: service_healthy}}",
    ),
    (
        "devices",
        "['/dev/a:/dev/a', '/dev/b:/dev/b']",
        "['/dev/c:/dev/c']",
        "['/dev/a:/dev/a', '/dev/b:/dev/b', '/dev/c:/dev/c']",
    ),
    ("devices", "['/dev/a:/dev/a', '/dev/b:/dev/b']", "['/dev/x:/dev/a']", "['/dev/x:/dev/a', '/dev/b:/dev/b']"),
    ("dns", "[8.8.8.8]", "[9.9.9.9]", "[8.8.8.8, 9.9.9.9]"),
    ("dns", "[8.8.8.8, 1.1.1.1, 9.9.9.9]", "9.9.9.9", "[8.8.8.8, 1.1.1.1, 9.9.9.9]"),
    ("dns_opt", "[use-vc]", "[no-tld-query]", "[use-vc, no-tld-query]"),
    ("dns_opt", "[use-vc, no-tld-query]", "[no-tld-query]", "[use-vc, no-tld-query]"),
    ("dns_search", "[a.example]", "[b.example]", "[a.example, b.example]"),
    ("dns_search", "[a.example, b.example]", "b.example", "[a.example, b.example]"),
    ("env_file", "[a.env]", "[b.env, c.env]", "[a.env, b.env, c.env]"),
    ("env_file", "a.env", "b.env", "[a.env, b.env]"),
    ("env_file", "a.env", "[b.env, a.env]", "[a.env, b.env]"),
    ("env_file", "[b.env, a.env]", "a.env", "[b.env, a.env]"),
    ("env_file", "[b.env, a.env]", "[{path: a.env, required: true}]", "[b.env, {path: a.env, required: true}]"),
    ("environment", "[A=1, B=2, C=, D]", "[A=3, C, D=]", "[A=3, B=2, C, D=]"),
    ("extra_hosts", "[a=10.0.0.1]", "[b=10.0.0.3, a=10.0.0.1, a=10.0.0.2]", "[a=10.0.0.1, b=10.0.0.3, a=10.0.0.2]"),
    ("extra_hosts", "{a: 10.0.0.1}", "[b=10.0.0.3, a=10.0.0.1, a=10.0.0.2]", "[a=10.0.0.1, b=10.0.0.3, a=10.0.0.2]"),
    ("logging", "{driver: a, options: {x: 1}}", "{driver: a, options: {x: 2}}", "{driver: a, options: {x: 2}}"),
    ("logging", "{driver: a, options: {x: 1}}", "{driver: b, options: {y: 2}}", "{driver: b, options: {y: 2}}"),
    ("logging", "{options: {x: 1}}", "{options: {y: 2}}", "{options: {x: 1, y: 2}}"),
    ("mem_limit", "134217728", "'256m'", "256m"),
    ("mem_limit", "'256m'", "134217728", "134217728"),
    ("networks", "[front, backend]", "[front]", "{front: null, backend: null}"),
    ("networks", "[front]", "{front: {aliases: [a, b]}}", "{front: {aliases: [a, b]}}"),
    (
        "networks",
        "{front: {aliases: [a, b]}, backend: {aliases: [a, c]}}",
        "{front: {aliases: [c, a]}}",
        "{front: {aliases: [a, b, c]}, backend: {aliases: [a, c]}}",
    ),
    (
        "networks",
        "{front: {link_local_ips: [169.254.0.1, 169.254.0.3]}}",
        "{front: {link_local_ips: [169.254.0.2, 169.254.0.3]}}",
        "{front: {link_local_ips: [169.254.0.1, 169.254.0.3, 169.254.0.2]}}",
    ),
    (
        "networks",
        "[front, backend]",
        "{backend: {aliases: [a, b], link_local_ips: [169.254.0.1]}, default: {aliases: [c]}}",
        "{front: null, backend: {aliases: [a, b], link_local_ips: [169.254.0.1]}, default: {aliases: [c]}}",
    ),
    (
        "ports",
        "['9080:80', '9081:81', '5000', '6060:6060/udp']",
        "['9080:80', '9080:6060/udp']",
        "['9080:80', '9081:81', '5000', '6060:6060/udp', '9080:6060/udp']",
    ),
    (
        "ports",
        "[{target: 80, host_ip: 127.0.0.1, published: '8080', mode: host}, {target: 81, published: '8080'}]",
        "[{target: 80, host_ip: 127.0.0.2, published: '8080'}, {target: 81, published: '8080', protocol: tcp}]",
        "['127.0.0.1:8080:80', '8080:81', '127.0.0.2:8080:80']",
    ),
    ("tmpfs", "[/a]", "[/b, /c, /a]", "[/a, /b, /c]"),
    ("tmpfs", "/a", "/b", "[/a, /b]"),
    ("tmpfs", "/a", "[/b, /a]", "[/a, /b]"),
    ("tmpfs", "[/b, /a]", "/a", "[/b, /a]"),
    (
        "volumes",
        "['data:/a', {type: bind, source: ./b, target: /b}]",
        "['more:/c']",
        "['data:/a', './b:/b', 'more:/c']",
    ),
    ("volumes", "['./src:/src']", "['./src:/src']", "['./src:/src']"),
    ("volumes", "['.:/a', 'data:/b']", "['more:/a']", "['more:/a', 'data:/b']"),
    // Not from its tests, but from its table of rules.
    ("build", ".", "{target: t}", "{context: ., target: t}"),
    ("build", "{context: ., target: t}", "./b", "{context: ./b, target: t}"),
    ("entrypoint", "[a, b]", "[c]", "[c]"),
    ("expose", "[80, 81]", "['81', 82]", "[80, 81, 82]"),
    ("healthcheck", "{test: [CMD, a], retries: 5}", "{test: [CMD, b]}", "{test: [CMD, b], retries: 5}"),
    ("security_opt", "[a=1]", "[b=2, a=1]", "[a=1, b=2, a=1]"),
    ("storage_opt", "{size: 1G}", "{x: y}", "{size: 1G, x: y}"),
    ("user", "u", "null", "u"),
];

/// Whole files. The first of two is `1.yaml`.
const FILES: &[Case] = &[
    (
        "a secret in the place of another",
        "services: {web: {image: w, secrets: [a, b, c]}}\nsecrets: {a: &e {external: true}, b: *e, c: *e}",
        "services: {web: {secrets: [{source: c, target: /run/secrets/a}]}}",
        "services: {web: {image: w, secrets: [{source: c, target: /run/secrets/a}, b, c]}}\n\
         secrets: {a: &e {external: true}, b: *e, c: *e}",
    ),
    (
        "subnets",
        "services: {web: {image: w}}\nnetworks: {n: {labels: {d: D, e: E, f: ''}, ipam: {options: {x: a, y: b}, \
         config: [{subnet: 10.1.0.0/16, ip_range: 10.1.5.0/24, gateway: 10.1.5.254, \
         aux_addresses: {a: 10.1.1.5, b: 10.1.1.6, c: 10.1.1.7}}]}}}",
        "networks: {n: {labels: [g=G, d=D, f=], ipam: {options: {z: c, y: b}, \
         config: [{subnet: 10.1.0.0/16, ip_range: 10.1.5.1/24, gateway: 10.1.5.254, \
         aux_addresses: {a: 10.1.1.5, b: 10.1.1.4, d: 10.1.1.9}}, \
         {subnet: 10.2.0.0/16, gateway: 10.2.0.1}]}}, m: null}",
        "services: {web: {image: w}}\nnetworks: {n: {labels: [e=E, d=D, f=, g=G], ipam: {options: {x: a, y: b, z: c}, \
         config: [{subnet: 10.1.0.0/16, ip_range: 10.1.5.1/24, gateway: 10.1.5.254, \
         aux_addresses: {a: 10.1.1.5, b: 10.1.1.4, c: 10.1.1.7, d: 10.1.1.9}}, \
         {subnet: 10.2.0.0/16, gateway: 10.2.0.1}]}}, m: null}",
    ),
    (
        "a dependency that may be left out",
        "services: {web: {image: w, depends_on: [db]}, db: {image: d, profiles: [other]}}",
        "services: {web: {depends_on: {db: {condition: service_healthy, required: false}}}}",
        "services: {web: {image: w}}",
    ),
    (
        "a build and a variable that are reset",
        "services: {web: {build: {context: ., dockerfile: D}, environment: {A: 1}}}",
        "services: {web: {image: w, build: !reset null, environment: {A: !reset null}}}",
        "services: {web: {image: w}}",
    ),
    (
        "a network that is reset",
        "services: {web: {image: w}}\nnetworks: {n: {name: there, external: true}}",
        "networks: {n: !reset {}}",
        "services: {web: {image: w}}",
    ),
    (
        "a network that is replaced",
        "services: {web: {image: w}}\nnetworks: {n: {name: there, external: true}}",
        "networks: {n: !override {}}",
        "services: {web: {image: w}}\nnetworks: {n: {}}",
    ),
    (
        "a reset in a shared mapping",
        "services: {a: {image: a, ports: ['8080:80']}, b: {image: b, ports: ['9090:90']}}",
        "x-none: &none {ports: !reset []}\nservices: {a: {<<: *none}, b: {<<: *none}}",
        "services: {a: {image: a}, b: {image: b}}",
    ),
    (
        "a reset in a mapping in another one",
        "services: {web: {image: w, ports: ['8080:80']}}",
        "x-in: &in {ports: !reset []}\nx-out: &out {<<: *in}\nservices: {web: {<<: *out}}",
        "services: {web: {image: w}}",
    ),
    (
        "a shared reset",
        "services: {a: {image: a, ports: ['8080:80']}, b: {image: b, ports: ['9090:90']}}",
        "x-none: &none !reset []\nservices: {a: {ports: *none}, b: {ports: *none}}",
        "services: {a: {image: a}, b: {image: b}}",
    ),
    (
        "a shared override",
        "services: {web: {image: w}}\nnetworks: {m: {name: x, external: true}, n: {name: y, external: true}}",
        "x-own: &own !override {}\nnetworks: {m: *own, n: *own}",
        "services: {web: {image: w}}\nnetworks: {m: {}, n: {}}",
    ),
    (
        "overrides between services that extend each other",
        "services: {base: {image: w, volumes: ['/a:/a'], networks: [a]}, \
         middle: {extends: base, volumes: !override ['/b:/b'], networks: !override [b]}}\n\
         networks: {a: null, b: null, c: null}",
        "services: {web: {extends: {file: 1.yaml, service: middle}, volumes: ['/c:/c'], networks: !override [c]}}",
        "services: {base: {image: w, volumes: ['/a:/a'], networks: [a]}, \
         middle: {image: w, volumes: ['/b:/b'], networks: [b]}, \
         web: {image: w, volumes: ['/b:/b', '/c:/c'], networks: [c]}}\n\
         networks: {a: null, b: null, c: null}",
    ),
    (
        "an override that is extended in the same file",
        "services: {base: {image: i}, one: {image: i}, two: {extends: {service: one}}, \
         a: {image: i, depends_on: [one]}, \
         b: {extends: a, depends_on: !override [two]}, c: {extends: {service: b}, depends_on: [base]}}",
        "",
        "services: {base: {image: i}, one: {image: i}, two: {image: i}, a: {image: i, depends_on: [one]}, \
         b: {image: i, depends_on: [two]}, c: {image: i, depends_on: [base, two]}}",
    ),
    (
        "an override of what another service has",
        "services: {a: {image: a, depends_on: [c]}, b: {extends: a, depends_on: !override [a]}, c: {image: c}}",
        "",
        "services: {a: {image: a, depends_on: [c]}, b: {image: a, depends_on: [a]}, c: {image: c}}",
    ),
    (
        "an override in a shared service",
        "services: {a: {image: w, configs: [{source: c, target: /x/1}]}, \
         b: &b {extends: a, configs: !override [{source: c, target: /y}]}, d: {<<: *b}}\nconfigs: {c: {content: text}}",
        "",
        "services: {a: {image: w, configs: [{source: c, target: /x/1}]}, \
         b: &b {image: w, configs: [{source: c, target: /y}]}, d: *b}\nconfigs: {c: {content: text}}",
    ),
    (
        "a reset in a service that is extended",
        "services: {a: {image: w, command: x}, b: {extends: {service: a}, command: !reset null}}",
        "services: {web: {extends: {file: 1.yaml, service: b}}}",
        "services: {a: {image: w, command: x}, b: {image: w}, web: {image: w}}",
    ),
    (
        "ports of the same service, extended",
        "services: {web: {image: w, ports: ['8080:8080']}}",
        "services: {web: {extends: {file: 1.yaml, service: web}}}",
        "services: {web: {image: w, ports: ['8080:8080']}}",
    ),
    (
        "another command than that of the extended service",
        "services: {a: {image: v, extends: {service: b}, command: say one}, b: {image: w, command: say two}}",
        "",
        "services: {a: {image: v, command: say one}, b: {image: w, command: say two}}",
    ),
    (
        "an included service",
        "include: [included.yaml]",
        "services: {web: {image: x}}",
        "services: {web: {image: x, environment: {A: 1}}}",
    ),
    (
        "two documents",
        "services: {web: {image: a, user: u}}\n---\nservices: {web: {image: b}}",
        "",
        "services: {web: {image: b, user: u}}",
    ),
    ("an empty file", "services: {web: {image: w}}", "", "services: {web: {image: w}}"),
];

/// Keys of a service, or else whole files, that leave nothing in the application or are refused. They are compared as
/// trees.
const TREES: &[Case] = &[
    ("links", "[a, b]", "[b=c]", "[a, b=c]"),
    ("profiles", "[a, b]", "[b, c]", "[a, b, c]"),
    (
        "ulimits",
        "{a: {soft: 2, hard: 4}, b: 6, c: {soft: 2, hard: 4}}",
        "{a: {soft: 1, hard: 4}, b: {soft: 6}, c: {hard: 6}}",
        "{a: {soft: 1, hard: 4}, b: {soft: 6}, c: {hard: 6}}",
    ),
    ("models", "[a, b]", "[c]", "[a, b, c]"),
    ("models", "[a, b]", "{c: {model_var: C}}", "{a: null, b: null, c: {model_var: C}}"),
    ("models", "{a: {endpoint_var: A}}", "{b: {endpoint_var: B}}", "{a: {endpoint_var: A}, b: {endpoint_var: B}}"),
    (
        "models",
        "{a: {endpoint_var: A, model_var: B}}",
        "{a: {endpoint_var: C, model_var: D}}",
        "{a: {endpoint_var: C, model_var: D}}",
    ),
    (
        "",
        "models: {a: {model: x, runtime_flags: [--f]}}",
        "models: {b: {model: y, runtime_flags: [--g]}}",
        "models: {a: {model: x, runtime_flags: [--f]}, b: {model: y, runtime_flags: [--g]}}",
    ),
    (
        "",
        "services: {a: {models: [x]}, b: {models: {y: {model_var: Y}}}}\nmodels: {x: {model: l}, y: {model: m}}",
        "services: {a: {models: [z]}, b: {models: {x: {model_var: X}}}}\nmodels: {z: {model: n}, x: {model: o}}",
        "services: {a: {models: [x, z]}, b: {models: {y: {model_var: Y}, x: {model_var: X}}}}\n\
         models: {x: {model: o}, y: {model: m}, z: {model: n}}",
    ),
    (
        "",
        "services: {a: {models: [x]}}\nmodels: {x: {model: l}}",
        "services: {b: {models: [x]}}\nmodels: {x: {model: l}}",
        "services: {a: {models: [x]}, b: {models: [x]}}\nmodels: {x: {model: l}}",
    ),
];

/// Keys of the service of [`file`] where ours differ from Compose, with a word of the complaint.
const OTHERS: &[Case] = &[
    // It is no key of the specification, which has `platforms`.
    ("build", "{platform: [linux/amd64]}", "{platform: [linux/arm64]}", "`platform` is no key of `build`"),
    // That a path is there twice is a mistake; with Compose the later one counts.
    ("volumes", "['.:/a', 'data:/b', 'more:/a']", "", "/a is mounted twice"),
];

/// A directory with what the files refer to. Which file of variables comes first is seen in pairs.
fn directory() -> TempDir {
    given(&[
        ("a.env", "AB=a\nAC=a\n"),
        ("b.env", "AB=b\nBC=b\n"),
        ("c.env", "AC=c\nBC=c\n"),
        ("included.yaml", "services: {web: {image: w, environment: {A: 1}}}\n"),
    ])
}

/// Reads the texts as files, each overriding those before it.
fn read(dir: &TempDir, texts: &[&str]) -> Result<AppSpec, String> {
    let write = |(number, text): (usize, &&str)| {
        let path = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let paths: Vec<PathBuf> = (1..).zip(texts).map(write).collect();
    let reader = ComposeReader::new().with_project_name("shop").with_env("SET", "given");
    reader.read_files(paths).map(|app| app.spec).map_err(|problems| problems.to_string())
}

fn tree(text: &str) -> Node {
    parse(text, 0, &mut Budget::default()).unwrap_or_else(|faults| panic!("{text}: {faults:?}")).remove(0)
}

fn merged(first: &str, second: &str, path: &[&str]) -> Node {
    let mut report = Report::default();
    let mut merged = merge(&mut report, tree(first), tree(second), path);
    settle(&mut merged);
    assert_eq!(report.finish().0, [], "{first} and {second}");
    merged
}

fn pairs(node: &Node) -> BTreeMap<String, Option<String>> {
    let pairs = Report::default().pairs(&Cursor::root(node));
    pairs.into_iter().map(|(name, value, _)| (name, value)).collect()
}

#[test]
fn files_are_merged_as_compose_does() {
    let mut cases: Vec<(String, [String; 3])> = Vec::new();
    for (before, after) in PAIRS {
        for (name, first, second, one) in FORMS.iter().copied() {
            let texts = [first, second, one].map(|form| file(&format!("{before}{form}{after}")));
            cases.push((format!("{before}{name}"), texts));
        }
    }
    for (key, first, second, one) in KEYS.iter().copied() {
        cases.push((key.to_owned(), [first, second, one].map(|value| file(&format!("{key}: {value}")))));
    }
    for (name, first, second, one) in FILES.iter().copied() {
        cases.push((name.to_owned(), [first, second, one].map(str::to_owned)));
    }
    let dir = directory();
    let mut wrong = Vec::new();
    for (name, [first, second, one]) in &cases {
        let expected = read(&dir, &[one]).unwrap_or_else(|problems| panic!("{name}:\n{one}\n{problems}"));
        match read(&dir, &[first, second]) {
            Ok(found) if found == expected => {}
            found => wrong.push(format!("{name}:\n{first}\n{second}\n{found:#?}, not {expected:#?}")),
        }
    }
    for path in UNREAD_PAIRS {
        for (name, first, second, one) in FORMS.iter().copied() {
            let (found, expected) = (pairs(&merged(first, second, path)), pairs(&tree(one)));
            if found != expected {
                wrong.push(format!("{path:?}, {name}: {found:?}, not {expected:?}"));
            }
        }
    }
    for (key, first, second, one) in TREES.iter().copied() {
        let web = ["services", "web", key];
        let path: &[&str] = if key.is_empty() { &[] } else { &web };
        let (found, expected) = (show(&merged(first, second, path)), show(&tree(one)));
        if found != expected {
            wrong.push(format!("{key}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_differs_from_compose_is_known() {
    let dir = directory();
    for (key, first, second, word) in OTHERS {
        let web = |value: &str| file(&format!("{key}: {value}"));
        let problems = read(&dir, &[&web(first), &web(second)]).unwrap_err();
        assert!(problems.contains(word), "{key}: {problems}");
    }
}
