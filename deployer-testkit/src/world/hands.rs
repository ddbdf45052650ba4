//! People who interfere: at a console, past the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use deployer_core::{ExitDetail, InstanceId, RevisionId, Signal, Timestamp};

use super::World;
use super::instances::Life;
use super::traffic::{LossReason, LostRequest};
use crate::faults::Fault;

impl World {
    /// Kills the running instance of this ordinal of every revision of the service; the platform starts it again.
    /// Answers how many there were.
    pub fn kill_instance(&self, app: &str, service: &str, ordinal: u32) -> usize {
        let mut state = self.lock();
        let running = state.instances.values().filter(|instance| {
            let named = instance.app.as_str() == app && instance.revision.service().as_str() == service;
            named && instance.ordinal == ordinal && instance.life == Life::Running
        });
        let ids: Vec<InstanceId> = running.map(|instance| instance.id.clone()).collect();
        ids.iter().for_each(|id| state.kill(id));
        ids.len()
    }

    /// Lets a host go down for so long. Its instances end; they are started again when it is back, or at once on another
    /// host where there is one. As long as no host is up, no call is answered.
    pub fn fail_host(&self, host: u32, down_for: Duration) {
        let mut state = self.lock();
        let now = state.now;
        state.hosts_down.retain(|_, back| *back > now);
        state.hosts_down.insert(host, now + down_for);
        let (up, next) = (state.is_up(), state.emptiest_host());
        for instance in state.instances.values_mut().filter(|one| one.host == host && one.is_alive()) {
            let told_to_end = instance.stopped;
            instance.crash(now, ExitDetail::code(137));
            match &mut instance.life {
                life if told_to_end => *life = Life::Exited,
                Life::Restarting { .. } if up => instance.host = next,
                Life::Restarting { at } => *at = (*at).max(now + down_for),
                _ => {}
            }
        }
        state.settle();
    }

    /// Moves the weights of a service past the engine, as somebody at a console does. Answers whether there is such a
    /// service.
    pub fn move_weights_by_hand(&self, app: &str, service: &str, weights: &BTreeMap<RevisionId, u8>) -> bool {
        let mut state = self.lock();
        let mut entries = state.routing.iter_mut();
        let entry = entries.find(|((owner, name), _)| owner.as_str() == app && name.as_str() == service);
        let found = entry.map(|(_, entry)| entry.weigh(weights)).is_some();
        state.settle();
        found
    }

    /// Sets everybody's clock forward or back by so many milliseconds. What is under way in the world takes as long as
    /// before; only the time that is shown is another.
    pub fn set_clock(&self, by_millis: i64) {
        self.0.clock.shift(by_millis);
    }

    /// Whether a request was lost because somebody killed the instance that had it, or was given it before the load
    /// balancer noticed.
    pub(crate) fn was_lost_by_kill(&self, lost: &LostRequest) -> bool {
        let state = self.lock();
        // It comes back, and is put into rotation again, which takes longer for whoever may make few calls.
        let back = Duration::from_secs(if state.options.rate.is_some() { 10 } else { 1 });
        let just =
            |killed: &Timestamp| lost.lost_at >= *killed && lost.lost_at <= *killed + state.options.detection + back;
        match &lost.given_to {
            Some((_, instance)) => state.killed.get(instance).into_iter().flatten().any(just),
            // The pool whose turn it was had no other.
            None => lost.reason == LossReason::NoTarget && state.killed.values().flatten().any(just),
        }
    }

    /// Lets somebody do what this fault says, before the call of this number.
    pub(crate) fn interfere(&self, app: &str, fault: Fault, operation: &'static str, number: u64) {
        match fault {
            Fault::Stale => self.lock().stale.push(operation),
            Fault::ClockJump { millis } => self.set_clock(millis),
            Fault::Cancel => self.store().leave_signal(app, &Signal::Cancel { by: "an operator".into() }),
            Fault::MoveWeights => self.meddle_with_weights(app),
            Fault::KillInstance => {
                let mut state = self.lock();
                let running =
                    state.instances.values().filter(|one| one.app.as_str() == app && one.life == Life::Running);
                let ids: Vec<InstanceId> = running.map(|instance| instance.id.clone()).collect();
                let chosen = usize::try_from(number).unwrap_or(0).checked_rem(ids.len());
                if let Some(id) = chosen.and_then(|index| ids.get(index)) {
                    state.kill(id);
                }
            }
            _ => {}
        }
    }

    /// Shares the traffic of the first service of which several pools serve out between two of them; where there is one
    /// only, its weight is set anew. Nobody sends traffic where nothing serves.
    fn meddle_with_weights(&self, app: &str) {
        let mut state = self.lock();
        let ours = state.routing.iter().filter(|((owner, _), _)| owner.as_str() == app);
        let serving = ours.map(|(key, entry)| {
            let pools = entry.pools.iter().filter(|(_, pool)| state.targets_in_service(pool) > 0);
            (key.clone(), pools.map(|(revision, _)| revision.clone()).collect::<Vec<_>>())
        });
        let Some((key, pools)) = serving.max_by_key(|(_, pools)| pools.len().min(2)) else { return };
        let weights: BTreeMap<RevisionId, u8> = match pools.as_slice() {
            [] => return,
            [one] => BTreeMap::from([(one.clone(), 100)]),
            [one, other, ..] => BTreeMap::from([(one.clone(), 35), (other.clone(), 65)]),
        };
        if let Some(entry) = state.routing.get_mut(&key) {
            entry.weigh(&weights);
        }
        state.settle();
    }
}

impl super::state::State {
    /// Kills an instance from outside; the platform starts it again.
    pub(crate) fn kill(&mut self, id: &InstanceId) {
        let now = self.now;
        if let Some(instance) = self.instances.get_mut(id) {
            instance.crash(now, ExitDetail::code(137));
            self.killed.entry(id.clone()).or_default().push(now);
        }
        self.settle();
    }
}

/// Milliseconds with a sign, added to a time.
pub(crate) fn shifted(time: Timestamp, by_millis: i64) -> Timestamp {
    let by = Duration::from_millis(by_millis.unsigned_abs());
    if by_millis < 0 { time - by } else { time + by }
}
