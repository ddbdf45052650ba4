//! What is deployed: specs as they come in, releases as they are kept, and the words they are made of.

mod balancing;
mod container;
mod name;
mod problem;
mod release;
mod rollout;
mod scaling;
mod spec;
pub(crate) mod time;
mod validate;
mod workload;

pub use balancing::Balancing;
pub use container::{BlockIo, ContainerOptions, Device, DeviceRequest, File, FileContent, Logging, Ulimit};
pub use name::{AppName, DeploymentId, Digest, InstanceId, ReleaseNumber, RevisionId, ServiceName};
pub use problem::{Note, Place, Problem, Problems, Severity};
pub use release::{GitState, PinnedImage, Provenance, Release, ServiceRelease};
pub use rollout::{
    CanaryStep, Condition, GateCheck, GatePoint, GateSpec, Hook, HookPoint, OnInconclusive, Probe, Readiness, Route,
    Strategy,
};
pub use scaling::{Cron, CronFields, Scaling, ScalingSchedule, ScalingTarget};
pub use spec::{AppSpec, BuildSpec, ImageSource, Ipam, IpamPool, NetworkSpec, Service, ServiceSpec, VolumeSpec};
pub use time::{Human, Timestamp};
pub use workload::{
    AppProtocol, CheckCommand, ContainerCheck, EnvValue, Mount, MountSource, NetworkAttachment, Port, Published,
    Resources, Restart, SecretRef, Stop, Transport, Workload,
};
