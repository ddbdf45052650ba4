//! The reader: what a program says, and from files to an application, stage by stage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::app::{self, Wanted};
use super::cursor::Cursor;
use super::env_file::{self, Presence};
use super::loader::Loader;
use super::node::{Node, Position};
use super::report::Report;
use super::sources::{Location, Sources};
use super::variables::{Origin, Variables};
use super::{discover, keys, load, project, settings};
use crate::backend::SecretValue;
use crate::model::{AppName, AppSpec, Problem, Problems};

/// Reads Compose files.
///
/// The process environment is never looked at: variables are what [`with_env`](Self::with_env) gives, then what the
/// `.env` file beside the Compose file holds. Programs whose users expect their shell's variables to count pass
/// `std::env::vars()` to [`with_env_map`](Self::with_env_map).
///
/// `Debug` shows the names of the variables, not their values.
#[derive(Clone, Default)]
pub struct ComposeReader {
    env: BTreeMap<String, String>,
    project_name: Option<String>,
    env_files: Vec<PathBuf>,
    wanted: Wanted,
    compose_variables: bool,
}

impl std::fmt::Debug for ComposeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComposeReader")
            .field("env", &self.env.keys())
            .field("project_name", &self.project_name)
            .field("env_files", &self.env_files)
            .field("wanted", &self.wanted)
            .field("compose_variables", &self.compose_variables)
            .finish()
    }
}

/// A Compose file as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComposeApp {
    /// The application; it has been [validated](AppSpec::validate).
    pub spec: AppSpec,
    /// What has no effect, or is probably not what was meant.
    pub warnings: Problems,
    /// Where the values of secrets are that the files tell of, by the names for [`Secrets`](crate::Secrets). The program
    /// hands them to the `Secrets` of the deployment; the spec never holds a value.
    pub secrets: BTreeMap<String, SecretOrigin>,
}

/// Where the value of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOrigin {
    /// In this file.
    File(PathBuf),
    /// In a variable, which had this value.
    Value(SecretValue),
}

impl ComposeReader {
    /// A reader without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable. It wins over one of that name in `.env`.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets several variables.
    #[must_use]
    pub fn with_env_map<N: Into<String>, V: Into<String>>(mut self, env: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(env.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Names the application, whatever the file says.
    #[must_use]
    pub fn with_project_name(mut self, name: impl Into<String>) -> Self {
        self.project_name = Some(name.into());
        self
    }

    /// Reads variables from this file instead of from `.env` beside the Compose file. It has to exist. Of several files
    /// the later ones win.
    #[must_use]
    pub fn with_env_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.env_files.push(path.into());
        self
    }

    /// Includes the services of this profile; `*` includes those of all.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.wanted.profiles.insert(profile.into());
        self
    }

