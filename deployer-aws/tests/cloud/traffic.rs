//! Requests of users: each is given to a target by the rules, and is lost or answered.

use super::Cloud;

/// How long a request takes.
const TAKES: u64 = 300;
/// How long it is nobody's fault that a target group has no targets in which somebody has killed the last instance.
const KILLED: u64 = 15_000;
/// How soon the quickest node of the load balancer hears of new weights.
const SOON: u64 = 100;

#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    streams: Vec<Stream>,
    pub(crate) sent: u64,
    pub(crate) lost: Vec<Lost>,
    under_way: Vec<Flight>,
    number: u64,
}

/// A request that is being answered.
#[derive(Clone, Debug)]
struct Flight {
    number: u64,
    end: u64,
    task: String,
}

/// Requests at a constant rate.
#[derive(Clone, Debug)]
struct Stream {
    host: String,
    every: u64,
    next: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Lost {
    number: u64,
    pub(crate) at: u64,
    pub(crate) why: String,
    /// Whether somebody at a console has killed its instance.
    pub(crate) by_hand: bool,
}

impl Traffic {
    pub(super) fn next(&self) -> Option<u64> {
        self.streams.iter().map(|stream| stream.next).min()
    }
}

impl Cloud {
    pub(crate) fn start_traffic(&mut self, host: &str, every: u64) {
        self.traffic.streams.push(Stream { host: host.to_owned(), every, next: self.now + every });
    }

    pub(crate) fn stop_traffic(&mut self) {
        self.traffic.streams.clear();
    }

    /// Sends what is to be sent before a time.
    pub(super) fn send_until(&mut self, until: u64) {
        while let Some(next) = self.traffic.next().filter(|next| *next < until) {
            self.now = next.max(self.now);
            let now = self.now;
            self.traffic.under_way.retain(|flight| flight.end > now);
            for index in 0..self.traffic.streams.len() {
                let stream = &mut self.traffic.streams[index];
                if stream.next <= now {
                    stream.next = now + stream.every;
                    let host = stream.host.clone();
                    self.send(Some(&host), "/", TAKES);
                }
            }
        }
    }

    /// Sends one request that takes so long, and answers its number and the version of the task that is to answer it; it is
    /// [lost](Self::loss) if that cannot.
    pub(crate) fn request(&mut self, host: Option<&str>, path: &str, takes: u64) -> (u64, String) {
        self.send(host, path, takes);
        let number = self.traffic.number;
        let flight = self.traffic.under_way.iter().find(|flight| flight.number == number);
        let task = flight.and_then(|flight| self.tasks.get(&flight.task));
        let version = task.and_then(|task| self.definition(&task.definition)?.env("VERSION"));
        (number, version.unwrap_or_default().to_owned())
    }

    /// Why a request was lost, if it was.
    pub(crate) fn loss(&self, number: u64) -> Option<String> {
        self.traffic.lost.iter().find(|lost| lost.number == number).map(|lost| lost.why.clone())
    }

    fn send(&mut self, host: Option<&str>, path: &str, takes: u64) {
        let now = self.now;
        self.traffic.sent += 1;
        self.traffic.number += 1;
        let number = self.traffic.number;
        match self.choose(host, path) {
            Ok((task, killed)) => {
                let of_task = |group: &&super::Group| group.targets.values().any(|target| target.task == task);
                if let Some(group) = self.groups.values().find(of_task) {
                    self.counted.add(&group.arn, "RequestCount", now, 1.0);
                    self.counted.add(&group.arn, "seconds", now, takes as f64 / 1_000.0);
                }
                let ready = self.tasks.get(&task).is_some_and(|task| task.is_ready(now));
                if ready {
                    self.traffic.under_way.push(Flight { number, end: now + takes, task });
                } else {
                    let phase = self.tasks.get(&task).map(|task| (task.phase, task.by_hand));
                    let by_hand = killed || phase.is_some_and(|(_, by_hand)| by_hand);
                    let why = format!("it was sent to task {task}, which is {:?}", phase.map(|(phase, _)| phase));
                    self.traffic.lost.push(Lost { number, at: now, why, by_hand });
                }
            }
            Err((why, by_hand)) => self.traffic.lost.push(Lost { number, at: now, why, by_hand }),
        }
    }

    /// The task that gets the next request, or why there is none; and whether somebody at a console is to blame.
    fn choose(&self, host: Option<&str>, path: &str) -> Result<(String, bool), (String, bool)> {
        let lost = |why: &str| (why.to_owned(), false);
        let number = self.traffic.number;
        let mut rules: Vec<_> = self.rules.values().filter(|rule| rule.takes(host, path)).collect();
        rules.sort_by_key(|rule| rule.priority);
        let rule = rules.first().ok_or_else(|| lost("no rule takes it"))?;
        let last = self.profile.propagation;
        let lag = if number.is_multiple_of(2) { last } else { SOON.min(last) };
        let forward = rule.forward_of(self.now, lag);
        let total: u32 = forward.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return Err(lost("no target group has any weight"));
        }
        let mut point = u32::try_from(number.wrapping_mul(2_654_435_761) >> 7 & 0xffff).unwrap_or(0) % total;
        let mut chosen = None;
        for (arn, weight) in forward {
            if point < *weight {
                chosen = Some(arn);
                break;
            }
            point -= weight;
        }
        let group = chosen.and_then(|arn| self.groups.get(arn)).ok_or_else(|| lost("its target group is gone"))?;
        let mut targets: Vec<_> = group.targets.values().filter(|target| target.takes(self.now)).collect();
        let open = targets.is_empty();
        if open {
            // Where all are unhealthy, all are tried.
            let registered =
                |target: &&super::balancer::Target| !matches!(target.state, super::balancer::State::Draining(..));
            targets = group.targets.values().filter(registered).collect();
        }
        let index = usize::try_from(number / 3).unwrap_or(0) % targets.len().max(1);
        let by_hand = group.killed.is_some_and(|at| self.now < at + KILLED);
        let target = targets.get(index).ok_or_else(|| (format!("{} has no targets", group.name), by_hand))?;
        Ok((target.task.clone(), open && by_hand))
    }

    /// A task is no more: what it was answering is lost.
    pub(super) fn cut(&mut self, task: &str, by_hand: bool) {
        let now = self.now;
        let under_way = std::mem::take(&mut self.traffic.under_way);
        let (cut, on): (Vec<Flight>, Vec<Flight>) = under_way.into_iter().partition(|flight| flight.task == task);
        self.traffic.under_way = on;
        for Flight { number, end, .. } in cut {
            if end > now {
                let why = format!("task {task} ended while it answered it");
                self.traffic.lost.push(Lost { number, at: now, why, by_hand });
            }
        }
    }
}
