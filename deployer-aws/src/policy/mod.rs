//! The IAM policies that programs need which deploy, and which make environments.
//!
//! They are written from a table of the [`operations`] that this crate calls, which a test holds against its
//! sources: whatever is called is allowed, and nothing else. Resources are as narrow as IAM lets actions be allowed on;
//! where it cannot tell them apart, the resource is `*`.

mod calls;
mod resources;
mod scope;

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use self::scope::{Facts, Scope};
use crate::environment::EnvironmentSpec;
use crate::options::AwsOptions;

/// An operation of AWS that this crate calls.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// The service, as its SDK is called: `ecs` for `aws-sdk-ecs`.
    pub service: &'static str,
    /// The client's method, such as `update_service`.
    pub method: &'static str,
    /// The actions that have to be allowed for it.
    pub actions: &'static [&'static str],
    /// What it is called for.
    pub why: &'static str,
    scope: Scope,
}

/// Every operation of AWS that this crate calls, those for deploying first, then those for making environments.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    calls::DEPLOYING.iter().chain(&calls::ENVIRONMENT)
}

/// An account and a region of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The account's twelve digits.
    pub id: String,
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// The partition: `aws`, unless it is in China or for a government.
    pub partition: String,
}

impl Account {
    /// An account and a region of the partition `aws`.
    #[must_use]
    pub fn new(id: impl Into<String>, region: impl Into<String>) -> Self {
        Self { id: id.into(), region: region.into(), partition: "aws".to_owned() }
    }

    /// Sets the partition.
    #[must_use]
    pub fn with_partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = partition.into();
        self
    }
}

/// What a program that deploys works with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Deploying<'a> {
    /// The account and region.
    pub account: &'a Account,
    /// The options of its backend.
    pub options: &'a AwsOptions,
    /// The table of its [`DynamoStore`](crate::DynamoStore), if it has one.
    pub table: Option<&'a str>,
    /// The secrets and parameters that [`AwsSecrets`](crate::AwsSecrets) may find for it, by ARN; `*` stands for any
    /// characters.
    pub secrets: &'a [String],
    /// What the names of its ECR repositories begin with.
    pub repositories: &'a str,
    /// Whether its gates ask CloudWatch: an [`AlarmGate`](crate::AlarmGate) or a [`TrafficGate`](crate::TrafficGate).
    pub gates: bool,
    /// Whether services have [`scaling`](deployer_core::Service::scaling).
    pub scaling: bool,
}

impl<'a> Deploying<'a> {
    /// A program with these options, without a table, secrets, gates and scaling, and with ECR repositories whose names
    /// begin with `deployer/`.
    #[must_use]
    pub fn new(account: &'a Account, options: &'a AwsOptions) -> Self {
        let (table, secrets, repositories) = (None, [].as_slice(), "deployer/");
        Self { account, options, table, secrets, repositories, gates: false, scaling: false }
    }

    /// Sets the table.
    #[must_use]
    pub fn with_table(mut self, table: &'a str) -> Self {
        self.table = Some(table);
        self
    }

    /// Sets the secrets and parameters that may be found for it, by ARN; `*` stands for any characters.
    #[must_use]
    pub fn with_secrets(mut self, secrets: &'a [String]) -> Self {
        self.secrets = secrets;
        self
    }

    /// Sets what the names of ECR repositories begin with.
    #[must_use]
    pub fn with_repositories(mut self, prefix: &'a str) -> Self {
        self.repositories = prefix;
        self
    }

    /// Its gates ask CloudWatch.
    #[must_use]
    pub fn with_gates(mut self) -> Self {
        self.gates = true;
        self
    }

    /// Its services scale.
    #[must_use]
    pub fn with_scaling(mut self) -> Self {
        self.scaling = true;
        self
    }
}

/// The policy that a program needs which deploys: a document for IAM.
///
/// What it does not work with, such as a load balancer, is not in it.
#[must_use]
pub fn deploying(program: &Deploying<'_>) -> Value {
    let facts = Facts::deploying(program);
    let calls = calls::DEPLOYING.iter().map(|operation| (operation.actions, operation.scope));
    document(&facts, calls.chain(calls::BEHIND_DEPLOYING.iter().map(|(actions, scope, _)| (*actions, *scope))))
}

/// The policy that a program needs which [makes environments](crate::Environment): a document for IAM. With it, a program
/// can make, change, examine and delete the environment of the spec's name. CloudFormation makes the resources with the
/// program's own permissions.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a spec that cannot be.
pub fn environment(spec: &EnvironmentSpec, account: &Account) -> Result<Value> {
    let facts = Facts::environment(spec, account);
    let template = spec.template()?;
    let mut needs: Vec<(&[&str], Scope)> =
        calls::ENVIRONMENT.iter().map(|operation| (operation.actions, operation.scope)).collect();
    needs.extend(calls::BEHIND_ENVIRONMENT.iter().map(|(actions, scope, _)| (*actions, *scope)));
    let kinds = template["Resources"].as_object().into_iter().flatten();
    for (id, resource) in kinds {
        let kind = resource["Type"].as_str().unwrap_or_default();
        let of_kind = resources::needs(kind).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "nobody has written down what a resource needs")
                .with_resource(format!("{id} ({kind})"))
        })?;
        needs.extend(of_kind);
    }
    Ok(document(&facts, needs.into_iter()))
}

/// A document with one statement for each set of resources. Statements have no names: the characters of a policy are numbered.
fn document<'a>(facts: &Facts, needs: impl Iterator<Item = (&'a [&'a str], Scope)>) -> Value {
    let mut statements = BTreeMap::<String, (Value, BTreeSet<&str>)>::new();
    for (actions, scope) in needs {
        let Some(resources) = facts.resources(scope) else { continue };
        let mut statement = json!({"Effect": "Allow", "Resource": resources});
        if let Some(condition) = facts.condition(scope) {
            statement["Condition"] = condition;
        }
        let same = statements.entry(statement.to_string());
        same.or_insert_with(|| (statement, BTreeSet::new())).1.extend(actions);
    }
    let statements = statements.into_values().map(|(mut statement, actions)| {
        statement["Action"] = json!(actions);
        statement
    });
    json!({"Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>()})
}
