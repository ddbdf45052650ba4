//! What is sent to the builder: the files of the build context and the Dockerfile, as one archive.

mod archive;
mod ignore;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use deployer_core::{BuildSpec, Error, ErrorKind, Result};

use ignore::Ignore;

/// The Dockerfile's name in the archive if it is not one of the context's files.
const OWN_DOCKERFILE: &str = ".deployer.Dockerfile";

/// The files of a build context, found but not read yet.
#[derive(Debug)]
pub(crate) struct BuildContext {
    /// The files, in the order in which they are sent.
    items: Vec<Item>,
    /// The Dockerfile's name in the archive.
    dockerfile: String,
    /// Its text, if it is not one of the files.
    own_dockerfile: Option<String>,
}

/// One entry of the archive.
#[derive(Debug)]
struct Item {
    /// Its name in the archive, with slashes.
    name: String,
    /// Where it is.
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

impl BuildContext {
    /// Finds what has to be sent. Blocks.
    pub(crate) fn gather(build: &BuildSpec) -> Result<Self> {
        let root = &build.context;
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Error::new(ErrorKind::InvalidInput, "the build context is not a directory")
                    .with_resource(root.display().to_string()));
            }
            Err(error) => return Err(unreadable("the build context cannot be read", root, error)),
        }
        let (dockerfile, own_dockerfile, beside) = match &build.dockerfile_inline {
            Some(text) => (OWN_DOCKERFILE.to_owned(), Some(text.clone()), None),
            None => find_dockerfile(root, &build.dockerfile)?,
        };
        let ignore = read_ignore(beside.into_iter().chain([root.join(".dockerignore")]))?;
        // Both are always sent, as the builder wants to see them.
        let always = [dockerfile.as_str(), ".dockerignore"];
        let mut walk = Walk { ignore: &ignore, always, items: Vec::new() };
        walk.directory(root, "")?;
        let mut items = walk.items;
        if own_dockerfile.is_some() {
            items.retain(|item| item.name != OWN_DOCKERFILE);
        }
        Ok(Self { items, dockerfile, own_dockerfile })
    }

    /// Like [`gather`](Self::gather), but with a Dockerfile whose first lines name no frontend. None if they do not
    /// anyway. Blocks.
    pub(crate) fn gather_without_syntax(build: &BuildSpec) -> Result<Option<Self>> {
        let path = build.context.join(&build.dockerfile);
        let text = match &build.dockerfile_inline {
            Some(text) => text.clone(),
            None => {
                fs::read_to_string(&path).map_err(|error| unreadable("the Dockerfile cannot be read", &path, error))?
            }
        };
        let Some(text) = without_syntax(&text) else { return Ok(None) };
        let mut context = Self::gather(build)?;
        context.dockerfile = OWN_DOCKERFILE.to_owned();
        context.own_dockerfile = Some(text);
        context.items.retain(|item| item.name != OWN_DOCKERFILE);
        Ok(Some(context))
    }

    /// The Dockerfile's name in the archive.
    pub(crate) fn dockerfile(&self) -> &str {
        &self.dockerfile
    }
}

/// The Dockerfile's name in the archive, its text if it is not to be sent as one of the files, and the name of the
/// ignore file that is for it alone.
fn find_dockerfile(root: &Path, dockerfile: &Path) -> Result<(String, Option<String>, Option<PathBuf>)> {
    let path = root.join(dockerfile);
    let missing = |error: io::Error| {
        let error = unreadable("the Dockerfile cannot be read", &path, error);
        match error.kind() {
            ErrorKind::InvalidInput => error.with_help("create it, or set `build.dockerfile` to the file's name"),
            _ => error,
        }
    };
    let metadata = fs::symlink_metadata(&path).map_err(missing)?;
    let mut beside = path.clone().into_os_string();
    beside.push(".dockerignore");
    let beside = Some(PathBuf::from(beside));
    if metadata.is_file()
        && let Some(name) = name_within(dockerfile)
    {
        return Ok((name, None, beside));
    }
    // Outside the context, or a link, which the builder would look for in its copy of the context.
    let text = fs::read_to_string(&path).map_err(missing)?;
    Ok((OWN_DOCKERFILE.to_owned(), Some(text), beside))
}

