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
    let source = fields.get("source");
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
        ("volume", Some(source)) => MountSource::Volume(report.text(&source)?),
        ("bind", Some(source)) => {
            let text = report.text(&source)?;
            MountSource::Bind(project.path(report, &source, &text)?)
        }
        ("bind", None) => {
            report.error(cursor, "`source` is missing");
            return None;
        }
        ("tmpfs", None) => MountSource::Tmpfs { size_bytes },
        ("tmpfs", Some(source)) => {
            report.error(&source, "a file system in memory has no source");
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
