use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use deployer_core::{BuildSpec, ErrorKind};
use futures_util::TryStreamExt as _;
use tempfile::TempDir;

use super::{BuildContext, without_syntax};

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

async fn bytes(build: &BuildSpec) -> Vec<u8> {
    let (stream, failure) = Arc::new(BuildContext::gather(build).unwrap()).stream();
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    assert!(failure.take().is_none());
    chunks.concat()
}

/// What an archive holds, by name: links as `-> target`.
fn entries(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(archive);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        match entry.link_name().unwrap() {
            Some(target) => text = format!("-> {}", target.display()),
            None => drop(entry.read_to_string(&mut text).unwrap()),
        }
        assert!(found.insert(name, text).is_none());
    }
    found
}

async fn names(build: &BuildSpec) -> Vec<String> {
    entries(&bytes(build).await).into_keys().collect()
}

fn spec(directory: &TempDir) -> BuildSpec {
    BuildSpec::new(directory.path())
}

#[tokio::test]
async fn ignored_files_stay_and_the_dockerfile_goes() {
    let directory = directory(&[
        ("Dockerfile", "FROM scratch"),
        (".dockerignore", "**\n!src\n!keep/this\nsrc/**/*.log\n"),
        (".env", "TOKEN=x"),
        ("src/main.rs", ""),
        ("src/a/b.log", ""),
        ("keep/this", ""),
        ("keep/other", ""),
        ("node_modules/x/y", ""),
    ]);
    let sent = names(&spec(&directory)).await;
    assert_eq!(sent, [".dockerignore", "Dockerfile", "keep/", "keep/this", "src/", "src/a/", "src/main.rs"]);
}

#[tokio::test]
async fn a_dockerfile_in_an_ignored_directory_goes() {
    let directory =
        directory(&[("build/x/Dockerfile.web", "FROM scratch"), ("build/y", ""), (".dockerignore", "build")]);
    let mut build = spec(&directory);
    build.dockerfile = "./build/x/Dockerfile.web".into();
    assert_eq!(BuildContext::gather(&build).unwrap().dockerfile(), "build/x/Dockerfile.web");
    assert_eq!(names(&build).await, [".dockerignore", "build/", "build/x/", "build/x/Dockerfile.web"]);
}

#[tokio::test]
async fn the_ignore_file_of_one_dockerfile_wins() {
    let directory = directory(&[
        ("web.Dockerfile", "FROM scratch"),
        ("web.Dockerfile.dockerignore", "b"),
        (".dockerignore", "a"),
        ("a", ""),
        ("b", ""),
    ]);
    let mut build = spec(&directory);
    build.dockerfile = "web.Dockerfile".into();
    assert_eq!(names(&build).await, [".dockerignore", "a", "web.Dockerfile", "web.Dockerfile.dockerignore"]);
}

#[tokio::test]
async fn a_dockerfile_outside_the_context_and_one_given_as_text_are_sent_under_a_name_of_their_own() {
    let directory = directory(&[
        ("docker/Dockerfile", "FROM outside"),
        ("docker/Dockerfile.dockerignore", "b"),
        ("app/a", ""),
        ("app/b", ""),
        ("app/Dockerfile", "FROM inside"),
    ]);
    let mut build = BuildSpec::new(directory.path().join("app"));
    build.dockerfile = "../docker/Dockerfile".into();
    let sent = entries(&bytes(&build).await);
    assert_eq!(sent[".deployer.Dockerfile"], "FROM outside");
    assert!(sent.contains_key("a") && !sent.contains_key("b"), "{sent:?}");

    build.dockerfile_inline = Some("FROM text".to_owned());
    let sent = entries(&bytes(&build).await);
    assert_eq!(sent[".deployer.Dockerfile"], "FROM text");
    assert!(sent.contains_key("b"), "{sent:?}");
    assert_eq!(BuildContext::gather(&build).unwrap().dockerfile(), ".deployer.Dockerfile");
}

