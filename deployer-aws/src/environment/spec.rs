//! What an environment shall be.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use deployer_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::template;
use crate::options::Architecture;

/// How many days CloudWatch Logs can be told to keep lines:
/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html>.
const RETENTIONS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1_096, 1_827, 2_192, 2_557, 2_922, 3_288, 3_653];

/// The longest name. The names that CloudFormation makes of it must have room for more.
const LONGEST_NAME: usize = 32;

/// What an environment shall be: everything that is there before the first deployment and stays after the last.
///
/// `EnvironmentSpec::new("deployer")` is enough: a VPC in two availability zones, an Application Load Balancer that
/// answers plain HTTP, Fargate, a table for [`DynamoStore`](crate::DynamoStore), logs that are kept for 30 days.
///
/// ```
/// # fn main() -> deployer_core::Result<()> {
/// use deployer_aws::EnvironmentSpec;
///
/// let spec = EnvironmentSpec::new("staging").with_log_retention_days(7).with_tag("team", "shop");
/// println!("{:#}", spec.template()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EnvironmentSpec {
    /// Its name: that of the CloudFormation stack, the cluster, the table and the namespace. Letters, digits and hyphens,
    /// a letter first, at most 32.
    pub name: String,
    /// Where it is in the network.
    pub network: EnvironmentNetwork,
    /// Certificates of the HTTPS listener, by ARN; the first is for clients that name no host. Without any, the load
    /// balancer answers plain HTTP; with one, HTTP is redirected to HTTPS.
    pub certificates: Vec<String>,
    /// Who may call the load balancer: blocks of IPv4 addresses such as `10.0.0.0/8`. Everybody, unless it is set.
    pub clients: Vec<String>,
    /// Whether the load balancer is reached from inside the network only.
    pub internal: bool,
    /// The ports on which services may be published, on a Network Load Balancer, which is there if there are any.
    pub published_ports: Vec<u16>,
    /// Whether instances may call each other, on every TCP port. If not, only the load balancer reaches them.
    pub traffic_between_instances: bool,
    /// How many days the lines that instances write are kept.
    pub log_retention_days: u32,
    /// Whether the lines are kept when the environment is deleted.
    pub keep_logs: bool,
    /// What instances run on.
    pub machines: Machines,
    /// The processors of instances.
    pub architecture: Architecture,
    /// Whether CloudWatch gets the measurements of every instance (Container Insights), which costs extra.
    pub container_insights: bool,
    /// Which ECR repositories of the account may be pulled from: the beginning of their names. All, unless it is set.
    pub repositories: String,
    /// Which secrets of Secrets Manager and parameters of Systems Manager instances may be given, by ARN; `*` stands for
    /// any characters.
    pub secrets: Vec<String>,
    /// The keys with which those are encrypted, by ARN, where they are not AWS's own.
    pub secret_keys: Vec<String>,
    /// What programs inside instances may do. Nothing, unless it is listed.
    pub grants: Vec<Grant>,
    /// A policy that bounds what every role of the environment may do, by ARN.
    pub permissions_boundary: Option<String>,
    /// Tags of everything in it.
    pub tags: BTreeMap<String, String>,
}

