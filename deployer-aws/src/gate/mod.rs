//! Gates that ask CloudWatch.

mod alarm;
mod traffic;

pub use alarm::{AlarmGate, AlreadyFiring};
pub use traffic::TrafficGate;
pub(crate) use traffic::{balancer, group};
