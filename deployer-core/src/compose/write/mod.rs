//! An application back as a Compose file.
//!
//! `yaml` is the tree and its text, `check` finds what a Compose file cannot say, `names` are those that declarations
//! get, and the other files write the topics that the reader's files of the same names read.

mod build;
mod check;
mod container;
mod deploy;
mod extension;
mod formats;
mod gates;
mod health;
mod names;
mod ports;
mod resources;
mod scaling;
mod service;
mod strategy;
mod volumes;
mod yaml;

use names::Names;
use yaml::Map;

use super::app;
use crate::model::{AppSpec, Condition, Problems, ServiceName, ServiceSpec};

/// Writes an application as a Compose file, which [`ComposeReader`](super::ComposeReader) reads as the same application,
/// wherever it lies.
///
/// The text is canonical: equal applications have the same, with a fixed order of keys, long forms, and only what differs
/// from the defaults. It is free of variables (a `$` is written as `$$`), and so are its paths of where it lies. What
/// Compose has no words for is under `x-deployer`.
///
/// Secrets are declared as `external`: a spec does not say where their values are.
///
/// ```
/// use deployer_core::{AppSpec, Route, ServiceSpec, compose};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let web = ServiceSpec::image("shop:42").with_env("PRICE", "5 $").with_route(Route::new(8080));
/// let app = AppSpec::new("shop")?.with_service("web", web)?;
/// let text = compose::write(&app)?;
/// assert_eq!(
///     text,
///     "\
/// name: shop
/// services:
///   web:
///     environment:
///       PRICE: 5 $$
///     image: shop:42
///     restart: unless-stopped
///     x-deployer:
///       routes:
///         - port: 8080
/// "
/// );
/// assert_eq!(compose::ComposeReader::new().read_str(&text, "compose.yaml", "/")?.spec, app);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Every [`Problem`](crate::Problem) at once: what is wrong with the spec by [`AppSpec::validate`], or what a Compose file
/// cannot say, such as the version of a secret, or a path that is not absolute. Nothing is left out silently: what was
/// written is read again and compared.
pub fn write(spec: &AppSpec) -> Result<String, Problems> {
    spec.validate()?;
    check::sayable(spec)?;
    let text = yaml::document(&document(spec));
    check::reads_as(spec, &text)?;
    Ok(text)
}

fn document(spec: &AppSpec) -> Map {
    let AppSpec { name, services, networks, volumes } = spec;
    let names = Names::new(spec);
    let service = |(name, service): (&ServiceName, &ServiceSpec)| {
        (name.as_str().to_owned(), service::service(spec, &names, name, service))
    };
    let mut top = Map::default();
    top.put("name", name.as_str());
    top.put("services", services.iter().map(service).collect::<Map>());
    top.put_filled("networks", networks.iter().map(|(name, spec)| (name, resources::network(spec))).collect::<Map>());
    top.put_filled("volumes", volumes.iter().map(|(name, spec)| (name, resources::volume(spec))).collect::<Map>());
    top.put_filled("configs", names.configs());
    top.put_filled("secrets", names.secrets());
    top
}

/// Whether Compose's own word for a service that does its work before others says all of it: they wait for it to complete.
fn is_awaited(spec: &AppSpec, name: &ServiceName, service: &ServiceSpec) -> bool {
    let awaits = |other: &ServiceSpec| other.depends_on.get(name) == Some(&Condition::Healthy);
    service.replicas == 0 && service.hooks.last() == Some(&app::task_hook()) && spec.services.values().any(awaits)
}