impl EnvironmentSpec {
    /// An environment of this name with a VPC of its own, plain HTTP, Fargate, and logs that are kept for 30 days.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            network: EnvironmentNetwork::default(),
            certificates: Vec::new(),
            clients: vec!["0.0.0.0/0".to_owned()],
            internal: false,
            published_ports: Vec::new(),
            traffic_between_instances: false,
            log_retention_days: 30,
            keep_logs: true,
            machines: Machines::Fargate,
            architecture: Architecture::X86_64,
            container_insights: false,
            repositories: String::new(),
            secrets: Vec::new(),
            secret_keys: Vec::new(),
            grants: Vec::new(),
            permissions_boundary: None,
            tags: BTreeMap::new(),
        }
    }

    /// Sets where it is in the network.
    #[must_use]
    pub fn with_network(mut self, network: EnvironmentNetwork) -> Self {
        self.network = network;
        self
    }

    /// Adds a certificate of the HTTPS listener, by ARN.
    #[must_use]
    pub fn with_certificate(mut self, certificate: impl Into<String>) -> Self {
        self.certificates.push(certificate.into());
        self
    }

    /// Sets who may call the load balancer: blocks of IPv4 addresses.
    #[must_use]
    pub fn with_clients<S: Into<String>>(mut self, blocks: impl IntoIterator<Item = S>) -> Self {
        self.clients = blocks.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the load balancer is reached from inside the network only.
    #[must_use]
    pub fn with_internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }

    /// Adds a Network Load Balancer, for services with published ports, and lets clients call it on these. Costs extra.
    #[must_use]
    pub fn with_published_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.published_ports = ports.into_iter().collect();
        self
    }

    /// Sets whether instances may call each other.
    #[must_use]
    pub fn with_traffic_between_instances(mut self, allowed: bool) -> Self {
        self.traffic_between_instances = allowed;
        self
    }

    /// Sets how many days the lines that instances write are kept: one of the numbers that CloudWatch Logs knows, such
    /// as 1, 7, 30, 90 or 365.
    #[must_use]
    pub fn with_log_retention_days(mut self, days: u32) -> Self {
        self.log_retention_days = days;
        self
    }

    /// Sets whether the lines are kept when the environment is deleted.
    #[must_use]
    pub fn with_keep_logs(mut self, keep: bool) -> Self {
        self.keep_logs = keep;
        self
    }

    /// Sets what instances run on.
    #[must_use]
    pub fn with_machines(mut self, machines: Machines) -> Self {
        self.machines = machines;
        self
    }

    /// Sets the processors of instances.
    #[must_use]
    pub fn with_architecture(mut self, architecture: Architecture) -> Self {
        self.architecture = architecture;
        self
    }

    /// Sets whether CloudWatch gets the measurements of every instance.
    #[must_use]
    pub fn with_container_insights(mut self, insights: bool) -> Self {
        self.container_insights = insights;
        self
    }

    /// Sets with what the names of the ECR repositories begin that may be pulled from.
    #[must_use]
    pub fn with_repositories(mut self, prefix: impl Into<String>) -> Self {
        self.repositories = prefix.into();
        self
    }

    /// Lets instances be given a secret of Secrets Manager or a parameter of Systems Manager, by ARN.
    #[must_use]
    pub fn with_secret(mut self, arn: impl Into<String>) -> Self {
        self.secrets.push(arn.into());
        self
    }

    /// Lets secrets be decrypted with a key, by ARN.
    #[must_use]
    pub fn with_secret_key(mut self, arn: impl Into<String>) -> Self {
        self.secret_keys.push(arn.into());
        self
    }

    /// Lets programs inside instances do something.
    #[must_use]
    pub fn with_grant(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    /// Sets the policy that bounds what every role may do, by ARN.
    #[must_use]
    pub fn with_permissions_boundary(mut self, policy: impl Into<String>) -> Self {
        self.permissions_boundary = Some(policy.into());
        self
    }

    /// Adds a tag of everything in it.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// The log group to which instances write.
    #[must_use]
    pub fn log_group(&self) -> String {
        format!("/deployer/{}", self.name)
    }

    /// The CloudFormation template. It has no parameters: what is known is written in. The same spec gives the same
    /// template, so that it can be printed with `{:#}`, reviewed and kept.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what [`check`](Self::check) finds.
    pub fn template(&self) -> Result<Value> {
        self.check()?;
        Ok(template::of(self))
    }

    /// Whether AWS could make it, as far as that can be told without asking.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with what is wrong and where.
    pub fn check(&self) -> Result<()> {
        self.check_name()?;
        self.network.check()?;
        self.machines.check(self)?;
        if !RETENTIONS.contains(&self.log_retention_days) {
            return Err(invalid(
                "CloudWatch Logs cannot keep lines for so many days",
                self.log_retention_days.to_string(),
            )
            .with_help("1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 and 400 are some that it can"));
        }
        if self.published_ports.contains(&0) {
            return Err(invalid("a port is from 1 to 65535", "published ports"));
        }
        if self.clients.is_empty() {
            return Err(invalid("nobody may call the load balancer", "clients"));
        }
        for block in &self.clients {
            block_of(block)?;
        }
        let arns =
            self.certificates.iter().chain(&self.secrets).chain(&self.secret_keys).chain(&self.permissions_boundary);
        if let Some(other) = arns.into_iter().find(|text| !text.starts_with("arn:")) {
            return Err(invalid("that is no ARN", other.as_str()));
        }
        if let Some(secret) = self.secrets.iter().find(|arn| secret_service(arn).is_none()) {
            return Err(invalid(
                "instances get secrets from Secrets Manager and Systems Manager only",
                secret.as_str(),
            ));
        }
        if let Some(grant) = self.grants.iter().find(|grant| grant.actions.is_empty() || grant.resources.is_empty()) {
            return Err(invalid("a grant names actions and resources", format!("{grant:?}")));
        }
        if let Some(grant) = self.grants.iter().find(|grant| grant.actions.iter().any(|action| action == "*")) {
            return Err(invalid("a grant of every action is none to be reviewed", format!("{grant:?}")));
        }
        match self.tags.keys().find(|key| key.starts_with("aws:") || key.starts_with("deployer:")) {
            Some(key) => Err(invalid("tags that begin so are not the user's", key.as_str())),
            None => Ok(()),
        }
    }

    fn check_name(&self) -> Result<()> {
        let name = &self.name;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic());
        // DynamoDB wants three; a namespace does not end in a hyphen.
        if plain && first && !name.ends_with('-') && (3..=LONGEST_NAME).contains(&name.len()) {
            return Ok(());
        }
        Err(invalid("the name of an environment is 3 to 32 letters, digits and hyphens, a letter first", name.as_str()))
    }
}

