//! The names that images get that we built.
//!
//! A name is `deployer/<app>/<service>:<digits of its id>`. The slash keeps applications apart whose names begin alike,
//! and every build has its own tag, so that none becomes nameless when the next one is built.

use deployer_core::{AppName, Digest, Error, ErrorKind, Result, ServiceName};

/// The part of the name before the tag.
pub(crate) fn repository(app: &AppName, service: &ServiceName) -> String {
    format!("{}{}", prefix(app), component(service.as_str()))
}

/// The name of one image.
pub(crate) fn image(app: &AppName, service: &ServiceName, id: &Digest) -> String {
    format!("{}:{}", repository(app, service), id.short())
}

/// What all names of an application's images begin with.
pub(crate) fn prefix(app: &AppName) -> String {
    format!("deployer/{}/", component(app.as_str()))
}

/// A reference without its tag or digest, and the tag or digest.
pub(crate) fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (split(name).0, digest);
    }
    match reference.rsplit_once(':') {
        // A colon before a slash is a port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

/// Refuses what is no reference to an image: it becomes part of the path of requests to the engine.
pub(crate) fn check(reference: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let parts_are_names = reference.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()));
    if reference.bytes().all(allowed) && parts_are_names {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "it is no reference to an image, such as `redis:7`")
        .with_resource(format!("{reference:?}")))
}

/// Image names allow less than ours: lower-case letters and digits with one separator between them.
fn component(name: &str) -> String {
    let ordinary = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut plain = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            plain.push(c.to_ascii_lowercase());
        } else if !plain.is_empty() && plain.bytes().last().is_some_and(ordinary) {
            plain.push(c);
        }
    }
    plain.truncate(plain.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
    if plain == name {
        plain
    } else {
        // Two names must not become one.
        format!("{plain}-{}", &Digest::of(name.as_bytes()).short()[..6])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository_of(app: &str, service: &str) -> String {
        repository(&AppName::new(app).unwrap(), &ServiceName::new(service).unwrap())
    }

    #[test]
    fn ordinary_names_stay() {
        assert_eq!(repository_of("shop", "web"), "deployer/shop/web");
        assert_eq!(repository_of("my-shop_2", "web.a"), "deployer/my-shop_2/web.a");
        let id = Digest::of(b"abc");
        let name = image(&AppName::new("shop").unwrap(), &ServiceName::new("web").unwrap(), &id);
        assert_eq!(name, "deployer/shop/web:ba7816bf8f01");
    }

    #[test]
    fn others_become_names_that_engines_allow_and_stay_different() {
        let names = ["Web", "WEB", "web-", "web--", "a-_b", "a_-b", "a..b"].map(|name| repository_of("shop", name));
        for name in &names {
            let service = name.strip_prefix("deployer/shop/").unwrap();
            assert!(service.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)));
            assert!(!service.contains("--") && !service.contains("-_") && !service.contains(".."), "{service}");
        }
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
    }

    #[test]
    fn references_are_split_and_checked() {
        for (reference, parts) in [
            ("redis", ("redis", "latest")),
            ("redis:7", ("redis", "7")),
            ("host:5000/a/b", ("host:5000/a/b", "latest")),
            ("host:5000/a/b:1", ("host:5000/a/b", "1")),
            ("redis:7@sha256:ab", ("redis", "sha256:ab")),
        ] {
            assert_eq!(split(reference), parts, "{reference}");
            assert!(check(reference).is_ok(), "{reference}");
        }
        for bad in ["", "a b", "../containers/x", "a/../b", "a?b", "a#b", "/a", "a//b", "a/", "-a", "a%2f"] {
            assert_eq!(check(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn applications_that_begin_alike_are_apart() {
        let shop = prefix(&AppName::new("shop").unwrap());
        assert!(!repository_of("shop-api", "web").starts_with(&shop));
        assert!(repository_of("shop", "api-web").starts_with(&shop));
    }
}
