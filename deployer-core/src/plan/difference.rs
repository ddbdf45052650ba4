//! What differs between two releases of a service, in words.

use serde_json::Value;

use crate::model::ServiceRelease;

/// What differs, each as `path: old -> new`. Of environment variables only the names are said.
pub(super) fn between(old: &ServiceRelease, new: &ServiceRelease) -> Vec<String> {
    let mut found = Vec::new();
    if old.image.digest != new.image.digest {
        let name = |service: &ServiceRelease| match service.image.reference.as_str() {
            same if same == old.image.reference && same == new.image.reference => {
                service.image.digest.short().to_owned()
            }
            name => name.to_owned(),
        };
        found.push(format!("image: {} -> {}", name(old), name(new)));
    }
    for (name, value) in &new.workload.env {
        match old.workload.env.get(name) {
            None => found.push(format!("env.{name}: added")),
            Some(before) if before != value => found.push(format!("env.{name}: changed")),
            Some(_) => {}
        }
    }
    for name in old.workload.env.keys().filter(|name| !new.workload.env.contains_key(*name)) {
        found.push(format!("env.{name}: removed"));
    }
    let rest = |service: &ServiceRelease| {
        let mut value = serde_json::to_value(service).unwrap_or_default();
        if let Value::Object(map) = &mut value {
            map.remove("image");
            if let Some(Value::Object(workload)) = map.get_mut("workload") {
                workload.remove("env");
                let inner = std::mem::take(workload);
                map.remove("workload");
                map.extend(inner);
            }
        }
        value
    };
    compare("", &rest(old), &rest(new), &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, before.get(key).unwrap_or(&Value::Null), after.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (before, after) if before == after => {}
        (before, after) => found.push(format!("{path}: {} -> {}", short(before), short(after))),
    }
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > 60 { format!("{}...", text.chars().take(57).collect::<String>()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, PinnedImage, ServiceSpec};

    #[test]
    fn differences_are_named_and_values_of_variables_are_not() {
        let pinned = |text: &str| PinnedImage::new("web:latest", text, Digest::of(text.as_bytes()));
        let old = ServiceSpec::image("web").with_env("KEY", "hunter1").with_env("OLD", "1").with_image(pinned("a"));
        let new = ServiceSpec::image("web").with_env("KEY", "hunter2").with_replicas(3).with_image(pinned("b"));
        let text = between(&old, &new).join("\n");
        assert!(!text.contains("hunter"), "{text}");
        assert_eq!(text, "image: ca978112ca1b -> 3e23e8160039\nenv.KEY: changed\nenv.OLD: removed\nreplicas: 1 -> 3");
        assert!(between(&old, &old).is_empty());
    }
}
