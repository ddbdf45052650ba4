//! What a program has to compile that embeds Deployer, beside what people would use instead: crates, seconds, and the size of the
//! program.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::figures::{Section, table};
use crate::machine;

/// What is compiled.
struct Program {
    name: &'static str,
    key: &'static str,
    dependencies: &'static str,
    /// Uses the parts that do the work, so that the linker cannot leave them out.
    main: &'static str,
}

/// Tokio as embedders have it.
const TOKIO: &str = "tokio = { version = \"1\", features = [\"rt\", \"net\", \"time\", \"macros\"] }\n";

/// What embedders do with a backend.
const DEPLOY: &str = r#"
    let spec = deployer_core::AppSpec::new("shop").unwrap();
    let deployment = deployer_core::Deployer::new(backend).deploy(spec, Default::default());
    println!("{:?}", deployment.finished().await);
"#;

const PROGRAMS: [Program; 6] = [
    Program { name: "nothing", key: "nothing", dependencies: "", main: "fn main() {}\n" },
    Program {
        name: "deployer-core",
        key: "core",
        dependencies: "deployer-core = { path = \"ROOT/deployer-core\" }\nTOKIO",
        main: r#"
            fn main() {
                // Nobody has a backend here, and the linker does not know.
                std::hint::black_box(run as fn(deployer_core::Backend));
            }
            fn run(backend: deployer_core::Backend) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    DEPLOY
                });
            }
        "#,
    },
    Program {
        name: "deployer-core and -local",
        key: "local",
        dependencies: "deployer-core = { path = \"ROOT/deployer-core\" }\ndeployer-local = { path = \"ROOT/deployer-local\" }\nTOKIO",
        main: r#"
            #[tokio::main(flavor = "current_thread")]
            async fn main() -> deployer_core::Result<()> {
                let backend = deployer_local::LocalBackend::connect(deployer_local::LocalOptions::new("state")).await?;
                DEPLOY
                Ok(())
            }
        "#,
    },
    Program {
        name: "deployer-core and -aws",
        key: "aws",
        dependencies: "deployer-core = { path = \"ROOT/deployer-core\" }\ndeployer-aws = { path = \"ROOT/deployer-aws\" }\nTOKIO",
        main: r#"
            use std::sync::Arc;
            fn main() {
                std::hint::black_box(run as fn(Arc<dyn deployer_core::ImageBuilder>));
            }
            fn run(builder: Arc<dyn deployer_core::ImageBuilder>) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let backend = deployer_aws::AwsBackend::from_env("production", builder).await.unwrap();
                    DEPLOY
                });
            }
        "#,
    },
    Program {
        name: "bollard",
        key: "bollard",
        dependencies: "bollard = \"0.21\"\nTOKIO",
        main: r#"
            #[tokio::main(flavor = "current_thread")]
            async fn main() {
                println!("{:?}", bollard::Docker::connect_with_defaults().unwrap().ping().await);
            }
        "#,
    },
    Program {
        name: "testcontainers",
        key: "testcontainers",
        dependencies: "testcontainers = \"*\"\nTOKIO",
        main: r#"
            use testcontainers::runners::AsyncRunner;
            #[tokio::main(flavor = "current_thread")]
            async fn main() {
                println!("{:?}", testcontainers::GenericImage::new("busybox", "1.36").start().await.is_ok());
            }
        "#,
    },
];

pub(crate) fn measure() -> Section {
    let mut text = format!(
        "## What an embedder compiles\n\n`scripts/bench embedding` on {}: a program that uses nothing else, from an empty directory \
         with all sources at hand, `cargo build` with its usual settings. Crates are those of the tree with build scripts, without tests, versions apart.\n\n",
        machine::describe()
    );
    let mut figures = "embedding:".to_owned();
    let mut rows = Vec::new();
    for program in &PROGRAMS {
        let directory = tempfile::tempdir().unwrap();
        let Some((crates, took, bytes)) = build(program, directory.path()) else {
            rows.push(vec![program.name.to_owned(), "cannot be had here".to_owned(), "-".to_owned(), "-".to_owned()]);
            continue;
        };
        println!("{}: {crates} crates, {:.1} s, {:.1} MB", program.name, took.as_secs_f64(), bytes as f64 / 1e6);
        write!(figures, " {key}_crates={crates} {key}_s={:.1}", took.as_secs_f64(), key = program.key).unwrap();
        let size = format!("{:.1} MB", bytes as f64 / 1e6);
        rows.push(vec![program.name.to_owned(), crates.to_string(), format!("{:.1}", took.as_secs_f64()), size]);
    }
    text.push_str(&table(&["uses", "crates", "seconds", "program"], &rows));
    Section { name: "embedding".to_owned(), text, figures, picture: None }
}

/// How many crates it has, how long it takes to compile them, and how large the program is; nothing if they cannot be fetched.
fn build(program: &Program, directory: &Path) -> Option<(usize, Duration, u64)> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize().unwrap();
    let dependencies = program.dependencies.replace("TOKIO", TOKIO).replace("ROOT", root.to_str().unwrap());
    let manifest = format!(
        "[package]\nname = \"embeds\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{dependencies}"
    );
    std::fs::create_dir(directory.join("src")).unwrap();
    std::fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(directory.join("src/main.rs"), program.main.replace("DEPLOY", DEPLOY)).unwrap();
    // The versions that were tried.
    std::fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(directory).env("CARGO_TARGET_DIR", directory.join("target"));
        command.env_remove("CARGO_INCREMENTAL");
        command.output().unwrap()
    };
    let fetched = cargo(&["fetch"]);
    if !fetched.status.success() {
        println!("{}: {}", program.name, String::from_utf8_lossy(&fetched.stderr));
        return None;
    }
    let tree = cargo(&["tree", "-e", "no-dev", "--prefix", "none"]);
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let crates: BTreeSet<&str> = tree.lines().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    let began = Instant::now();
    let built = cargo(&["build", "--quiet"]);
    let took = began.elapsed();
    assert!(built.status.success(), "{}: {}", program.name, String::from_utf8_lossy(&built.stderr));
    let bytes = std::fs::metadata(directory.join("target/debug/embeds")).unwrap().len();
    // The program itself is none.
    Some((crates.len() - 1, took, bytes))
}
