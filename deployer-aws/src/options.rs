//! Where in an account applications run, and how.

use std::time::Duration;

/// What of an account a backend uses: everything that is there before the first deployment and stays after the last.
///
/// [`Environment`](crate::Environment) makes it all with one CloudFormation stack; programs that have it already name it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsOptions {
    /// The ECS cluster's name.
    pub cluster: String,
    /// The VPC in which instances run.
    pub vpc: String,
    /// The subnets in which instances run.
    pub subnets: Vec<String>,
    /// The security groups of instances. The load balancer must reach every port of theirs that has a route.
    pub security_groups: Vec<String>,
    /// Whether instances get public addresses. In subnets without a NAT gateway or endpoints they need them to pull images.
    pub public_addresses: bool,
    /// The role with which ECS pulls images, reads secrets and writes logs.
    pub execution_role: String,
    /// The role that the program inside an instance has; none, if it calls nothing of AWS.
    pub task_role: Option<String>,
    /// The listener of an Application Load Balancer that serves the routes; without one, no service may have routes.
    pub listener: Option<String>,
    /// The Network Load Balancer on which published ports listen, by its ARN; without one, no service may publish any.
    pub network_balancer: Option<String>,
    /// The log group to which instances write; without one, their output is lost and no failure can cite it.
    pub log_group: Option<String>,
    /// The Cloud Map namespace in which services find each other by name; without one, they have no names.
    pub namespace: Option<Namespace>,
    /// What instances run on.
    pub capacity: Capacity,
    /// The processors of instances.
    pub architecture: Architecture,
    /// How long a change of weights may take to reach every node of the load balancer. AWS publishes no number; nothing
    /// is stopped before that time has passed.
    pub propagation: Duration,
    /// The shortest time between two looks at what runs.
    pub poll: Duration,
}

impl AwsOptions {
    /// Fargate with Intel processors and private addresses, without routes, logs and task role.
    #[must_use]
    pub fn new(cluster: impl Into<String>, vpc: impl Into<String>, execution_role: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            vpc: vpc.into(),
            subnets: Vec::new(),
            security_groups: Vec::new(),
            public_addresses: false,
            execution_role: execution_role.into(),
            task_role: None,
            listener: None,
            network_balancer: None,
            log_group: None,
            namespace: None,
            capacity: Capacity::Fargate,
            architecture: Architecture::X86_64,
            propagation: Duration::from_secs(10),
            poll: Duration::from_secs(2),
        }
    }

    /// The cluster's name.
    pub(crate) fn cluster_name(&self) -> &str {
        crate::naming::last(&self.cluster)
    }

    /// The account, as far as it can be told from the execution role.
    pub(crate) fn account(&self) -> Option<&str> {
        let account = self.execution_role.split(':').nth(4)?;
        (account.len() == 12).then_some(account)
    }

    /// Sets the subnets in which instances run.
    #[must_use]
    pub fn with_subnets<S: Into<String>>(mut self, subnets: impl IntoIterator<Item = S>) -> Self {
        self.subnets = subnets.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the security groups of instances.
    #[must_use]
    pub fn with_security_groups<S: Into<String>>(mut self, groups: impl IntoIterator<Item = S>) -> Self {
        self.security_groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether instances get public addresses.
    #[must_use]
    pub fn with_public_addresses(mut self, public: bool) -> Self {
        self.public_addresses = public;
        self
    }

    /// Sets the role that the program inside an instance has.
    #[must_use]
    pub fn with_task_role(mut self, role: impl Into<String>) -> Self {
        self.task_role = Some(role.into());
        self
    }

    /// Sets the listener that serves the routes, by its ARN.
    #[must_use]
    pub fn with_listener(mut self, listener: impl Into<String>) -> Self {
        self.listener = Some(listener.into());
        self
    }

    /// Sets the Network Load Balancer on which published ports listen, by its ARN.
    #[must_use]
    pub fn with_network_balancer(mut self, balancer: impl Into<String>) -> Self {
        self.network_balancer = Some(balancer.into());
        self
    }

    /// Sets the log group to which instances write.
    #[must_use]
    pub fn with_log_group(mut self, group: impl Into<String>) -> Self {
        self.log_group = Some(group.into());
        self
    }

    /// Sets the namespace in which services find each other by name.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Sets what instances run on.
    #[must_use]
    pub fn with_capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// Sets the processors of instances.
    #[must_use]
    pub fn with_architecture(mut self, architecture: Architecture) -> Self {
        self.architecture = architecture;
        self
    }

    /// Sets how long a change of weights may take to reach every node of the load balancer.
    #[must_use]
    pub fn with_propagation(mut self, propagation: Duration) -> Self {
        self.propagation = propagation;
        self
    }

    /// Sets the shortest time between two looks at what runs.
    #[must_use]
    pub fn with_poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }
}

/// A namespace of Cloud Map with a private DNS zone. In it, the instances of a service have the name `SERVICE.APP.ZONE`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespace {
    /// Its ARN.
    pub arn: String,
    /// Its DNS zone, such as `staging` or `corp.internal`.
    pub zone: String,
    /// An image with a shell, for the short names of Compose files; without one, only whole names are found.
    pub search_image: Option<String>,
}

impl Namespace {
    /// The namespace with this ARN and DNS zone, without short names.
    #[must_use]
    pub fn new(arn: impl Into<String>, zone: impl Into<String>) -> Self {
        Self { arn: arn.into(), zone: zone.into(), search_image: None }
    }

    /// Lets services find each other by their names in the Compose file alone: `api` for `api.shop.staging`.
    ///
    /// ECS does not let tasks of its own network search in a domain. So a container of this image runs before each instance
    /// and appends the domain to `/etc/resolv.conf`, which all containers of a task share. The image needs `/bin/sh`, `sed`
    /// and `echo`; that of BusyBox does, by a location where ECS finds it.
    #[must_use]
    pub fn with_search_image(mut self, image: impl Into<String>) -> Self {
        self.search_image = Some(image.into());
        self
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        crate::naming::last(&self.arn)
    }
}

/// What instances run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capacity {
    /// Machines that AWS keeps.
    #[default]
    Fargate,
    /// The cluster's own EC2 machines.
    Ec2,
    /// Capacity providers of the cluster. Whether they are Fargate's decides what a service may ask for.
    Providers(Vec<CapacityProvider>),
}

impl Capacity {
    /// Whether AWS keeps the machines.
    pub(crate) fn is_fargate(&self) -> bool {
        match self {
            Self::Fargate => true,
            Self::Ec2 => false,
            Self::Providers(providers) => providers.iter().any(|one| one.name.starts_with("FARGATE")),
        }
    }
}

/// One capacity provider and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapacityProvider {
    /// Its name, such as `FARGATE_SPOT`.
    pub name: String,
    /// Its share of the instances beyond all bases.
    pub weight: u16,
    /// How many instances it gets before shares count.
    pub base: u32,
}

/// The processors of instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD, 64 bits.
    #[default]
    X86_64,
    /// ARM, 64 bits: Graviton.
    Arm64,
}

impl Architecture {
    /// Its name in images and Compose files.
    pub(crate) fn platform(self) -> &'static str {
        match self {
            Self::X86_64 => "linux/amd64",
            Self::Arm64 => "linux/arm64",
        }
    }
}
