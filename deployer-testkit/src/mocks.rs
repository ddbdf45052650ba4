//! `mockall` mocks of the five traits, and of [`Clock`], [`Gate`], [`Secrets`] and [`Intercept`], for tests that expect
//! single calls. With the feature `mockall`.
//!
//! A mock answers what it was told and knows no rules: prefer the fakes of a [`World`](crate::World) wherever more than
//! one call is involved, and a [`FaultPlan`](crate::FaultPlan) where calls are only to be listed.
//!
//! ```
//! use deployer_core::{AppName, ErrorKind, LoadBalancer};
//! use deployer_testkit::mocks::MockLoadBalancer;
//! use deployer_testkit::simulate;
//!
//! # fn main() -> deployer_core::Result<()> {
//! let mut balancer = MockLoadBalancer::new();
//! let away = || deployer_core::Error::new(ErrorKind::Unavailable, "gone for lunch");
//! balancer.expect_observe().times(1).returning(move |_| Err(away()));
//! let answer = simulate(balancer.observe(&AppName::new("shop")?));
//! assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use async_trait::async_trait;
use deployer_core::*;

mockall::mock! {
    /// A mock of [`ImageBuilder`].
    #[derive(Debug)]
    pub ImageBuilder {}

    #[async_trait]
    impl ImageBuilder for ImageBuilder {
        async fn build(&self, request: BuildImage) -> Result<BuiltImage>;
    }
}

mockall::mock! {
    /// A mock of [`Registry`].
    #[derive(Debug)]
    pub Registry {}

    #[async_trait]
    impl Registry for Registry {
        async fn resolve(&self, request: ResolveImage) -> Result<PinnedImage>;
        async fn publish(&self, request: PublishImage) -> Result<PinnedImage>;
        async fn missing(&self, images: &[PinnedImage]) -> Result<Vec<PinnedImage>>;
        async fn prune(&self, request: PruneImages) -> Result<Vec<String>>;
    }
}

mockall::mock! {
    /// A mock of [`Orchestrator`].
    #[derive(Debug)]
    pub Orchestrator {}

    #[async_trait]
    impl Orchestrator for Orchestrator {
        fn capabilities(&self) -> OrchestratorCapabilities;
        async fn ensure_app(&self, request: EnsureApp) -> Result<Outcome>;
        async fn observe(&self, request: ObserveApp) -> Result<ObservedApp>;
        async fn launch(&self, request: Launch) -> Result<Outcome>;
        async fn reduce(&self, request: Reduce) -> Result<Outcome>;
        async fn start_task(&self, request: StartTask) -> Result<Outcome>;
        async fn remove_task(&self, request: RemoveTask) -> Result<Outcome>;
        async fn set_inherited(&self, request: SetInherited) -> Result<Outcome>;
        async fn prune(&self, request: PruneRevisions) -> Result<Vec<String>>;
        async fn remove_app(&self, request: RemoveApp) -> Result<Outcome>;
        async fn check(&self, spec: &AppSpec) -> Result<Problems>;
        async fn smoke(&self, request: SmokeRequest) -> Result<Vec<SmokeAnswer>>;
        async fn logs(&self, query: LogQuery) -> Result<LogStream>;
    }
}

mockall::mock! {
    /// A mock of [`LoadBalancer`].
    #[derive(Debug)]
    pub LoadBalancer {}

    #[async_trait]
    impl LoadBalancer for LoadBalancer {
        fn capabilities(&self) -> BalancerCapabilities;
        async fn ensure(&self, request: EnsureRoutes) -> Result<Outcome>;
        async fn observe(&self, app: &AppName) -> Result<Vec<ObservedRouting>>;
        async fn set_targets(&self, request: SetTargets) -> Result<Outcome>;
        async fn set_weights(&self, request: SetWeights) -> Result<Outcome>;
        async fn retain(&self, request: RetainRoutes) -> Result<Outcome>;
    }
}

mockall::mock! {
    /// A mock of [`ReleaseStore`].
    #[derive(Debug)]
    pub ReleaseStore {}

    #[async_trait]
    impl ReleaseStore for ReleaseStore {
        async fn acquire_lease(&self, request: AcquireLease) -> Result<Lease>;
        async fn renew_lease(&self, lease: &Lease, now: Timestamp) -> Result<Lease>;
        async fn release_lease(&self, lease: &Lease) -> Result<()>;
        async fn lease_holder(&self, app: &AppName) -> Result<Option<LeaseHolder>>;
        async fn put_release(&self, release: Release, fence: u64) -> Result<Release>;
        async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>>;
        async fn releases(&self, query: ReleaseQuery) -> Result<Vec<Release>>;
        async fn remove_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()>;
        async fn append(&self, request: Append) -> Result<()>;
        async fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>>;
        async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>>;
        async fn send_signal(&self, request: SendSignal) -> Result<()>;
        async fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>>;
        async fn apps(&self) -> Result<Vec<AppName>>;
        async fn forget_app(&self, app: &AppName, fence: u64) -> Result<()>;
    }
}

mockall::mock! {
    /// A mock of [`Clock`].
    #[derive(Debug)]
    pub Clock {}

    #[async_trait]
    impl Clock for Clock {
        fn now(&self) -> Timestamp;
        fn elapsed(&self) -> Duration;
        async fn sleep(&self, duration: Duration);
    }
}

mockall::mock! {
    /// A mock of [`Gate`].
    #[derive(Debug)]
    pub Gate {}

    #[async_trait]
    impl Gate for Gate {
        async fn ask(&self, question: GateQuestion) -> Result<GateAnswer>;
    }
}

mockall::mock! {
    /// A mock of [`Secrets`].
    #[derive(Debug)]
    pub Secrets {}

    #[async_trait]
    impl Secrets for Secrets {
        async fn pin(&self, reference: &SecretRef) -> Result<SecretRef>;
        async fn reveal(&self, reference: &SecretRef) -> Result<SecretValue>;
    }
}

mockall::mock! {
    /// A mock of [`Intercept`]. What can be expected is what it does before a call: `Ok` lets the call be made, and an
    /// error is what the engine sees instead of it.
    #[derive(Debug)]
    pub Intercept {
        /// Decides about a call.
        pub fn before(&self, call: &CallInfo) -> Result<()>;
    }
}

// Mockall cannot mock a method that is handed something borrowed for longer than the call, as `Next` is.
#[async_trait]
impl Intercept for MockIntercept {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
        self.before(call)?;
        next.run().await
    }
}
