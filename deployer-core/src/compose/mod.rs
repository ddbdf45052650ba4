//! Reads Compose files into an [`AppSpec`](crate::AppSpec), and writes it back as one.
//!
//! A [`ComposeReader`] takes files that also work with the Compose tools, and finds everything that is wrong with them
//! at once, each [`Problem`](crate::Problem) with its line and column. No key is dropped silently: it is read, ignored
//! with a warning, or refused. What Compose has no words for, such as routes, strategies and gates, stands under
//! `x-deployer` of a service.
//!
//! ```
//! use deployer_core::compose::ComposeReader;
//!
//! # fn main() -> Result<(), deployer_core::Problems> {
//! let app = ComposeReader::new().with_env("TAG", "1.2").read_str(
//!     "
//! name: shop
//! services:
//!   web:
//!     image: shop:${TAG}
//!     expose: [8080]
//!     x-deployer:
//!       route: { host: shop.example }
//!       strategy: { type: blue-green, keep-warm: 10m }
//! ",
//!     "compose.yaml",
//!     "/srv/shop",
//! )?;
//! assert_eq!(app.spec.services["web"].routes[0].port, 8080);
//! assert_eq!(app.warnings.0, []);
//! # Ok(())
//! # }
//! ```
//!
//! The stages, one file each: `source` makes a tree of nodes with places from text, `interpolate` puts variables in,
//! `include` and `extends` add what is written elsewhere, `merge` makes one tree of several by the table in `rules`, and
//! `loader` does all that in order. The rest translates nodes into the model, beginning in `app`, with `keys` as the one
//! table of what is supported.
//!
//! [`write`] goes the other way: files of the same names in its directory write the topics that these read.

mod app;
mod balancing;
mod budget;
mod build;
mod check;
mod container;
mod cursor;
mod deploy;
mod discover;
mod dotenv;
mod env_file;
mod environment;
mod extends;
mod extension;
mod fates;
mod files;
mod formats;
mod forms;
mod gates;
mod health;
mod include;
mod interpolate;
mod items;
mod keys;
mod load;
mod loader;
mod merge;
mod node;
mod ports;
mod profiles;
mod project;
mod reader;
mod render;
mod report;
mod resources;
mod rules;
mod scaling;
mod service;
mod settings;
mod source;
mod sources;
mod strategy;
mod template;
mod variables;
mod volumes;
mod words;
mod write;

#[cfg(test)]
mod tests;

pub use fates::{KeyFate, fates};
pub use keys::Fate;
use project::Project;
pub use reader::{ComposeApp, ComposeReader, SecretOrigin};
pub use render::render;
pub use write::write;