/// Where an environment is in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvironmentNetwork {
    /// A VPC of its own, in two availability zones.
    New {
        /// Its block of IPv4 addresses, from `/16` to `/24`.
        cidr: String,
        /// Whether and how instances are kept in private subnets.
        nat: Nat,
    },
    /// One that is there.
    Existing {
        /// The VPC, such as `vpc-0123456789abcdef0`.
        vpc: String,
        /// The subnets of the load balancer, in at least two availability zones; public ones, unless it is internal.
        balancer_subnets: Vec<String>,
        /// The subnets of instances.
        instance_subnets: Vec<String>,
        /// Whether instances get public addresses. In subnets without a NAT gateway or endpoints they need them to pull
        /// images.
        public_addresses: bool,
    },
}

impl EnvironmentNetwork {
    fn check(&self) -> Result<()> {
        match self {
            Self::New { cidr, .. } => {
                let (_, bits) = block_of(cidr)?;
                if (16..=24).contains(&bits) {
                    return Ok(());
                }
                Err(invalid("the block of a VPC is from /16 to /24 here", cidr.as_str()))
            }
            Self::Existing { vpc, balancer_subnets, instance_subnets, .. } => {
                if !vpc.starts_with("vpc-") {
                    return Err(invalid("that is no VPC", vpc.as_str()));
                }
                let wrong =
                    balancer_subnets.iter().chain(instance_subnets).find(|subnet| !subnet.starts_with("subnet-"));
                if let Some(wrong) = wrong {
                    return Err(invalid("that is no subnet", wrong.as_str()));
                }
                if balancer_subnets.len() < 2 {
                    return Err(invalid("a load balancer needs subnets in two availability zones", vpc.as_str()));
                }
                if instance_subnets.is_empty() {
                    return Err(invalid("instances need a subnet", vpc.as_str()));
                }
                Ok(())
            }
        }
    }
}

impl Default for EnvironmentNetwork {
    fn default() -> Self {
        Self::New { cidr: "10.90.0.0/16".to_owned(), nat: Nat::None }
    }
}

/// How instances of a new VPC reach the world. NAT gateways cost by the hour and by the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nat {
    /// By public addresses of their own. Nobody reaches them by these but who may anyway.
    #[default]
    None,
    /// From private subnets through one NAT gateway: without its zone, instances of the other reach nothing.
    One,
    /// From private subnets through a NAT gateway in each zone.
    PerZone,
}

/// What instances of an environment run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Machines {
    /// Machines that AWS keeps.
    #[default]
    Fargate,
    /// Machines that AWS keeps, a part of them cheaper ones that it may take back within two minutes.
    FargateSpot {
        /// How many instances of every service run on machines that stay, before shares count.
        base: u32,
        /// The share of machines that stay, of the instances beyond the base.
        stay: u16,
        /// The share of those that may be taken back.
        spot: u16,
    },
    /// EC2 machines in an Auto Scaling group, as many as instances need. Instances get no public addresses on them, so
    /// that a new VPC needs a [`Nat`].
    Ec2 {
        /// The type, such as `m7g.large`. Its processors must be the environment's.
        instance_type: String,
        /// The least number of machines.
        least: u32,
        /// The greatest number of machines.
        most: u32,
    },
}

