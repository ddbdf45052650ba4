//! `volumes` and `tmpfs` of a service.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{Project, formats, keys};
use crate::model::{Mount, MountSource};

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
    let mut read_only = false;
    for mode in modes.split(',').filter(|mode| !mode.is_empty()) {
        match mode {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "z" | "Z" => {
                report.warn(cursor, format!("`{mode}` has no effect"), "label the path yourself where SELinux is on")
            }
            "cached" | "delegated" | "consistent" => {
                report.warn(cursor, format!("`{mode}` has no effect"), "remove it; it means nothing on Linux");
            }
            _ => {
                let help = "`ro` and `rw` are";
                report.error_with_help(cursor, format!("the mode {mode:?} of a volume is not supported"), help);
            }
        }
    }
    Some(Mount { source, target: target.to_owned(), read_only })
}

fn long(report: &mut Report, project: &Project<'_>, cursor: &Cursor<'_>) -> Option<Mount> {
    let fields = report.fields(cursor, &keys::MOUNT)?;
    let kind = fields.require(report, "type").and_then(|cursor| Some((report.text(&cursor)?, cursor)));
    let target = fields.require(report, "target").and_then(|cursor| report.text(&cursor));
    let source = fields.get("source").map(|cursor| (report.text(&cursor), cursor));
    let read_only = fields.flag(report, "read_only").unwrap_or_default();
    if let Some(cursor) = fields.get("bind") {
        report.fields(&cursor, &keys::MOUNT_BIND);
    }
    if let Some(cursor) = fields.get("volume") {
        report.fields(&cursor, &keys::MOUNT_VOLUME);
    }
    let mut size_bytes = None;
    if let Some(cursor) = fields.get("tmpfs")
        && let Some(options) = report.fields(&cursor, &keys::MOUNT_TMPFS)
        && let Some(size) = options.get("size")
    {
        size_bytes = report.bytes(&size);
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
        ("tmpfs", None) => MountSource::Tmpfs { size_bytes },
        ("tmpfs", Some((_, at))) => {
            report.error(&at, "a file system in memory has no source");
            return None;
        }
        _ => return report.mismatch(&kind_at, "`volume`, `bind` or `tmpfs`"),
    };
    Some(Mount { source, target: target?, read_only })
}

/// `/run` or `/run:size=64m`.
fn tmpfs(report: &mut Report, cursor: &Cursor<'_>) -> Option<Mount> {
    let text = report.text(cursor)?;
    let (target, options) = text.split_once(':').unwrap_or((&text, ""));
    let (mut size_bytes, mut read_only) = (None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match (option, option.strip_prefix("size=").map(formats::bytes)) {
            ("ro", _) => read_only = true,
            ("rw", _) => read_only = false,
            (_, Some(Some(size))) => size_bytes = Some(size),
            _ => {
                let help = "`size=64m` and `ro` are";
                report.error_with_help(cursor, format!("the option {option:?} of `tmpfs` is not supported"), help);
            }
        }
    }
    Some(Mount { source: MountSource::Tmpfs { size_bytes }, target: target.to_owned(), read_only })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web, web_with_warnings};
    use super::*;

    fn show(mount: &Mount) -> String {
        let source = match &mount.source {
            MountSource::Volume(name) => format!("volume {name}"),
            MountSource::Bind(path) => format!("bind {path}"),
            MountSource::Tmpfs { size_bytes: Some(size) } => format!("tmpfs {size}"),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("{source} {}{}", mount.target, if mount.read_only { " ro" } else { "" })
    }

    #[test]
    fn volumes_are_read_in_every_form() {
        for (keys, expected) in [
            ("volumes: [data:/d]", "volume data /d"),
            ("volumes: [data:/d:ro]", "volume data /d ro"),
            ("volumes: [data:/d:rw]", "volume data /d"),
            ("volumes: [/d]", "anonymous /d"),
            ("volumes: [/srv/x:/d:ro]", "bind /srv/x /d ro"),
            ("volumes: [./x:/d]", "bind /nowhere/shop/x /d"),
            ("volumes: [.:/d]", "bind /nowhere/shop /d"),
            ("volumes: [../x/./y:/d]", "bind /nowhere/x/y /d"),
            ("volumes: [{type: volume, source: data, target: /d, read_only: true}]", "volume data /d ro"),
            ("volumes: [{type: volume, target: /d}]", "anonymous /d"),
            ("volumes: [{type: bind, source: ./x, target: /d}]", "bind /nowhere/shop/x /d"),
            ("volumes: [{type: bind, source: x, target: /d}]", "bind /nowhere/shop/x /d"),
            ("volumes: [{type: tmpfs, target: /d, tmpfs: {size: 1024}}]", "tmpfs 1024 /d"),
            ("volumes: [{type: tmpfs, target: /d}]", "tmpfs { size_bytes: none } /d"),
            ("tmpfs: /d", "tmpfs { size_bytes: none } /d"),
            ("tmpfs: [\"/d:size=1k,ro\", /e]", "tmpfs 1024 /d ro, tmpfs { size_bytes: none } /e"),
        ] {
            let mounts: Vec<String> = web(keys).workload.mounts.iter().map(show).collect();
            assert_eq!(mounts.join(", "), expected, "{keys}");
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for (keys, expected) in [
            ("volumes: [data:/d:z]", "volumes[0]: `z` has no effect"),
            ("volumes: [\"./x:/d:ro,cached\"]", "volumes[0]: `cached` has no effect"),
            (
                "volumes: [{type: bind, source: ./x, target: /d, bind: {create_host_path: true}}]",
                "volumes[0].bind.create_host_path: `create_host_path` has no effect: the engine decides what to do when the path is missing",
            ),
        ] {
            assert_eq!(web_with_warnings(keys).1, [expected], "{keys}");
        }
    }

    #[test]
    fn wrong_volumes_are_refused() {
        for (keys, expected) in [
            ("volumes: [\"~/x:/d\"]", "volumes[0]: `~` depends on who deploys"),
            ("volumes: [data:/d:nocopy]", "volumes[0]: the mode \"nocopy\" of a volume is not supported"),
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
                "volumes: [{type: volume, target: /d, volume: {nocopy: true}}]",
                "volumes[0].volume.nocopy: `nocopy` is not supported",
            ),
            ("tmpfs: /d:mode=1777", "tmpfs: the option \"mode=1777\" of `tmpfs` is not supported"),
            ("tmpfs: /d:size=x", "tmpfs: the option \"size=x\" of `tmpfs` is not supported"),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
    }
}