    /// Names a service explicitly, which enables its profiles. The other services stay part of the application.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<String>) -> Self {
        self.wanted.services.insert(service.into());
        self
    }

    /// Lets the variables count by which users of Compose say what is read, where the program does not say it itself:
    /// `COMPOSE_FILE` with `COMPOSE_PATH_SEPARATOR`, in [`read_dir`](Self::read_dir); `COMPOSE_PROFILES`;
    /// `COMPOSE_ENV_FILES`, and `COMPOSE_DISABLE_ENV_FILE`. Like all variables they come from
    /// [`with_env`](Self::with_env), and all but the last two also from `.env`.
    ///
    /// ```
    /// use deployer_core::compose::ComposeReader;
    ///
    /// # fn main() -> Result<(), deployer_core::Problems> {
    /// let text = "services: {web: {image: w}, mail: {image: m, profiles: [dev]}}";
    /// let reader = ComposeReader::new().with_env("COMPOSE_PROFILES", "dev").with_compose_variables();
    /// assert_eq!(reader.read_str(text, "compose.yaml", "/srv/shop")?.spec.services.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_compose_variables(mut self) -> Self {
        self.compose_variables = true;
        self
    }

    /// Reads a Compose file, and what belongs to it: `.env`, the files under `include`, `extends` and `env_file`.
    ///
    /// # Errors
    /// Every problem at once, warnings among them, if one of them is an error.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<ComposeApp, Problems> {
        self.read_files([path])
    }

    /// Reads several Compose files, each overriding those before it, and what belongs to them. Relative paths in all of
    /// them begin at the directory of the first.
    ///
    /// # Errors
    /// Every problem at once, warnings among them, if one of them is an error.
    ///
    /// ```
    /// use deployer_core::compose::ComposeReader;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = |name: &str| dir.path().join(name);
    /// std::fs::write(path("compose.yaml"), "services: {web: {image: 'web:1', environment: {A: 1, B: 1}}}")?;
    /// std::fs::write(path("production.yaml"), "services: {web: {image: 'web:2', environment: [B=2]}}")?;
    /// let app = ComposeReader::new().read_files([path("compose.yaml"), path("production.yaml")])?;
    /// let web = &app.spec.services["web"];
    /// assert_eq!(web.image, deployer_core::ImageSource::Reference("web:2".into()));
    /// assert_eq!(web.workload.env.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_files<P: AsRef<Path>>(&self, paths: impl IntoIterator<Item = P>) -> Result<ComposeApp, Problems> {
        let mut report = Report::default();
        let files: Vec<PathBuf> = paths.into_iter().map(|path| path.as_ref().to_owned()).collect();
        let app = self.files(&mut report, &files, self.given());
        finish(report, app)
    }

    /// Reads the Compose file of a directory: `compose.yaml`, else `compose.yml`, `docker-compose.yml` or
    /// `docker-compose.yaml`, and the file that overrides it, if there is one: `compose.override.yml`, else
    /// `compose.override.yaml`, `docker-compose.override.yml` or `docker-compose.override.yaml`. Directories above are
    /// not searched.
    ///
    /// With [`with_compose_variables`](Self::with_compose_variables), `COMPOSE_FILE` names the files instead.
    ///
    /// # Errors
    /// Every problem at once, warnings among them, if one of them is an error.
    pub fn read_dir(&self, dir: impl AsRef<Path>) -> Result<ComposeApp, Problems> {
        let mut report = Report::default();
        let app = self.dir(&mut report, dir.as_ref());
        finish(report, app)
    }

    /// Reads the text of a Compose file. `file_name` is how problems name it; relative paths, `.env` and the files
    /// under `include`, `extends` and `env_file` are looked for in `project_dir`.
    ///
    /// # Errors
    /// Every problem at once, warnings among them, if one of them is an error.
    pub fn read_str(
        &self,
        text: &str,
        file_name: impl Into<String>,
        project_dir: impl AsRef<Path>,
    ) -> Result<ComposeApp, Problems> {
        let mut report = Report::default();
        let (name, dir) = (file_name.into(), project_dir.as_ref());
        let path = dir.join(Path::new(&name).file_name().unwrap_or_default());
        let input = Input { name, path, text: text.to_owned() };
        let app = self.read(&mut report, &[input], dir, self.given());
        finish(report, app)
    }

    /// The variables that the program gives.
    fn given(&self) -> Variables {
        let mut given = Variables::default();
        for (name, value) in &self.env {
            given.set(name, value.as_str(), Origin::Program);
        }
        given
    }

    fn dir(&self, report: &mut Report, dir: &Path) -> Option<ComposeApp> {
        let given = self.given();
        if self.compose_variables {
            // If the files are elsewhere, `.env` of this directory counts before the one beside them.
            let location = locate(report, dir)?;
            let mut variables = given.clone();
            variables.fill(self.env_files(report, &location, &given)?);
            if let Some(files) = settings::files(&variables) {
                let files: Vec<PathBuf> = files.iter().map(|file| dir.join(file)).collect();
                return self.files(report, &files, variables);
            }
        }
        let files = discover::files(report, dir)?;
        self.files(report, &files, given)
    }

    fn files(&self, report: &mut Report, paths: &[PathBuf], given: Variables) -> Option<ComposeApp> {
        let Some(first) = paths.first() else {
            report.add(Problem::error("", "no Compose file is named"));
            return None;
        };
        let mut inputs = Vec::new();
        for path in paths {
            let name = path.display().to_string();
            match load::text(path) {
                Ok(Some(text)) => inputs.push(Input { name, path: path.clone(), text }),
                Ok(None) => report.add(Problem::error(name, "the file does not exist")),
                Err(why) => report.add(Problem::error(name, why)),
            }
        }
        if inputs.len() < paths.len() {
            return None;
        }
        self.read(report, &inputs, first.parent().unwrap_or(Path::new("")), given)
    }

    fn read(&self, report: &mut Report, inputs: &[Input], dir: &Path, mut given: Variables) -> Option<ComposeApp> {
        let dir = locate(report, dir)?;
        let own = self.env_files(report, &dir, &given)?;
        given.fill(own);
        let mut wanted = self.wanted.clone();
        if self.compose_variables && wanted.profiles.is_empty() {
            wanted.profiles.extend(settings::profiles(&given));
        }

        let mut loader = Loader::new(report, Sources::new(given));
        let mut trees = Vec::new();
        for input in inputs {
            trees.push(loader.parse(input.name.clone(), &input.text, dir.clone(), Sources::MAIN));
        }
        let mut trees: Vec<Node> = trees.into_iter().collect::<Option<Vec<_>>>()?.concat();
        // The name is put in first, because all other values may refer to it.
        let name = self.name(&mut loader, &mut trees, &dir);
        if let Some(name) = &name {
            let variables = loader.sources.variables_mut(Sources::MAIN);
            variables.set("COMPOSE_PROJECT_NAME", name.as_str(), Origin::ProjectName);
        }
        let trail: Option<Vec<Location>> = inputs.iter().map(|input| locate(loader.report, &input.path)).collect();
        let root = loader.model(trees, &trail?)?;
        let Loader { sources, complete, .. } = loader;

        let top = report.fields(&Cursor::root(&root), &keys::TOP)?;
        let app = app::read(report, &top, name, &sources, &wanted).filter(|_| complete)?;
        let (Ok(problems) | Err(problems)) = app.spec.validate();
        report.adopt(problems);
        Some(app)
    }

    /// The variables of the files that were named, else of `.env` in the directory.
    fn env_files(&self, report: &mut Report, dir: &Location, given: &Variables) -> Option<Variables> {
        let mut own = Variables::default();
        let mut files = Vec::new();
        for file in &self.env_files {
            files.push(locate(report, file)?);
        }
        let mut presence = Presence::Required;
        if self.compose_variables && files.is_empty() {
            files.extend(settings::env_files(given).map(|file| dir.join(file)));
        }
        if files.is_empty() && !(self.compose_variables && settings::no_env_file(given)) {
            presence = Presence::Optional;
            files.push(dir.join(".env"));
        }
        let read = |file: Location| env_file::read(report, &file, presence, given, &mut own);
        // Not `all`, which would end at the first file with problems.
        let good = files.into_iter().map(read).fold(true, |all, one| all & one);
        good.then_some(own)
    }

    /// The application's name: the caller's, else that of the variable `COMPOSE_PROJECT_NAME`, else the last that a file
    /// has, else the directory's.
    fn name(&self, loader: &mut Loader<'_>, trees: &mut [Node], dir: &Location) -> Option<AppName> {
        let mut at = Position { file: 0, line: 1, column: 1 };
        let mut written = None;
        for tree in trees {
            let Some(mut entry) = tree.take("name") else { continue };
            loader.interpolate(&mut entry.value, "name");
            let cursor = Cursor { node: &entry.value, path: "name".to_owned() };
            if !cursor.is_null() {
                at = entry.value.at;
                written = loader.report.text(&cursor);
            }
        }
        let given = loader.sources.variables_in(Sources::MAIN).get("COMPOSE_PROJECT_NAME");
        let given = given.filter(|name| !name.is_empty()).map(str::to_owned);
        let name = self.project_name.clone().or(given).or(written);
        match AppName::new(name.unwrap_or_else(|| project::name_of(&dir.absolute))) {
            Ok(name) => Some(name),
            Err(error) => {
                let help = "write `name:` at the top of the file".to_owned();
                loader.report.problem("name", at, error.message(), help);
                None
            }
        }
    }
}

/// The text of a Compose file that the program names.
struct Input {
    /// How problems name it.
    name: String,
    path: PathBuf,
    text: String,
}

fn finish(report: Report, app: Option<ComposeApp>) -> Result<ComposeApp, Problems> {
    match app {
        Some(app) if !report.has_errors() => Ok(ComposeApp { warnings: report.finish(), ..app }),
        _ => Err(report.finish()),
    }
}

fn locate(report: &mut Report, path: &Path) -> Option<Location> {
    match Location::new(path) {
        Ok(location) => Some(location),
        Err(error) => {
            let name = path.display().to_string();
            report.add(Problem::error(name, format!("the directory cannot be found: {error}")));
            None
        }
    }
}
