//! Building images: copying a context, running the recipe's lines, hashing what comes out.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use async_trait::async_trait;
use deployer_core::{BuildImage, BuiltImage, Error, ErrorKind, ImageBuilder, Progress, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;

use super::recipe::Recipe;
use super::{CONFIG, ROOT, content, put};
use crate::failure::{blocking, io};
use crate::files::{self, Durable};
use crate::layout::Layout;
use crate::naming::variable;

/// So many lines of a failed line's output are told.
const LAST_LINES: usize = 20;

/// Builds images from directories.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryBuilder {
    layout: Layout,
}

impl DirectoryBuilder {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

#[async_trait]
impl ImageBuilder for DirectoryBuilder {
    async fn build(&self, request: BuildImage) -> Result<BuiltImage> {
        let draft = self.layout.build_draft();
        let built = self.build_in(&draft, &request).await;
        if built.is_err() {
            // Best effort: the error is what matters, and what stays is in the way of nobody.
            let _ = files::remove_tree(&draft);
        }
        built
    }
}

impl DirectoryBuilder {
    async fn build_in(&self, draft: &Path, request: &BuildImage) -> Result<BuiltImage> {
        let BuildImage { build, progress, .. } = request;
        if build.target.is_some() {
            return Err(Error::new(ErrorKind::Unsupported, "recipes have no stages").with_help("leave `target` out"));
        }
        if !build.context.is_dir() {
            return Err(Error::new(ErrorKind::InvalidInput, "the build context is not a directory")
                .with_context("context", build.context.display().to_string()));
        }
        let recipe = Recipe::of(build)?;
        progress.progress(Progress::new("context", "copying"));
        let (context, root, file) = (build.context.clone(), draft.join(ROOT), Recipe::file(build));
        blocking(move || {
            files::copy_tree(&context, &root).map_err(io(format!("copy {}", context.display())))?;
            // The recipe is about the image and not in it.
            files::absent(fs::remove_file(root.join(file))).map_err(io("leave the recipe out")).map(|_| ())
        })
        .await?;
        for (index, line) in recipe.run.iter().enumerate() {
            let item = format!("[{}/{}] {line}", index + 1, recipe.run.len());
            run(&item, line, &draft.join(ROOT), request).await?;
        }
        let (layout, draft) = (self.layout.clone(), draft.to_owned());
        let digest = blocking(move || {
            let made = (|| {
                files::replace(&draft.join(CONFIG), &recipe.image, Durable::No)?;
                let digest = content::digest(&draft)?;
                put(&draft, &layout.build(&digest))?;
                Ok(digest)
            })();
            made.map_err(io("finish the image"))
        })
        .await?;
        progress.progress(Progress::new("image", format!("built {}", digest.short())));
        let reference = build.tag.clone().unwrap_or_else(|| format!("{}/{}", request.app, request.service));
        Ok(BuiltImage::new(digest, reference))
    }
}

/// Runs one line of a recipe.
async fn run(item: &str, line: &str, root: &Path, request: &BuildImage) -> Result<()> {
    let progress = &request.progress;
    progress.progress(Progress::new(item, "started"));
    // Dropped with the future: a build that nobody waits for any more ends.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).current_dir(root).kill_on_drop(true).stdin(Stdio::null());
    command.envs(&request.build.args);
    for (id, value) in &request.secrets {
        command.env(format!("SECRET_{}", variable(id)), value.expose());
    }
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(io("start /bin/sh"))?;
    let mut last: Vec<String> = Vec::new();
    let (mut out, mut err) = (lines(child.stdout.take()), lines(child.stderr.take()));
    loop {
        let line = tokio::select! {
            Some(line) = next(&mut out) => line,
            Some(line) = next(&mut err) => line,
            else => break,
        };
        progress.progress(Progress::new(item, line.clone()));
        if last.len() == LAST_LINES {
            last.remove(0);
        }
        last.push(line);
    }
    let status = child.wait().await.map_err(io("wait for a line of the recipe"))?;
    if status.success() {
        progress.progress(Progress::new(item, "done"));
        return Ok(());
    }
    let how = status.code().map_or_else(|| "was killed".to_owned(), |code| format!("ended with code {code}"));
    let output: Box<dyn std::error::Error + Send + Sync> = last.join("\n").into();
    Err(Error::new(ErrorKind::Workload, format!("a line of the recipe {how}"))
        .with_resource(item.to_owned())
        .with_source(output))
}

type Lines<R> = Option<tokio::io::Lines<BufReader<R>>>;

fn lines<R: AsyncRead + Unpin>(reader: Option<R>) -> Lines<R> {
    reader.map(|reader| BufReader::new(reader).lines())
}

/// The next line; none for ever after the last one, or the first that is not text.
async fn next<R: AsyncRead + Unpin>(lines: &mut Lines<R>) -> Option<String> {
    let line = lines.as_mut()?.next_line().await.ok().flatten();
    if line.is_none() {
        *lines = None;
    }
    line
}
