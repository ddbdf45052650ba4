//! `volumes` and `tmpfs` of a service.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{Project, formats, keys};
use crate::model::{Mount, MountSource};

/// How mounts are shared with the host.
const PROPAGATIONS: [&str; 6] = ["shared", "slave", "private", "rshared", "rslave", "rprivate"];

pub(super) fn read(report: &mut Report, project: &Project<'_>, service: &Fields<'_>, model: &str) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let mut add = |report: &mut Report, cursor: &Cursor<'_>, mount: Option<Mount>| {
        if let Some(mount) = mount {
            report.mark(format!("{model}.volumes[{}]", mounts.len()), cursor);
            mounts.push(mount);
        }
    };
    if let Some(cursor) = service.get("volumes") {
        report.mark(format!("{model}.volumes"), &cursor);
        for item in report.items(&cursor) {
            let mount = if item.is_map() { long(report, project, &item) } else { short(report, project, &item) };
            add(report, &item, mount);
        }
    }
    if let Some(cursor) = service.get("tmpfs") {
        for item in report.one_or_more(&cursor) {
            let mount = tmpfs(report, &item);
            add(report, &item, mount);
        }
    }
    mounts
}

fn is_path(text: &str) -> bool {
    text.starts_with(['.', '/', '~'])
}

/// `[SOURCE:]TARGET[:MODE]`.
fn short(report: &mut Report, project: &Project<'_>, cursor: &Cursor<'_>) -> Option<Mount> {
    let text = report.text(cursor)?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, modes) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, modes] => (Some(source), target, modes),
        _ => return report.mismatch(cursor, "a volume such as `data:/var/lib/data` or `./conf:/etc/app:ro`"),
    };
    if target.is_empty() || source == Some("") {
        return report.mismatch(cursor, "a volume such as `data:/var/lib/data` or `./conf:/etc/app:ro`");
    }
    let source = match source {
        None => MountSource::Anonymous,
        Some(source) if is_path(source) => MountSource::Bind(project.path(report, cursor, source)?),
        Some(source) => MountSource::Volume(source.to_owned()),
    };
    let mut mount = Mount::new(source, target);
    mount.create = matches!(mount.source, MountSource::Bind(_));
    for mode in modes.split(',').filter(|mode| !mode.is_empty()) {
        match mode {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "z" | "Z" => mount.selinux = Some(mode.to_owned()),
            "nocopy" => mount.no_copy = true,
            _ if PROPAGATIONS.contains(&mode) => mount.propagation = Some(mode.to_owned()),
            "cached" | "delegated" | "consistent" => {
                report.warn(cursor, format!("`{mode}` has no effect"), "remove it; it means nothing on Linux");
            }
            _ => {
                let help = "`ro`, `rw`, `z`, `Z`, `nocopy`, and kinds of propagation such as `rslave` are";
                report.error_with_help(cursor, format!("the mode {mode:?} of a volume is not supported"), help);
            }
        }
    }
    Some(mount)
}

fn long(report: &mut Report, project: &Project<'_>, cursor: &Cursor<'_>) -> Option<Mount> {
    let fields = report.fields(cursor, &keys::MOUNT)?;
    let kind = fields.require(report, "type").and_then(|cursor| Some((report.text(&cursor)?, cursor)));
    let target = fields.require(report, "target").and_then(|cursor| report.text(&cursor));
    let source = fields.get("source").map(|cursor| (report.text(&cursor), cursor));
    let read_only = fields.flag(report, "read_only").unwrap_or_default();
    // The source stands in for what is not known yet.
    let mut mount = Mount::new(MountSource::Anonymous, target.clone().unwrap_or_default());
    mount.read_only = read_only;
    mount.create = kind.as_ref().is_some_and(|(kind, _)| kind == "bind");
    if let Some(cursor) = fields.get("bind")
        && let Some(bind) = report.fields(&cursor, &keys::MOUNT_BIND)
    {
        mount.create &= bind.flag(report, "create_host_path").unwrap_or(true);
        mount.propagation = bind.get("propagation").and_then(|cursor| {
            let known = |text: &str| PROPAGATIONS.contains(&text).then(|| text.to_owned());
            report.parsed(&cursor, "a kind of propagation such as `rslave`", known)
        });
        mount.selinux = bind.get("selinux").and_then(|cursor| {
            report.parsed(&cursor, "`z` or `Z`", |text| matches!(text, "z" | "Z").then(|| text.to_owned()))
        });
    }
    if let Some(cursor) = fields.get("volume")
        && let Some(volume) = report.fields(&cursor, &keys::MOUNT_VOLUME)
    {
        mount.no_copy = volume.flag(report, "nocopy").unwrap_or_default();
    }
    let (mut size_bytes, mut mode) = (None, None);
    if let Some(cursor) = fields.get("tmpfs")
        && let Some(options) = report.fields(&cursor, &keys::MOUNT_TMPFS)
    {
        size_bytes = options.get("size").and_then(|size| report.bytes(&size));
        mode = options.get("mode").and_then(|cursor| report.mode(&cursor));
    }
    let (kind, kind_at) = kind?;
    for other in ["bind", "volume", "tmpfs"] {
        if other != kind
            && let Some(cursor) = fields.get(other)
        {
            report.error(&cursor, format!("`{other}` does not go with the type {kind:?}"));
        }
    }
    let source = match (kind.as_str(), source) {
        ("volume", None) => MountSource::Anonymous,
        ("volume", Some((name, _))) => MountSource::Volume(name?),
        ("bind", Some((path, at))) => MountSource::Bind(project.path(report, &at, &path?)?),
        ("bind", None) => {
            report.error(cursor, "`source` is missing");
            return None;
        }
        ("tmpfs", None) => MountSource::Tmpfs { size_bytes, mode },
        ("tmpfs", Some((_, at))) => {
            report.error(&at, "a file system in memory has no source");
            return None;
        }
        _ => return report.mismatch(&kind_at, "`volume`, `bind` or `tmpfs`"),
    };
    target?;
    Some(Mount { source, ..mount })
}

