//! The schema of `x-deployer` says what is read: the same keys at the same places, and nothing that is refused.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::{read, writing};
use crate::compose::budget::Budget;
use crate::compose::fates::EXTENSION;
use crate::compose::formats;
use crate::compose::keys::Section;
use crate::compose::node::{Node, Value};
use crate::compose::source;
use crate::model::ServiceName;

const SCHEMA: &str = include_str!("../../../../docs/x-deployer.schema.json");
const WHOLE: &str = include_str!("../../../../docs/compose.schema.json");

fn schema() -> Json {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Where the schema has the mapping that is at this path of `x-deployer`; `type=x` is the one of a strategy.
fn pointer(path: &str) -> String {
    let mut pointer = String::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((_, strategy)) => {
                let kinds = schema()["$defs"]["strategy"]["oneOf"].as_array().unwrap().clone();
                let kind = |kind: &Json| kind["properties"]["type"]["const"] == *strategy;
                pointer.push_str(&format!("/oneOf/{}", kinds.iter().position(kind).unwrap()));
            }
            None => pointer.push_str(&format!("/properties/{}", part.trim_end_matches("[]"))),
        }
        if part.ends_with("[]") {
            pointer.push_str("/items");
        }
        if let Some(Json::String(to)) = schema().pointer(&format!("{pointer}/$ref")) {
            pointer = to.trim_start_matches('#').to_owned();
        }
    }
    pointer
}

