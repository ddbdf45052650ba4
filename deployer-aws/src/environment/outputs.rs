//! What an environment tells of itself.

use std::collections::HashMap;

use deployer_core::{Error, ErrorKind, Result};

use super::Environment;
use super::stack::{resource, status};
use super::template::output;
use crate::options::{Architecture, AwsOptions, Capacity, CapacityProvider, Namespace};

/// What a program needs of an environment to deploy to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EnvironmentOutputs {
    /// The options of a backend.
    pub options: AwsOptions,
    /// The table for [`DynamoStore`](crate::DynamoStore).
    pub table: String,
    /// The load balancer's DNS name, to which names of applications point.
    pub address: String,
    /// The hosted zone of that name, for alias records of Route 53.
    pub hosted_zone: String,
    /// The DNS name of the load balancer of published ports, if there is one.
    pub published_address: Option<String>,
}

impl Environment {
    /// What a program needs of an environment to deploy to it: the outputs of its stack.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such environment; [`Conflict`](ErrorKind::Conflict) if it is not
    /// complete.
    pub async fn options(&self, name: &str) -> Result<EnvironmentOutputs> {
        let (stack, _) = self.existing(name).await?;
        let outputs = stack.outputs().iter().filter_map(|output| Some((output.output_key()?, output.output_value()?)));
        read(&outputs.collect()).map_err(|missing| {
            Error::new(ErrorKind::Conflict, "the environment is not complete")
                .with_resource(resource(name))
                .with_context("missing output", missing)
                .with_context("stack", status(&stack).to_owned())
                .with_retry(deployer_core::Retry::Never)
                .with_help("apply it")
        })
    }
}

/// The outputs, or the name of one that is missing or wrong.
fn read(outputs: &HashMap<&str, &str>) -> Result<EnvironmentOutputs, &'static str> {
    let get = |name: &'static str| outputs.get(name).map(|value| (*value).to_owned()).ok_or(name);
    let list = |name| get(name).map(|text| text.split(',').map(str::to_owned).collect::<Vec<_>>());
    let mut options = AwsOptions::new(get(output::CLUSTER)?, get(output::VPC)?, get(output::EXECUTION_ROLE)?)
        .with_subnets(list(output::SUBNETS)?)
        .with_security_groups(list(output::SECURITY_GROUPS)?)
        .with_public_addresses(get(output::PUBLIC_ADDRESSES)? == "true")
        .with_task_role(get(output::TASK_ROLE)?)
        .with_listener(get(output::LISTENER)?)
        .with_log_group(get(output::LOG_GROUP)?);
    options.network_balancer = get(output::NETWORK_BALANCER).ok();
    // The zone has the environment's name, as the cluster has.
    options.namespace = get(output::NAMESPACE).ok().map(|arn| Namespace::new(arn, &options.cluster));
    options.capacity = capacity(&get(output::CAPACITY)?).ok_or(output::CAPACITY)?;
    options.architecture = match get(output::ARCHITECTURE)?.as_str() {
        "X86_64" => Architecture::X86_64,
        "ARM64" => Architecture::Arm64,
        _ => return Err(output::ARCHITECTURE),
    };
    Ok(EnvironmentOutputs {
        options,
        table: get(output::TABLE)?,
        address: get(output::ADDRESS)?,
        published_address: get(output::NETWORK_ADDRESS).ok(),
        hosted_zone: get(output::ZONE).unwrap_or_default(),
    })
}

/// `FARGATE`, or providers with weight and base: `FARGATE:1:2,FARGATE_SPOT:3:0`.
fn capacity(text: &str) -> Option<Capacity> {
    if text == "FARGATE" {
        return Some(Capacity::Fargate);
    }
    let provider = |text: &str| {
        let (rest, base) = text.rsplit_once(':')?;
        let (name, weight) = rest.rsplit_once(':')?;
        Some(CapacityProvider { name: name.to_owned(), weight: weight.parse().ok()?, base: base.parse().ok()? })
    };
    text.split(',').map(provider).collect::<Option<Vec<_>>>().map(Capacity::Providers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_read_as_it_is_written() {
        assert_eq!(capacity("FARGATE"), Some(Capacity::Fargate));
        let provider = |name: &str, weight, base| CapacityProvider { name: name.to_owned(), weight, base };
        let both = vec![provider("FARGATE", 1, 2), provider("FARGATE_SPOT", 3, 0)];
        assert_eq!(capacity("FARGATE:1:2,FARGATE_SPOT:3:0"), Some(Capacity::Providers(both)));
        assert_eq!(capacity("FARGATE_SPOT"), None);
    }

    #[test]
    fn an_output_that_is_missing_is_named() {
        assert_eq!(read(&HashMap::from([("Cluster", "one")])).unwrap_err(), "Vpc");
    }
}