/// A relative path that does not leave where it begins, with slashes.
fn name_within(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            // `a/..` may be somewhere else than here, if `a` is a link.
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// The first of these files that exists.
fn read_ignore(candidates: impl Iterator<Item = PathBuf>) -> Result<Ignore> {
    for path in candidates {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable("the ignore file cannot be read", &path, error)),
        };
        return Ignore::parse(&text).map_err(|bad| {
            Error::new(ErrorKind::InvalidInput, format!("`{}` is no pattern: {}", bad.pattern, bad.problem))
                .with_resource(format!("{}:{}", path.display(), bad.line))
        });
    }
    Ok(Ignore::default())
}

struct Walk<'a> {
    ignore: &'a Ignore,
    always: [&'a str; 2],
    items: Vec<Item>,
}

impl Walk<'_> {
    /// Adds what is below a directory, in the order of the names.
    fn directory(&mut self, path: &Path, name: &str) -> Result<()> {
        let read = |error| unreadable("the build context cannot be read", path, error);
        let mut children: Vec<_> = fs::read_dir(path).and_then(Iterator::collect).map_err(read)?;
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            let path = child.path();
            let file_name = child.file_name();
            let Some(file_name) = file_name.to_str() else {
                return Err(Error::new(ErrorKind::InvalidInput, "a file's name in the build context is not UTF-8")
                    .with_resource(path.display().to_string())
                    .with_help("rename it, or leave it out in .dockerignore"));
            };
            let name = if name.is_empty() { file_name.to_owned() } else { format!("{name}/{file_name}") };
            let kind = child.file_type().map_err(|error| unreadable("a file cannot be read", &path, error))?;
            let left_out = self.ignore.leaves_out(&name) && !self.always.contains(&name.as_str());
            if kind.is_dir() {
                self.child_directory(path, name, left_out)?;
            } else if !left_out {
                let kind = match kind {
                    kind if kind.is_symlink() => Kind::Link,
                    kind if kind.is_file() => Kind::File,
                    // Sockets, pipes and devices mean nothing elsewhere.
                    _ => continue,
                };
                self.items.push(Item { name, path, kind });
            }
        }
        Ok(())
    }

    fn child_directory(&mut self, path: PathBuf, name: String, left_out: bool) -> Result<()> {
        // A Dockerfile may be below a directory that is left out, whatever the patterns are.
        let below = format!("{name}/");
        let holds_dockerfile = self.always.iter().any(|always| always.starts_with(&below));
        if left_out && !self.ignore.brings_back() && !holds_dockerfile {
            return Ok(());
        }
        let before = self.items.len();
        self.items.push(Item { name: name.clone(), path: path.clone(), kind: Kind::Directory });
        self.directory(&path, &name)?;
        if left_out && self.items.len() == before + 1 {
            self.items.pop();
        }
        Ok(())
    }
}

/// The text of a Dockerfile without the line that names a frontend; none if no line does. Other lines keep their numbers.
fn without_syntax(text: &str) -> Option<String> {
    let mut found = false;
    let mut among_directives = true;
    let lines = text.split_inclusive('\n').map(|line| {
        // Directives are comments of the form `# key=value` before everything else.
        let directive = line.trim().strip_prefix('#').and_then(|comment| comment.split_once('='));
        among_directives &= directive.is_some();
        match directive {
            Some((key, _)) if among_directives && key.trim().eq_ignore_ascii_case("syntax") => {
                found = true;
                "#\n"
            }
            _ => line,
        }
    });
    let text = lines.collect();
    found.then_some(text)
}

/// A path that could not be read, in our words.
fn unreadable(what: &'static str, path: &Path, error: io::Error) -> Error {
    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::InvalidInput, format!("{what}: it does not exist")),
        io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, what.to_owned()),
        _ => (ErrorKind::InvalidInput, what.to_owned()),
    };
    Error::new(kind, message).with_resource(path.display().to_string()).with_source(error)
}

#[cfg(test)]
mod tests;
