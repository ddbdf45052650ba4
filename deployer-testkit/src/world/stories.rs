//! Ready-made stories: what tests of deployments are about, one call each.
//!
//! All but [`with_serving`](World::with_serving) are words for a [`Behaviour`] given to [`World::on_image`] or
//! [`World::on_command`]; a story with more to it (log lines, a few runs only, one environment variable) is told with
//! these.

use std::panic::Location;
use std::time::Duration;

use deployer_core::{AppSpec, DeployOptions, DeploymentRecord, ImageSource};

use super::World;
use crate::scenario::Behaviour;

/// # Stories
///
/// What goes wrong in the world, in one call each. See also [`lose_image`](World::lose_image),
/// [`break_build`](World::break_build), [`occupy_port`](World::occupy_port), [`kill_instance`](World::kill_instance) and
/// [`move_weights_by_hand`](World::move_weights_by_hand), which strike when they are called.
///
/// ```
/// use std::time::Duration;
/// use deployer_core::{AppSpec, DeployOptions, Route, ServiceSpec};
/// use deployer_testkit::{World, simulate};
///
/// # fn main() -> deployer_core::Result<()> {
/// let shop = |image: &str| {
///     let web = ServiceSpec::image(image).with_replicas(2).with_route(Route::new(8080)).with_http_probe("/", 8080);
///     AppSpec::new("shop")?.with_service("web", web)
/// };
/// let world = World::new();
/// world.with_slow_start("shop:v2", Duration::from_secs(20));
/// world.crash_loop("shop:v3", 3);
/// simulate(async {
///     world.with_serving(shop("shop:v1")?).await;
///     let deployer = world.deployer();
///     let record = deployer.deploy(shop("shop:v2")?, DeployOptions::default()).finished().await?;
///     world.assert_promoted(&record);
///     let record = deployer.deploy(shop("shop:v3")?, DeployOptions::default()).finished().await?;
///     world.assert_rolled_back(&record).because("exited with code 3");
///     world.assert_serving("shop", "web", "shop:v2", 2);
///     world.assert_capacity_at_least("shop", "web", 2);
///     Ok(())
/// })
/// # }
/// ```
impl World {
    /// Deploys an application with the real engine, whose images are [added](World::add_image) as far as they are named
    /// and not there yet; then [watches the capacity](World::watch_capacity) anew, so that what comes next is judged
    /// alone. Answers the deployment's record.
    ///
    /// # Panics
    /// Unless it is promoted, with a table of what there is.
    #[track_caller]
    pub fn with_serving(&self, app: AppSpec) -> impl Future<Output = DeploymentRecord> + Send + use<> {
        // A panic within the future would name this file, which is no help to whoever reads it.
        let (world, caller) = (self.clone(), Location::caller());
        async move {
            for service in app.services.values() {
                if let ImageSource::Reference(reference) = &service.image {
                    world.add_image(reference);
                }
            }
            let name = app.name.clone();
            let ended = world.deployer().deploy(app, DeployOptions::default()).finished().await;
            world.watch_capacity();
            match ended {
                Ok(record) if record.verdict.as_ref().is_some_and(deployer_core::Verdict::is_promoted) => record,
                Ok(record) => panic!(
                    "{name}, which {caller} wants to be serving, {}\n{}",
                    record.verdict.map_or_else(|| "has no verdict".to_owned(), |verdict| format!("was {verdict}")),
                    world.describe()
                ),
                Err(error) => panic!(
                    "{name}, which {caller} wants to be serving, cannot be deployed: {error}\n{}",
                    world.describe()
                ),
            }
        }
    }

    /// The image needs so long to be ready.
    pub fn with_slow_start(&self, image: &str, ready_after: Duration) {
        self.on_image(image, Behaviour::slow_start(ready_after));
    }

    /// The image needs so long to end when it is told to; longer than its grace period and it is killed.
    pub fn with_slow_stop(&self, image: &str, stops_in: Duration) {
        self.on_image(image, Behaviour::slow_stop(stops_in));
    }

    /// The image answers so many of a thousand requests with a status of 500.
    pub fn with_errors_permille(&self, image: &str, share: u16) {
        self.on_image(image, Behaviour::healthy().with_errors_permille(share));
    }

    /// The image exits with this code shortly after every start.
    pub fn crash_loop(&self, image: &str, code: i64) {
        self.on_image(image, Behaviour::crash_loop(code));
    }

    /// The image exits with this code when it has run so long, after every start.
    pub fn crash_after(&self, image: &str, after: Duration, code: i64) {
        self.on_image(image, Behaviour::crash_after(after, code));
    }

    /// The image is killed for want of memory when it has run so long, after every start.
    pub fn out_of_memory(&self, image: &str, after: Duration) {
        self.on_image(image, Behaviour::out_of_memory(after));
    }

    /// The image runs and never passes a check; this is what the check says.
    pub fn never_healthy(&self, image: &str, detail: &str) {
        self.on_image(image, Behaviour::never_healthy(detail));
    }

    /// The image is ready in time and fails its checks from some time after its start on.
    pub fn sick_after(&self, image: &str, after: Duration, detail: &str) {
        self.on_image(image, Behaviour::sick_after(after, detail));
    }

    /// The image cannot be started at all; these are the platform's words.
    pub fn start_error(&self, image: &str, error: &str) {
        self.on_image(image, Behaviour::start_error(error));
    }

    /// One-off tasks whose command has this word, such as a migration, write this line after a second and exit with this
    /// code.
    pub fn failing_task(&self, word: &str, code: i64, line: &str) {
        self.on_command(word, Behaviour::task(Duration::from_secs(1), code).with_log(line));
    }
}
