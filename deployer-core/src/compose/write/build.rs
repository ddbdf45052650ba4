//! `build`: the directory that an image is built from.

use std::path::Path;

use super::formats;
use super::names::Names;
use super::yaml::Map;
use crate::model::{BuildSpec, SecretRef};

/// All of it but the tag, which is the service's `image`.
pub(super) fn build(spec: &BuildSpec, names: &Names<'_>) -> Map {
    let BuildSpec {
        context,
        dockerfile,
        dockerfile_inline,
        args,
        target,
        extra_hosts,
        network,
        shm_size,
        secrets,
        labels,
        no_cache,
        tag: _,
        tags,
    } = spec;
    // What is no UTF-8 was refused before.
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut map = Map::default();
    map.put("context", text(context));
    map.put_unless("dockerfile", text(dockerfile), text(&BuildSpec::default().dockerfile));
    map.put_some("dockerfile_inline", dockerfile_inline.as_ref());
    map.put_some("target", target.as_ref());
    map.put_filled("args", args);
    map.put_filled("secrets", secrets.iter().map(|(id, secret)| self::secret(id, secret, names)).collect::<Vec<_>>());
    map.put_filled("labels", labels);
    map.put_filled("tags", tags.as_slice());
    map.put_some("network", network.as_ref());
    map.put_filled("extra_hosts", hosts(extra_hosts));
    map.put_some("shm_size", shm_size.map(formats::size));
    map.put_unless("no_cache", *no_cache, false);
    map
}

fn secret(id: &str, SecretRef { name, version: _ }: &SecretRef, names: &Names<'_>) -> Map {
    let source = names.secret(name);
    let mut map = Map::default();
    map.put("source", source);
    map.put_unless("target", id, source);
    map
}

/// `NAME=ADDRESS`, where the address may have colons.
pub(super) fn hosts(hosts: &[String]) -> Vec<String> {
    hosts.iter().map(|host| host.replacen(':', "=", 1)).collect()
}
