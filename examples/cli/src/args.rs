//! The arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};
use deployer_core::{ReleaseNumber, ServiceName};

use crate::exit;

/// Deploys Compose applications to this machine's Docker Engine or to Amazon ECS without losing a request, and brings them
/// back.
#[derive(Debug, Parser)]
#[command(name = "deployer", version, after_help = exit::HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every subcommand takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The Compose file; each further one overrides those before it [default: what $COMPOSE_FILE names, else compose.yaml,
    /// compose.yml, docker-compose.yml or docker-compose.yaml, with compose.override.yaml if it is there]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// Deploy services of this profile as well; `*` is every profile
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Vec<String>,
    /// The application's name, whatever the Compose file says
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Where to deploy: `docker`, this machine's engine, or `aws:NAME`, an environment of the account and region that AWS's
    /// own programs would use here
    #[arg(long, global = true, value_name = "PLACE", default_value = "docker")]
    pub(crate) on: Place,
    /// Where releases and the history of Docker are kept [default: deployer in $XDG_STATE_HOME or ~/.local/state; for root
    /// /var/lib/deployer]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the ingress listens for HTTP requests
    #[arg(long, global = true, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
    /// Write JSON to standard output: one document, or for what takes a while one event per line and the record last
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Where to deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This machine's Docker Engine.
    Docker,
    /// An environment on AWS, by its name.
    Aws(String),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "docker" => Ok(Self::Docker),
            Some(("aws", name)) if !name.is_empty() => Ok(Self::Aws(name.to_owned())),
            _ => Err("it is `docker` or `aws:NAME`"),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what is wrong with the Compose file
    Check,
    /// Write the application as one Compose file, with everything put in, or with --json as the model has it
    Config,
    /// Say what `deploy` would do; images are built, nothing that runs is touched
    Plan,
    /// Build, start, check, move traffic, and keep it or bring back what was there before
    Deploy {
        /// Why, for the history
        #[arg(short, long, value_name = "TEXT")]
        message: Option<String>,
        /// Stop a deployment that is under way where it is, and go on from there
        #[arg(long)]
        supersede: bool,
    },
    /// Bring back an earlier release: the last one that was good unless told otherwise
    Rollback {
        /// The release, such as v3
        #[arg(long, value_name = "RELEASE")]
        to: Option<ReleaseNumber>,
    },
    /// Show what serves, what runs, and where the two differ
    Status,
    /// Show the deployments, newest first
    History {
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Show what instances and tasks have written
    Logs {
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
        /// The Compose file; here without its short form, since `-f` is `--follow`
        // Has the id of the global option and takes its place: both end up in `Global::file`.
        #[arg(long, value_name = "PATH")]
        file: Vec<PathBuf>,
        /// Only the last lines of each instance
        #[arg(long, value_name = "N")]
        tail: Option<u32>,
        /// Only of these services
        services: Vec<ServiceName>,
    },
    /// Stop the deployment that is under way and bring back what was there before
    Cancel {
        /// Why, for the history
        #[arg(short, long, value_name = "TEXT")]
        message: Option<String>,
    },
    /// Go on with a deployment whose process was killed
    Resume,
    /// Let the deployment that is under way pass its approval gates
    Promote,
    /// Clear away what cannot be rolled back to any more
    Prune {
        /// How many good releases to keep
        #[arg(long, value_name = "N", default_value_t = 10)]
        keep: u32,
    },
    /// Remove everything of the application but its history
    Destroy {
        /// Remove volumes, and with them the data, too
        #[arg(long)]
        volumes: bool,
        /// Do not ask on a terminal
        #[arg(short, long)]
        yes: bool,
    },
    /// What applications on AWS live in: network, cluster, load balancer, roles, table, logs; one CloudFormation stack
    Environment {
        #[command(subcommand)]
        command: EnvironmentCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnvironmentCommand {
    /// Print the CloudFormation template
    Template(EnvironmentChange),
    /// Say what `apply` would do
    Plan(EnvironmentChange),
    /// Make it, or bring it to what is said here
    Apply(EnvironmentChange),
    /// Show what it has, and where it is not as its template says
    Show {
        /// Its name
        name: String,
    },
    /// Delete it. Table and logs are kept
    Delete {
        /// Its name
        name: String,
    },
}

/// What an environment shall be.
#[derive(Debug, clap::Args)]
pub(crate) struct EnvironmentChange {
    /// Its name
    pub(crate) name: String,
    /// Serve HTTPS with this certificate, and redirect HTTP to it; the first is for clients that name no host
    #[arg(long = "certificate", value_name = "ARN")]
    pub(crate) certificates: Vec<String>,
    /// Let instances be given this secret or parameter; `*` stands for any characters
    #[arg(long = "secret", value_name = "ARN")]
    pub(crate) secrets: Vec<String>,
    /// Serve clients inside the network only
    #[arg(long)]
    pub(crate) internal: bool,
    /// Let services publish this port, on a load balancer of its own
    #[arg(long = "publish", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) published_ports: Vec<u16>,
    /// Let instances reach each other, as services must that call each other by name
    #[arg(long)]
    pub(crate) connected: bool,
}