/// The places of all mappings with fixed keys.
fn mappings(schema: &Json, pointer: &str, found: &mut BTreeSet<String>) {
    match schema {
        Json::Object(entries) => {
            if schema["properties"].is_object() && !pointer.ends_with("/properties") {
                assert_eq!(schema["additionalProperties"], false, "{pointer}");
                found.insert(pointer.to_owned());
            }
            entries.iter().for_each(|(key, value)| mappings(value, &format!("{pointer}/{key}"), found));
        }
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| mappings(value, &format!("{pointer}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn the_schema_has_the_keys_that_are_read() {
    let schema = schema();
    let mut known = BTreeSet::new();
    for (path, section) in EXTENSION {
        let pointer = pointer(path);
        let keys = schema.pointer(&format!("{pointer}/properties")).unwrap_or_else(|| panic!("{path}"));
        let keys: BTreeSet<&str> = keys.as_object().unwrap().keys().map(String::as_str).collect();
        let section: &Section = section;
        assert_eq!(keys, section.supported().collect(), "{path}");
        known.insert(pointer);
    }
    let mut found = BTreeSet::new();
    mappings(&schema, "", &mut found);
    assert_eq!(found, known, "no mapping is in the schema alone");
}

#[test]
fn every_key_is_described() {
    let schema = schema();
    for (path, _) in EXTENSION {
        for (key, value) in schema.pointer(&format!("{}/properties", pointer(path))).unwrap().as_object().unwrap() {
            let same = value["const"].is_string();
            let there = value["$ref"].as_str().and_then(|to| schema.pointer(to.trim_start_matches('#')));
            let described = value["description"].is_string() || there.is_some_and(|it| it["description"].is_string());
            assert!(same || described, "{path}.{key}");
        }
    }
}

#[test]
fn the_whole_schema_refers_to_that_of_the_extension() {
    let whole: Json = serde_json::from_str(WHOLE).unwrap();
    let services = &whole["properties"]["services"]["patternProperties"]["^[a-zA-Z0-9._-]+$"];
    assert_eq!(services["properties"]["x-deployer"]["$ref"], "x-deployer.schema.json");
}

/// Whether a tree is what a schema describes, but for patterns. Scalars have no types here, so what they look like counts.
fn fits(schema: &Json, root: &Json, node: &Node) -> Result<(), String> {
    let check = |schema: &Json, node: &Node| fits(schema, root, node);
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => &[],
    };
    let number = node.text().and_then(|text| text.parse::<f64>().ok());
    let holds = |(keyword, value): (&String, &Json)| -> Result<bool, String> {
        let bound = || value.as_f64().unwrap();
        let names = || value.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let fitting = || value.as_array().unwrap().iter().filter(|schema| check(schema, node).is_ok()).count();
        Ok(match keyword.as_str() {
            "$ref" => {
                let to = value.as_str().unwrap().trim_start_matches('#');
                return check(root.pointer(to).unwrap(), node).map(|()| true);
            }
            "type" => {
                let is = |kind: &Json| match kind.as_str().unwrap() {
                    "object" => matches!(node.value, Value::Map(_)),
                    "array" => matches!(node.value, Value::List(_)),
                    "string" | "number" | "boolean" => node.text().is_some(),
                    "integer" => node.text().is_some_and(|text| text.parse::<i64>().is_ok()),
                    other => panic!("{other}"),
                };
                value.as_array().map_or_else(|| is(value), |kinds| kinds.iter().any(is))
            }
            "const" => node.text() == value.as_str(),
            "enum" => names().any(|name| node.text() == Some(name)),
            "minimum" => number.is_none_or(|number| number >= bound()),
            "maximum" => number.is_none_or(|number| number <= bound()),
            "minLength" => node.text().is_none_or(|text| text.chars().count() as f64 >= bound()),
            "minItems" => items.len() as f64 >= bound(),
            "required" => names().all(|name| entries.iter().any(|entry| entry.key == name)),
            "not" => check(value, node).is_err(),
            "oneOf" => fitting() == 1,
            "anyOf" => fitting() > 0,
            "items" => return items.iter().try_for_each(|item| check(value, item)).map(|()| true),
            "properties" => {
                for entry in entries {
                    if let Some(schema) = value.get(&entry.key) {
                        check(schema, &entry.value).map_err(|why| format!("{}.{why}", entry.key))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |key: &str| schema["properties"].get(key).is_some();
                for entry in entries.iter().filter(|entry| !known(&entry.key)) {
                    if *value == false {
                        return Err(format!("{}: unknown", entry.key));
                    }
                    check(value, &entry.value).map_err(|why| format!("{}.{why}", entry.key))?;
                }
                true
            }
            "pattern" | "propertyNames" | "description" | "title" | "$schema" | "$defs" => true,
            other => panic!("{other} is not understood"),
        })
    };
    for entry in schema.as_object().unwrap() {
        if !holds(entry)? {
            return Err(format!("{}: not so", entry.0));
        }
    }
    Ok(())
}

/// Every `x-deployer` below the node.
fn extensions<'n>(node: &'n Node, found: &mut Vec<&'n Node>) {
    match &node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| extensions(item, found)),
        Value::Map(entries) => {
            for entry in entries {
                if entry.key == "x-deployer" { found.push(&entry.value) } else { extensions(&entry.value, found) }
            }
        }
    }
}

/// What the schema has against the extensions in a text, each as one line; and how many there are.
pub(super) fn complaints(text: &str) -> (Vec<String>, usize) {
    let root = source::parse(text, 0, &mut Budget::default()).unwrap().remove(0);
    let (mut found, schema) = (Vec::new(), schema());
    extensions(&root, &mut found);
    (found.iter().filter_map(|node| fits(&schema, &schema, node).err()).collect(), found.len())
}

#[test]
fn the_examples_fit_the_schema() {
    let manual = include_str!("../../../../docs/compose.md");
    let examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut count = 0;
    for example in examples.chain([include_str!("shop.yaml")]) {
        let (complaints, found) = complaints(example);
        assert_eq!(complaints, [""; 0], "{example}");
        count += found;
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn what_is_refused_does_not_fit_the_schema() {
    for (extension, expected) in [
        ("{drian: 1s}", "drian: unknown"),
        ("{route: {}, routes: []}", "not: not so"),
        ("{route: {port: 0}}", "route.port.minimum: not so"),
        ("{health: {http: {}, tcp: {}}}", "health.not: not so"),
        ("{health: {http: {prt: 1}}}", "health.http.prt: unknown"),
        ("{strategy: canary}", "strategy.oneOf: not so"),
        ("{strategy: {type: rolling, bake: 1s}}", "strategy.oneOf: not so"),
        ("{strategy: {type: linear, step: 101, interval: 1s}}", "strategy.oneOf: not so"),
        ("{gates: [{name: g}]}", "gates.oneOf: not so"),
        ("{gates: [{name: g, latency: {max: 1s}, approval: {timeout: 1s}}]}", "gates.oneOf: not so"),
        ("{gates: [{name: g, latency: {max: 1s}, at: never}]}", "gates.at.enum: not so"),
        ("{hooks: [{name: h, point: later, command: x}]}", "hooks.point.enum: not so"),
        ("{hooks: [{name: h, point: pre-stop, command: []}]}", "hooks.command.oneOf: not so"),
        ("{scaling: {min: 1}}", "scaling.required: not so"),
        ("{scaling: {min: 1, max: 2, schedules: [{name: n, cron: x}]}}", "scaling.schedules.anyOf: not so"),
        ("{secrets: {A: [x]}}", "secrets.A.type: not so"),
    ] {
        let text = format!("services: {{web: {{image: x, expose: [80], x-deployer: {extension}}}}}");
        assert_eq!(complaints(&text).0, [expected], "{extension}");
        assert!(read(&text).is_err(), "{extension}");
    }
}

/// Whether a text is read.
type Reads = fn(&str) -> bool;

/// The patterns, each with what reads such a text.
const PATTERNS: [(&str, Reads); 9] = [
    // Days upon days are more than the hundred years that are read.
    ("/$defs/duration/pattern", |text| formats::duration(text).is_some() || text.matches('d').count() > 3),
    ("/$defs/port/pattern", |text| text.parse::<u16>().is_ok_and(|port| port > 0)),
    ("/$defs/count/pattern", |text| text.parse::<u32>().is_ok()),
    ("/$defs/percentage/pattern", |text| {
        text.trim_end_matches('%').parse::<u8>().is_ok_and(|percent| (1..=100).contains(&percent))
    }),
    ("/$defs/scaling/properties/requests/pattern", |text| {
        text.strip_suffix("/m").is_some_and(|number| number.trim_end().parse::<u32>().is_ok_and(|number| number > 0))
    }),
    ("/$defs/gate/properties/error-rate/properties/max/pattern", |text| formats::permille(text).is_some()),
    ("/$defs/gate/properties/smoke/properties/status/pattern", |text| {
        text.parse::<u16>().is_ok_and(|status| (100..600).contains(&status))
    }),
    ("/$defs/hook/properties/name/pattern", |text| ServiceName::new(text).is_ok()),
    ("/$defs/path/pattern", |text| text.starts_with('/')),
];

proptest! {
    #[test]
    fn what_a_pattern_allows_is_read(texts in PATTERNS.map(|(pointer, _)| {
        let pattern = schema().pointer(pointer).unwrap().as_str().unwrap().to_owned();
        proptest::string::string_regex(pattern.trim_matches(['^', '$'])).unwrap()
    })) {
        for (text, (pointer, reads)) in texts.iter().zip(PATTERNS) {
            // A variable may become anything. How large numbers may be is no matter of patterns.
            if text.contains('$') {
                continue;
            }
            let mut short = String::new();
            for c in text.chars() {
                let digits = short.chars().rev().take_while(char::is_ascii_digit).count();
                if !(c.is_ascii_digit() && digits >= 4 && pointer != "/$defs/hook/properties/name/pattern") {
                    short.push(c);
                }
            }
            prop_assert!(reads(&short), "{} takes {:?}", pointer, text);
        }
    }
}

#[test]
fn the_shop_as_it_is_written_fits_the_schema() {
    let text = writing::assert_written(&read(include_str!("shop.yaml")).unwrap().spec);
    assert_eq!(complaints(&text), (Vec::new(), 3), "{text}");
}