#[tokio::test]
async fn equal_files_make_equal_bytes() {
    let files = [("Dockerfile", "FROM scratch"), ("b/c", "1"), ("a", "2"), ("b.x", "3")];
    let mut reversed = files;
    reversed.reverse();
    let (one, two) = (directory(&files), directory(&reversed));
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(two.path().join("a")).unwrap().set_modified(old).unwrap();
    let sent = bytes(&spec(&one)).await;
    assert_eq!(sent, bytes(&spec(&two)).await);
    let mut archive = tar::Archive::new(sent.as_slice());
    for entry in archive.entries().unwrap() {
        let header = entry.unwrap().header().clone();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
    }
    fs::set_permissions(two.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(sent, bytes(&spec(&two)).await, "the mode is part of the content");
}

#[tokio::test]
async fn links_and_long_names_survive() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let directory = directory(&[("Dockerfile", "FROM scratch"), (&long, "deep")]);
    symlink("nowhere/at/all", directory.path().join("dangling")).unwrap();
    symlink("..", directory.path().join("loop")).unwrap();
    symlink("t".repeat(200), directory.path().join("far")).unwrap();
    let sent = entries(&bytes(&spec(&directory)).await);
    assert_eq!(sent[&long], "deep");
    assert_eq!(sent["dangling"], "-> nowhere/at/all");
    assert_eq!(sent["loop"], "-> ..");
    assert_eq!(sent["far"], format!("-> {}", "t".repeat(200)));
}

#[tokio::test]
async fn a_file_larger_than_what_is_sent_at_once_arrives_whole() {
    let large = "0123456789".repeat(200_000);
    let directory = directory(&[("Dockerfile", "FROM scratch"), ("large", &large)]);
    assert_eq!(entries(&bytes(&spec(&directory)).await)["large"], large);
}

#[tokio::test]
async fn a_file_that_goes_away_is_named() {
    let directory = directory(&[("Dockerfile", "FROM scratch"), ("gone", "x")]);
    let context = Arc::new(BuildContext::gather(&spec(&directory)).unwrap());
    fs::remove_file(directory.path().join("gone")).unwrap();
    let (stream, failure) = context.stream();
    assert!(stream.try_collect::<Vec<_>>().await.is_err(), "the archive must not look complete");
    let error = failure.take().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let directory = directory(&[("a", ""), ("file", ""), ("bad/Dockerfile", ""), ("bad/.dockerignore", "a\n[b")]);
    let error = |path: &Path| BuildContext::gather(&BuildSpec::new(path)).unwrap_err();

    let missing = error(&directory.path().join("nope"));
    assert_eq!(missing.kind(), ErrorKind::InvalidInput);
    assert!(missing.to_string().contains("nope: the build context cannot be read: it does not exist"), "{missing}");
    assert!(error(&directory.path().join("file")).to_string().contains("not a directory"));

    let no_dockerfile = error(directory.path());
    assert_eq!(no_dockerfile.kind(), ErrorKind::InvalidInput);
    assert!(no_dockerfile.to_string().contains("/Dockerfile: the Dockerfile cannot be read"), "{no_dockerfile}");
    assert!(no_dockerfile.help().is_some());

    let bad = error(&directory.path().join("bad"));
    assert!(bad.to_string().contains("bad/.dockerignore:2: `[b` is no pattern"), "{bad}");
}

#[test]
fn only_the_directive_is_taken_out_of_a_dockerfile() {
    for (text, without) in [
        ("# syntax=docker/dockerfile:1\nFROM x\n", Some("#\nFROM x\n")),
        ("#Syntax = x\r\nFROM x", Some("#\nFROM x")),
        ("# escape=`\n# syntax=x\nFROM x", Some("# escape=`\n#\nFROM x")),
        ("FROM x\n# syntax=x\n", None),
        ("# a comment\n# syntax=x\nFROM x", None),
        ("FROM x", None),
    ] {
        assert_eq!(without_syntax(text).as_deref(), without, "{text:?}");
    }
}
