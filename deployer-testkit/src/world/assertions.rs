//! What tests ask of the world, in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::World;
use super::traffic::LostRequest;

impl World {
    /// A table of everything in the world, for the message of a failing test.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = self.lock();
        let mut text = format!("the world at {}\n", state.now);
        for instance in state.instances.values() {
            let state_of = if instance.serves() { "serving".to_owned() } else { format!("{:?}", instance.life) };
            let _ = writeln!(
                text,
                "  instance {} {} ({}): {state_of}, {} crashes",
                instance.name, instance.image.reference, instance.revision, instance.crashes
            );
        }
        for ((app, task), row) in &state.tasks {
            let _ = writeln!(text, "  task {task} of {app}: {:?}", row.exit(state.now));
        }
        for ((app, service), entry) in &state.routing {
            let _ = writeln!(text, "  entry {app}/{service}, weights {}", entry.version);
            for (revision, pool) in &entry.pools {
                let _ = write!(text, "    pool {revision}: {} %", pool.weight);
                for (id, target) in &pool.targets {
                    let in_flight = state.traffic.in_flight_of(id);
                    let _ = write!(text, ", {id} {:?} ({in_flight} in flight)", state.target_state(target));
                }
                text.push('\n');
            }
        }
        for violation in &state.violations {
            let _ = writeln!(text, "  violation: {violation}");
        }
        text
    }

    /// Asserts that so many instances of the image of this reference serve, that they get all the service's traffic if
    /// it has an entry, and that nothing else of the service runs.
    ///
    /// # Panics
    /// If it is not so, with a table of what there is.
    #[track_caller]
    pub fn assert_serving(&self, app: &str, service: &str, image: &str, instances: u32) {
        if let Err(why) = self.is_serving(app, service, image, instances) {
            panic!("{app}/{service} should be served by {instances} of {image}, but {why}\n{}", self.describe());
        }
    }

    fn is_serving(&self, app: &str, service: &str, image: &str, instances: u32) -> Result<(), String> {
        let state = self.lock();
        let of_service = |instance: &&super::instances::Instance| {
            instance.app.as_str() == app && instance.revision.service().as_str() == service
        };
        let ours = || state.instances.values().filter(of_service);
        let serving = ours().filter(|instance| instance.serves() && instance.image.reference == image).count();
        if serving != instances as usize {
            return Err(format!("{serving} serve"));
        }
        if let Some(other) = ours().find(|instance| instance.image.reference != image && instance.is_alive()) {
            return Err(format!("{} of {} runs", other.name, other.image.reference));
        }
        let mut entries = state.routing.iter();
        let entry = entries.find(|((owner, name), _)| owner.as_str() == app && name.as_str() == service);
        let Some((_, entry)) = entry else { return Ok(()) };
        let mut in_rotation = 0;
        for (revision, pool) in entry.pools.iter().filter(|(_, pool)| pool.weight > 0) {
            for id in pool.targets.keys() {
                match state.instances.get(id) {
                    Some(instance) if instance.image.reference != image => {
                        return Err(format!("{revision} has {} % and runs {}", pool.weight, instance.image.reference));
                    }
                    _ => {}
                }
            }
            in_rotation += state.targets_in_service(pool);
        }
        if in_rotation == instances { Ok(()) } else { Err(format!("{in_rotation} of them are in rotation")) }
    }

    /// Asserts that a service's traffic is shared out so over the images of these references, in percent, and that each
    /// has a target in service.
    ///
    /// # Panics
    /// If it is not so, with a table of what there is.
    #[track_caller]
    pub fn assert_traffic(&self, app: &str, service: &str, shares: &[(&str, u8)]) {
        let wanted: BTreeMap<String, u8> = shares.iter().map(|(image, share)| ((*image).to_owned(), *share)).collect();
        let found = self.traffic_shares(app, service);
        assert!(
            found == wanted,
            "the traffic of {app}/{service} should be shared out as {wanted:?}, but is {found:?}\n{}",
            self.describe()
        );
    }

    /// The weights of a service's pools with something in service, by the image that serves there.
    fn traffic_shares(&self, app: &str, service: &str) -> BTreeMap<String, u8> {
        let state = self.lock();
        let entries =
            state.routing.iter().filter(|((owner, name), _)| owner.as_str() == app && name.as_str() == service);
        let mut shares = BTreeMap::new();
        for (revision, pool) in entries.flat_map(|(_, entry)| &entry.pools).filter(|(_, pool)| pool.weight > 0) {
            let mut targets = pool.targets.keys().filter_map(|id| state.instances.get(id));
            let image = targets.find(|instance| instance.serves()).map(|instance| instance.image.reference.clone());
            *shares.entry(image.unwrap_or_else(|| format!("nothing of {revision}"))).or_default() += pool.weight;
        }
        shares
    }

    /// Asserts that no instance, task, entry or network of an application is there. Volumes may be: they hold data.
    ///
    /// # Panics
    /// If something is, with a table of what there is.
    #[track_caller]
    pub fn assert_nothing_left(&self, app: &str) {
        let state = self.lock();
        let instances = state.instances.values().filter(|instance| instance.app.as_str() == app).count();
        let tasks = state.tasks.keys().filter(|(owner, _)| owner.as_str() == app).count();
        let entries = state.routing.keys().filter(|(owner, _)| owner.as_str() == app).count();
        let networks = state.shared.iter().filter(|(owner, shared)| owner.as_str() == app && shared.ready).count();
        drop(state);
        let definitions = self.definitions(app).len();
        assert!(
            instances + tasks + entries + networks + definitions == 0,
            "nothing of {app} should be left, but there are {instances} instances, {tasks} tasks, {entries} entries, \
             {networks} sets of networks and {definitions} definitions\n{}",
            self.describe()
        );
    }

    /// Asserts that every request so far was answered or is being worked on, and that there was one.
    ///
    /// # Panics
    /// If one was lost, or none was sent.
    #[track_caller]
    pub fn assert_no_requests_lost(&self) {
        let report = self.traffic_report();
        assert!(report.sent > 0, "no request was sent at all");
        let lost: Vec<String> = report.lost.iter().take(10).map(LostRequest::to_string).collect();
        assert!(
            lost.is_empty(),
            "{} of {} requests were lost, the first ones:\n  {}\n{}",
            report.lost.len(),
            report.sent,
            lost.join("\n  "),
            self.describe()
        );
    }

    /// Asserts that no [rule](crate::Rule) was broken.
    ///
    /// # Panics
    /// If one was.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations: Vec<String> = self.violations().iter().map(ToString::to_string).collect();
        assert!(
            violations.is_empty(),
            "no rule should be broken, but these were:\n  {}\n{}",
            violations.join("\n  "),
            self.describe()
        );
    }

    /// Asserts that at least so many instances of a service could serve at every moment since it first could, or since
    /// [`watch_capacity`](World::watch_capacity).
    ///
    /// # Panics
    /// If there were less, or it never could.
    #[track_caller]
    pub fn assert_capacity_at_least(&self, app: &str, service: &str, instances: u32) {
        match self.least_capacity(app, service) {
            Some((least, at)) => assert!(
                least >= instances,
                "{app}/{service} should never have less than {instances} serving instances, but had {least} at {at}\n{}",
                self.describe()
            ),
            None => panic!("{app}/{service} never served\n{}", self.describe()),
        }
    }
}