/// `/run` or `/run:size=64m`.
fn tmpfs(report: &mut Report, cursor: &Cursor<'_>) -> Option<Mount> {
    let text = report.text(cursor)?;
    let (target, options) = text.split_once(':').unwrap_or((&text, ""));
    let (mut size_bytes, mut mode, mut read_only) = (None, None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, formats::bytes(value), formats::mode(value)) {
            ("ro", ..) => read_only = true,
            ("rw", ..) => read_only = false,
            ("size", Some(size), _) => size_bytes = Some(size),
            ("mode", _, Some(bits)) => mode = Some(bits),
            _ => {
                let help = "`size=64m`, `mode=1777` and `ro` are";
                report.error_with_help(cursor, format!("the option {option:?} of `tmpfs` is not supported"), help);
            }
        }
    }
    let mut mount = Mount::new(MountSource::Tmpfs { size_bytes, mode }, target);
    mount.read_only = read_only;
    Some(mount)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web, web_with_warnings};
    use super::*;

    fn show(mount: &Mount) -> String {
        let source = match &mount.source {
            MountSource::Volume(name) => format!("volume {name}"),
            MountSource::Bind(path) => format!("bind {path}"),
            MountSource::Tmpfs { size_bytes: Some(size), mode: None } => format!("tmpfs {size}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let mut shown = format!("{source} {}", mount.target);
        for (set, word) in [(mount.read_only, " ro"), (mount.create, " create"), (mount.no_copy, " nocopy")] {
            shown.push_str(if set { word } else { "" });
        }
        for word in [&mount.propagation, &mount.selinux].into_iter().flatten() {
            shown.push_str(&format!(" {word}"));
        }
        shown
    }

    #[test]
    fn volumes_are_read_in_every_form() {
        for (keys, expected) in [
            ("volumes: [data:/d]", "volume data /d"),
            ("volumes: [data:/d:ro]", "volume data /d ro"),
            ("volumes: [data:/d:rw]", "volume data /d"),
            ("volumes: [/d]", "anonymous /d"),
            ("volumes: [/srv/x:/d:ro]", "bind /srv/x /d ro create"),
            ("volumes: [./x:/d]", "bind /nowhere/shop/x /d create"),
            ("volumes: [.:/d]", "bind /nowhere/shop /d create"),
            ("volumes: [../x/./y:/d]", "bind /nowhere/x/y /d create"),
            ("volumes: [{type: volume, source: data, target: /d, read_only: true}]", "volume data /d ro"),
            ("volumes: [{type: volume, target: /d}]", "anonymous /d"),
            ("volumes: [{type: bind, source: ./x, target: /d}]", "bind /nowhere/shop/x /d create"),
            ("volumes: [{type: bind, source: x, target: /d}]", "bind /nowhere/shop/x /d create"),
            ("volumes: [{type: tmpfs, target: /d, tmpfs: {size: 1024}}]", "tmpfs 1024 /d"),
            ("volumes: [{type: tmpfs, target: /d}]", "tmpfs { size_bytes: none, mode: none } /d"),
            ("volumes: [data:/d:z]", "volume data /d z"),
            ("volumes: [data:/d:nocopy]", "volume data /d nocopy"),
            ("volumes: [\"./x:/d:ro,rslave\"]", "bind /nowhere/shop/x /d ro create rslave"),
            ("volumes: [{type: volume, source: data, target: /d, volume: {nocopy: true}}]", "volume data /d nocopy"),
            (
                "volumes: [{type: bind, source: ./x, target: /d, bind: {create_host_path: false, propagation: shared, selinux: Z}}]",
                "bind /nowhere/shop/x /d shared Z",
            ),
            (
                "volumes: [{type: tmpfs, target: /d, tmpfs: {size: 1k, mode: 1777}}]",
                "tmpfs { size_bytes: some(1024), mode: some(1023) } /d",
            ),
            ("tmpfs: /d:mode=1777", "tmpfs { size_bytes: none, mode: some(1023) } /d"),
            ("tmpfs: /d", "tmpfs { size_bytes: none, mode: none } /d"),
            ("tmpfs: [\"/d:size=1k,ro\", /e]", "tmpfs 1024 /d ro, tmpfs { size_bytes: none, mode: none } /e"),
        ] {
            let mounts: Vec<String> = web(keys).workload.mounts.iter().map(show).collect();
            assert_eq!(mounts.join(", "), expected, "{keys}");
        }
    }

    #[test]
    fn a_home_is_that_of_the_variables() {
        let text = "services: {web: {image: x, volumes: [\"~/data:/d\", \"~other:/e\"]}}";
        let read = |home| {
            let reader = crate::compose::ComposeReader::new().with_env("HOME", home);
            reader.read_str(text, "compose.yaml", "/srv/shop").unwrap_err().to_string()
        };
        let problems = read("/home/me");
        assert!(problems.contains("volumes[1]: `~` depends") && !problems.contains("volumes[0]"), "{problems}");
        assert!(read("").contains("volumes[0]: `~` depends"));
        let text = text.replace(", \"~other:/e\"", "");
        let reader = crate::compose::ComposeReader::new().with_env("HOME", "/home/me");
        let app = reader.read_str(&text, "compose.yaml", "/srv/shop").unwrap();
        assert_eq!(show(&app.spec.services["web"].workload.mounts[0]), "bind /home/me/data /d create");
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for (keys, expected) in [
            ("volumes: [\"./x:/d:ro,cached\"]", "volumes[0]: `cached` has no effect"),
            (
                "volumes: [{type: volume, source: data, target: /d, consistency: cached}]",
                "volumes[0].consistency: `consistency` has no effect: it means nothing on Linux",
            ),
        ] {
            assert_eq!(web_with_warnings(keys).1, [expected], "{keys}");
        }
    }

    #[test]
    fn wrong_volumes_are_refused() {
        for (keys, expected) in [
            ("volumes: [\"~/x:/d\"]", "volumes[0]: `~` depends on who deploys"),
            ("volumes: [data:/d:x]", "volumes[0]: the mode \"x\" of a volume is not supported"),
            ("volumes: [data:d]", "volumes[0]: \"d\" is not an absolute path inside the container"),
            ("volumes: [none:/d]", "volumes[0]: the volume \"none\" is not declared"),
            ("volumes: [data:/d, more:/d]", "volumes[1]: /d is mounted twice"),
            (
                "volumes: [\"a:b:c:d\"]",
                "volumes[0]: \"a:b:c:d\" is not a volume such as `data:/var/lib/data` or `./conf:/etc/app:ro`",
            ),
            (
                "volumes: [\":/d\"]",
                "volumes[0]: \":/d\" is not a volume such as `data:/var/lib/data` or `./conf:/etc/app:ro`",
            ),
            (
                "volumes: [{type: npipe, source: x, target: /d}]",
                "volumes[0].type: \"npipe\" is not `volume`, `bind` or `tmpfs`",
            ),
            ("volumes: [{type: bind, target: /d}]", "volumes[0]: `source` is missing"),
            (
                "volumes: [{type: tmpfs, source: x, target: /d}]",
                "volumes[0].source: a file system in memory has no source",
            ),
            (
                "volumes: [{type: volume, target: /d, tmpfs: {size: 1}}]",
                "volumes[0].tmpfs: `tmpfs` does not go with the type \"volume\"",
            ),
            (
                "volumes: [{type: volume, target: /d, volume: {subpath: x}}]",
                "volumes[0].volume.subpath: `subpath` is not supported",
            ),
            ("tmpfs: /d:uid=1", "tmpfs: the option \"uid=1\" of `tmpfs` is not supported"),
            ("tmpfs: /d:mode=9", "tmpfs: the option \"mode=9\" of `tmpfs` is not supported"),
            ("tmpfs: /d:size=x", "tmpfs: the option \"size=x\" of `tmpfs` is not supported"),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
    }
}
