//! `volumes` of a service.

use super::formats;
use super::yaml::{Map, Yaml};
use crate::model::{Mount, MountSource};

pub(super) fn mount(mount: &Mount) -> Yaml {
    short(mount).map_or_else(|| long(mount).into(), Yaml::Text)
}

/// `SOURCE:TARGET:MODE`, if only this form can say it: in the long one only paths of the host are labelled and shared, and
/// only volumes stay empty.
fn short(mount: &Mount) -> Option<String> {
    let Mount { source, target, read_only, create, no_copy, propagation, selinux } = mount;
    let labelled = propagation.is_some() || selinux.is_some();
    let source = match source {
        MountSource::Volume(name) if labelled && !create => name,
        MountSource::Bind(path) if *no_copy && *create => path,
        _ => return None,
    };
    if source.contains(':') || target.contains(':') {
        return None;
    }
    let flags = [(read_only, "ro"), (no_copy, "nocopy")];
    let modes = flags.into_iter().filter(|(set, _)| **set).map(|(_, mode)| mode);
    let modes: Vec<&str> = modes.chain([propagation, selinux].into_iter().flatten().map(String::as_str)).collect();
    Some(format!("{source}:{target}:{}", modes.join(",")))
}

fn long(mount: &Mount) -> Map {
    let Mount { source, target, read_only, create, no_copy, propagation, selinux } = mount;
    let (mut bind, mut volume, mut tmpfs) = (Map::default(), Map::default(), Map::default());
    let (kind, source, creates) = match source {
        MountSource::Volume(name) => ("volume", Some(name), false),
        MountSource::Anonymous => ("volume", None, false),
        MountSource::Bind(path) => ("bind", Some(path), true),
        MountSource::Tmpfs { size_bytes, mode } => {
            tmpfs.put_some("size", size_bytes.map(formats::size));
            // No text, which Compose does not take here. Its first digit makes it octal.
            tmpfs.put_some("mode", mode.map(|bits| Yaml::Plain(format!("0{bits:o}"))));
            ("tmpfs", None, false)
        }
    };
    bind.put_unless("create_host_path", *create, creates);
    bind.put_some("propagation", propagation.as_ref());
    bind.put_some("selinux", selinux.as_ref());
    volume.put_unless("nocopy", *no_copy, false);
    let mut map = Map::default();
    map.put("type", kind);
    map.put_some("source", source);
    map.put("target", target);
    map.put_unless("read_only", *read_only, false);
    map.put_filled("bind", bind);
    map.put_filled("volume", volume);
    map.put_filled("tmpfs", tmpfs);
    map
}
