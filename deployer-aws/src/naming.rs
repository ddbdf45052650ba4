//! Names of what belongs to an application, and the tags by which it is found.

use deployer_core::{AppName, Digest, RevisionId, ServiceName};

/// Tags of everything that this crate makes.
pub(crate) mod tag {
    /// The cluster: applications of one name may be in several.
    pub(crate) const CLUSTER: &str = "deployer:cluster";
    /// The application.
    pub(crate) const APP: &str = "deployer:app";
    /// The service.
    pub(crate) const SERVICE: &str = "deployer:service";
    /// The slot, a letter.
    pub(crate) const SLOT: &str = "deployer:slot";
    /// The inlet: the port inside the instances, with `/tcp` if it takes connections.
    pub(crate) const PORT: &str = "deployer:port";
    /// The release with which a revision came.
    pub(crate) const RELEASE: &str = "deployer:release";
    /// The revision's hash.
    pub(crate) const REVISION: &str = "deployer:revision";
    /// A one-off task's id.
    pub(crate) const TASK: &str = "deployer:task";
    /// What Application Auto Scaling has to do with a slot.
    pub(crate) const SCALING: &str = "deployer:scaling";
    /// The settings of a target group, as a hash.
    pub(crate) const SETTINGS: &str = "deployer:settings";
}

/// The slots of a service. Two are enough but while a third revision comes and a standby has not gone; the rule of a load
/// balancer takes no more than five target groups.
pub(crate) const SLOTS: [char; 5] = ['a', 'b', 'c', 'd', 'e'];

/// The text with only what names in ECS and ELB may have.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Digits that tell services apart whose plain names are equal.
fn digits(parts: &[&str]) -> String {
    Digest::of(parts.join("\0").as_bytes()).short()[..8].to_owned()
}

/// What all names of a service begin with.
fn stem(app: &AppName, service: &ServiceName) -> String {
    let (app, service) = (app.as_str(), service.as_str());
    format!("{}-{}-{}", plain(app), plain(service), digits(&[app, service]))
}

/// What the names of all slots of an application begin with; those of others may as well.
pub(crate) fn slot_prefix(app: &AppName) -> String {
    format!("{}-", plain(app.as_str()))
}

/// The ECS service that is one slot of a service.
pub(crate) fn slot(app: &AppName, service: &ServiceName, slot: char) -> String {
    format!("{}-{slot}", stem(app, service))
}

/// The family of a revision's task definition where definitions are made with these settings: its name says which revision it
/// is. Environments of one account have each their own.
pub(crate) fn family(app: &AppName, revision: &RevisionId, settings: &str) -> String {
    format!("{}-{}-{}", stem(app, revision.service()), digits(&[settings]), revision.hash())
}

/// The hash of the revision that a family is of.
pub(crate) fn revision_of(family: &str) -> Option<&str> {
    family.rsplit_once('-').map(|(_, hash)| hash)
}

/// The container of a service in its task definition.
pub(crate) fn container(service: &ServiceName) -> String {
    plain(service.as_str())
}

/// The target group of a slot's inlet: at most 32 characters. Names are the account's, so those of several clusters differ.
pub(crate) fn target_group(cluster: &str, app: &AppName, service: &ServiceName, inlet: &str, slot: char) -> String {
    let digits = digits(&[cluster, app.as_str(), service.as_str(), inlet]);
    let name: String =
        format!("{}-{}", plain(app.as_str()), plain(service.as_str())).chars().take(GROUP_NAME).collect();
    format!("{}-{digits}-{slot}", name.trim_matches('-'))
}

/// What the names of all target groups of an application begin with; those of others may as well.
pub(crate) fn target_group_prefix(app: &AppName) -> String {
    let name: String = plain(app.as_str()).chars().take(GROUP_NAME).collect();
    name.trim_matches('-').to_owned()
}

/// How much of the application's and the service's names is in the name of a target group.
const GROUP_NAME: usize = 20;

/// What an instance or task is called.
pub(crate) fn instance(service: &ServiceName, task: &str) -> String {
    format!("{service}-{}", task.get(..12).unwrap_or(task))
}

/// Who started the one-off tasks of an application, by which they are found: at most 36 characters.
pub(crate) fn starter(app: &AppName) -> String {
    let name: String = plain(app.as_str()).chars().take(16).collect();
    format!("deployer/{name}-{}", digits(&[app.as_str()]))
}

/// The last part of an ARN.
pub(crate) fn last(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// The family in the ARN of a task definition.
pub(crate) fn family_of(arn: &str) -> &str {
    let name = last(arn);
    name.split_once(':').map_or(name, |(family, _)| family)
}

/// How long the tokens of requests are: `CreateService` takes 36 characters at most, others 64.
const TOKEN: usize = 32;

/// What makes a request have its effect once.
pub(crate) fn token(parts: &[&str]) -> String {
    let digest = Digest::of(parts.join("\0").as_bytes());
    digest.as_str().trim_start_matches("sha256:").chars().take(TOKEN).collect()
}