impl Machines {
    fn check(&self, spec: &EnvironmentSpec) -> Result<()> {
        match self {
            Self::Fargate => Ok(()),
            Self::FargateSpot { base, stay, spot } => {
                if *stay > 1_000 || *spot > 1_000 || *base > 100_000 || (*stay == 0 && *spot == 0) {
                    return Err(invalid("shares are from 0 to 1000 and not all 0, a base is up to 100000", "machines"));
                }
                Ok(())
            }
            Self::Ec2 { least, most, .. } => {
                if least > most || *most == 0 {
                    return Err(invalid("the greatest number of machines is less than the least, or 0", "machines"));
                }
                let lower = spec.name.to_ascii_lowercase();
                if ["aws", "ecs", "fargate"].iter().any(|word| lower.starts_with(word)) {
                    return Err(invalid("AWS does not let a capacity provider's name begin so", spec.name.as_str()));
                }
                let public = match &spec.network {
                    EnvironmentNetwork::New { nat, .. } => *nat == Nat::None,
                    EnvironmentNetwork::Existing { public_addresses, .. } => *public_addresses,
                };
                if public {
                    return Err(invalid("instances on EC2 machines get no public addresses", "machines")
                        .with_help("give a new network a NAT gateway, or name subnets that have one"));
                }
                Ok(())
            }
        }
    }
}

/// Something that programs inside instances may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The actions as IAM names them, such as `s3:GetObject`.
    pub actions: Vec<String>,
    /// The resources on which they are allowed, by ARN.
    pub resources: Vec<String>,
}

impl Grant {
    /// These actions on these resources.
    #[must_use]
    pub fn new<A: Into<String>, R: Into<String>>(
        actions: impl IntoIterator<Item = A>,
        resources: impl IntoIterator<Item = R>,
    ) -> Self {
        Self {
            actions: actions.into_iter().map(Into::into).collect(),
            resources: resources.into_iter().map(Into::into).collect(),
        }
    }
}

pub(super) fn invalid(message: &'static str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_resource(what)
}

/// The service of a secret: `secretsmanager` or `ssm`.
pub(super) fn secret_service(arn: &str) -> Option<&'static str> {
    match arn.split(':').nth(2) {
        Some("secretsmanager") => Some("secretsmanager"),
        Some("ssm") => Some("ssm"),
        _ => None,
    }
}

/// The first address and the number of bits of a block.
fn block_of(text: &str) -> Result<(u32, u32)> {
    let parts = text.split_once('/').and_then(|(address, bits)| {
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some((address.parse::<Ipv4Addr>().ok()?.to_bits(), bits))
    });
    let Some((address, bits)) = parts else {
        return Err(invalid("that is no block of IPv4 addresses, such as 10.0.0.0/8", text));
    };
    let inside = u32::MAX.checked_shr(bits).unwrap_or(0);
    if address & inside != 0 {
        return Err(invalid("a block of addresses begins with its first", text));
    }
    Ok((address, bits))
}

/// The four quarters of a block.
pub(super) fn quarters(block: &str) -> [String; 4] {
    let (address, bits) = block_of(block).unwrap_or_default();
    let quarter = bits + 2;
    [0, 1, 2, 3].map(|index: u32| {
        let first = address + (index << 32_u32.saturating_sub(quarter));
        format!("{}/{quarter}", Ipv4Addr::from_bits(first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_four_quarters() {
        assert_eq!(quarters("10.90.0.0/16"), ["10.90.0.0/18", "10.90.64.0/18", "10.90.128.0/18", "10.90.192.0/18"]);
        assert_eq!(quarters("10.0.0.0/24")[3], "10.0.0.192/26");
    }

    #[test]
    fn what_aws_would_refuse_is_refused_before() {
        let good = EnvironmentSpec::new("deployer");
        assert!(good.check().is_ok());
        let network = |cidr: &str, nat| EnvironmentNetwork::New { cidr: cidr.to_owned(), nat };
        let ec2 = Machines::Ec2 { instance_type: "m7g.large".to_owned(), least: 0, most: 3 };
        let wrong = [
            EnvironmentSpec::new("9lives"),
            EnvironmentSpec::new("no spaces"),
            good.clone().with_log_retention_days(31),
            good.clone().with_log_retention_days(0),
            good.clone().with_clients(["10.0.0.1/8"]),
            good.clone().with_clients(["anybody"]),
            good.clone().with_published_ports([0]),
            good.clone().with_network(network("10.0.0.0/28", Nat::None)),
            good.clone().with_certificate("certificate"),
            good.clone().with_secret("arn:aws:s3:::bucket"),
            good.clone().with_grant(Grant::new(["*"], ["*"])),
            good.clone().with_tag("aws:name", "x"),
            good.clone().with_machines(ec2.clone()),
        ];
        for spec in wrong {
            assert_eq!(spec.check().unwrap_err().kind(), ErrorKind::InvalidInput, "{spec:?}");
        }
        let spec = good.with_machines(ec2).with_network(network("10.0.0.0/24", Nat::One));
        assert!(spec.check().is_ok());
    }
}
