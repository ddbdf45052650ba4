//! The operations of Cloud Map on the one namespace. `CreateService` and the like are called `CreateName` here, for ECS has
//! operations of the same names.

use serde_json::{Value, json};

use super::services::Status;
use super::tasks::Phase;
use super::{Cloud, Refusal, Tags, arn};

type Answer = Result<Value, Refusal>;

/// The id of the namespace, and its zone.
pub(crate) const NAMESPACE: &str = "ns-1";
pub(crate) const ZONE: &str = "stage.internal";

/// A name, which is the registry of ECS services.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    id: String,
    request: String,
    description: String,
    tags: Tags,
}

impl Name {
    fn arn(&self) -> String {
        arn("servicediscovery", &format!("service/{}", self.id))
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("InvalidInput", message)
}

fn text<'a>(request: &'a Value, key: &str) -> &'a str {
    request[key].as_str().unwrap_or_default()
}

/// Labels of up to 63 characters with points between them.
fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 127 && name.split('.').all(label)
}

impl Cloud {
    pub(super) fn cloudmap(&mut self, operation: &str, request: &Value) -> Option<Answer> {
        Some(match operation {
            "GetNamespace" => get_namespace(request),
            "ListNames" => self.list_names(request),
            "CreateName" => self.create_name(request),
            "DeleteName" => self.delete_name(request),
            _ => return None,
        })
    }

    fn list_names(&self, request: &Value) -> Answer {
        let filter = &request["Filters"][0];
        if filter["Name"] != "NAMESPACE_ID" || filter["Values"] != json!([NAMESPACE]) {
            return Err(invalid("the filter is not known here"));
        }
        let shown = self.names.iter().map(|(name, it)| {
            json!({"Id": it.id, "Arn": it.arn(), "Name": name, "Description": it.description, "InstanceCount": 0})
        });
        Ok(json!({"Services": shown.collect::<Vec<_>>()}))
    }

    fn create_name(&mut self, request: &Value) -> Answer {
        let (name, creator) = (text(request, "Name"), text(request, "CreatorRequestId"));
        let records = &request["DnsConfig"]["DnsRecords"];
        let alone = records.as_array().is_some_and(|records| records.len() == 1);
        if text(request, "NamespaceId") != NAMESPACE || !is_name(name) || creator.is_empty() || creator.len() > 64 {
            return Err(invalid(format!("{name:?} cannot be made")));
        }
        // ECS puts tasks with a network of their own into A records, and tells of their health itself.
        if !alone || records[0]["Type"] != "A" || !request["HealthCheckCustomConfig"].is_object() {
            return Err(invalid("ECS cannot use it"));
        }
        let body = request.to_string();
        if let Some(known) = self.names.get(name).filter(|known| known.request != body) {
            return Err(Refusal::fair("ServiceAlreadyExists", format!("{} has this name", known.id)));
        }
        let id = format!("srv-{}", self.next());
        let tags = request["Tags"].as_array().into_iter().flatten();
        let made = Name {
            id,
            request: body,
            description: text(request, "Description").to_owned(),
            tags: tags.map(|tag| (text(tag, "Key").to_owned(), text(tag, "Value").to_owned())).collect(),
        };
        let name = self.names.entry(name.to_owned()).or_insert(made);
        Ok(json!({"Service": {"Id": name.id, "Arn": name.arn()}}))
    }

    fn delete_name(&mut self, request: &Value) -> Answer {
        let id = text(request, "Id");
        let found = self.names.iter().find(|(_, name)| name.id == id).map(|(name, it)| (name.clone(), it.arn()));
        let (name, arn) = found.ok_or_else(|| Refusal::fair("ServiceNotFound", "Service not found."))?;
        let used = self.services.values().any(|service| {
            let mut tasks = self.tasks_of(&service.name);
            service.registry.as_ref() == Some(&arn) && tasks.any(|task| task.phase < Phase::Stopped)
        });
        if used {
            return Err(Refusal::fair("ResourceInUse", "Service contains registered instances."));
        }
        self.names.remove(&name);
        Ok(json!({}))
    }

    /// The registry that a request gives to an ECS service.
    pub(super) fn registry(&self, request: &Value) -> Result<Option<String>, Refusal> {
        let registries = request["serviceRegistries"].as_array().cloned().unwrap_or_default();
        let Some(registry) = registries.first() else { return Ok(None) };
        let arn = text(registry, "registryArn");
        if registries.len() > 1 || self.names.values().all(|name| name.arn() != arn) {
            return Err(Refusal::rude("InvalidParameterException", format!("{arn} is no registry")));
        }
        Ok(Some(arn.to_owned()))
    }

    /// What of the names of an application's services is not as it should be.
    pub(crate) fn names_differ(&self, app: &str, destroyed: bool) -> Vec<String> {
        let mut found = Vec::new();
        let owned = |tags: &Tags| tags.get("deployer:app").is_some_and(|owner| owner == app);
        let ours = self.names.iter().filter(|(_, name)| owned(&name.tags));
        if !self.profile.names || destroyed {
            found.extend(ours.map(|(name, _)| format!("the name {name} is there")));
            return found;
        }
        let serving = self.services.values().filter(|slot| slot.status == Status::Active && slot.desired > 0);
        for slot in serving.filter(|slot| owned(&slot.tags)) {
            let wanted = format!("{}.{app}", slot.tags.get("deployer:service").cloned().unwrap_or_default());
            let registry = self.names.get(&wanted).map(Name::arn);
            if registry.is_none() || slot.registry != registry {
                found.push(format!("{} is in {:?}, and {wanted} is {registry:?}", slot.name, slot.registry));
            }
        }
        found
    }
}

fn get_namespace(request: &Value) -> Answer {
    if text(request, "Id") != NAMESPACE {
        return Err(Refusal::fair("NamespaceNotFound", "Namespace not found."));
    }
    Ok(json!({"Namespace": {"Id": NAMESPACE, "Name": ZONE, "Type": "DNS_PRIVATE"}}))
}
