//! The keys that are not merged the usual way, which is: mappings by key, lists by appending, and else the later value.

/// How the two values of a key are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The later value stands alone.
    Replace,
    /// Names with values, as a mapping or as a list of `NAME=value`: the later value of a name counts.
    Pairs,
    /// Names with settings, as a mapping or as a list of the names.
    Names(Listed),
    /// A list, or one value that stands for a list of one. An item takes the place of an earlier one with the same key.
    Items(ItemKey),
    /// A list of mappings. An item is merged into an earlier one that has the same value of this key.
    Merged(&'static str),
    /// A mapping for which text may stand, namely the value of `short`. If both have another value of `kind`, the later
    /// one stands alone.
    Mapping { short: Option<&'static str>, kind: Option<&'static str> },
}

/// What it means that a name is in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// Nothing is set.
    Bare,
    /// The defaults of a dependency are set.
    Dependency,
}

/// What must be different between the items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKey {
    /// The whole text.
    Text,
    /// What stands before the `=`.
    Pair,
    /// The path in the container: `target`, or the second part of `SOURCE:TARGET`.
    Target,
    /// The path in the container of a file system in memory: what stands before the `:`.
    Tmpfs,
    /// `target`, or the source below this directory.
    File(&'static str),
    /// The name and the address; such lists may also be mappings.
    Host,
    /// The value of this key.
    Key(&'static str),
}

const BUILD: Rule = Rule::Mapping { short: Some("context"), kind: None };
const LOGGING: Rule = Rule::Mapping { short: None, kind: Some("driver") };
const STRATEGY: Rule = Rule::Mapping { short: Some("type"), kind: Some("type") };
const HOSTS: Rule = Rule::Items(ItemKey::Host);
const TEXTS: Rule = Rule::Items(ItemKey::Text);
const TARGETS: Rule = Rule::Items(ItemKey::Target);
const NAMED: Rule = Rule::Items(ItemKey::Key("name"));

/// Paths with their rules; `*` is any key.
///
/// `ports` are not here: only when ranges are written out can be told which are the same.
const RULES: &[(&[&str], Rule)] = &[
    (&["configs", "*", "labels"], Rule::Pairs),
    (&["networks", "*", "ipam", "config"], Rule::Merged("subnet")),
    (&["networks", "*", "labels"], Rule::Pairs),
    (&["secrets", "*", "labels"], Rule::Pairs),
    (&["volumes", "*", "labels"], Rule::Pairs),
    (&["services", "*", "annotations"], Rule::Pairs),
    (&["services", "*", "build"], BUILD),
    (&["services", "*", "build", "additional_contexts"], Rule::Pairs),
    (&["services", "*", "build", "args"], Rule::Pairs),
    (&["services", "*", "build", "extra_hosts"], HOSTS),
    (&["services", "*", "build", "labels"], Rule::Pairs),
    (&["services", "*", "build", "tags"], TEXTS),
    (&["services", "*", "cap_add"], TEXTS),
    (&["services", "*", "cap_drop"], TEXTS),
    (&["services", "*", "command"], Rule::Replace),
    (&["services", "*", "configs"], Rule::Items(ItemKey::File("/"))),
    (&["services", "*", "depends_on"], Rule::Names(Listed::Dependency)),
    (&["services", "*", "deploy", "labels"], Rule::Pairs),
    (&["services", "*", "devices"], TARGETS),
    (&["services", "*", "dns"], TEXTS),
    (&["services", "*", "dns_opt"], TEXTS),
    (&["services", "*", "dns_search"], TEXTS),
    (&["services", "*", "entrypoint"], Rule::Replace),
    (&["services", "*", "env_file"], Rule::Items(ItemKey::Key("path"))),
    (&["services", "*", "environment"], Rule::Pairs),
    (&["services", "*", "expose"], TEXTS),
    (&["services", "*", "extra_hosts"], HOSTS),
    (&["services", "*", "healthcheck", "test"], Rule::Replace),
    (&["services", "*", "label_file"], TEXTS),
    (&["services", "*", "labels"], Rule::Pairs),
    (&["services", "*", "links"], Rule::Items(ItemKey::Pair)),
    (&["services", "*", "logging"], LOGGING),
    (&["services", "*", "models"], Rule::Names(Listed::Bare)),
    (&["services", "*", "networks"], Rule::Names(Listed::Bare)),
    (&["services", "*", "networks", "*", "aliases"], TEXTS),
    (&["services", "*", "networks", "*", "link_local_ips"], TEXTS),
    (&["services", "*", "profiles"], TEXTS),
    (&["services", "*", "secrets"], Rule::Items(ItemKey::File("/run/secrets/"))),
    (&["services", "*", "sysctls"], Rule::Pairs),
    (&["services", "*", "tmpfs"], Rule::Items(ItemKey::Tmpfs)),
    (&["services", "*", "ulimits", "*"], Rule::Replace),
    (&["services", "*", "volumes"], TARGETS),
    (&["services", "*", "x-deployer", "gates"], NAMED),
    (&["services", "*", "x-deployer", "hooks"], NAMED),
    (&["services", "*", "x-deployer", "scaling", "schedules"], NAMED),
    (&["services", "*", "x-deployer", "strategy"], STRATEGY),
];

/// The rule for the values at this path, unless they are merged the usual way.
pub(super) fn of(path: &[String]) -> Option<Rule> {
    let same = |(pattern, key): (&&str, &String)| *pattern == "*" || pattern == key;
    let fits = |pattern: &[&str]| pattern.len() == path.len() && pattern.iter().zip(path).all(same);
    RULES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, rule)| *rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str) -> Option<Rule> {
        of(&path.split('/').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn rules_are_found_by_the_whole_path() {
        assert_eq!(rule("services/web/command"), Some(Rule::Replace));
        assert_eq!(rule("services/a.b/networks/front/aliases"), Some(TEXTS));
        for path in ["services", "services/web", "services/web/command/x", "x-y/web/command", "networks/web/command"] {
            assert_eq!(rule(path), None, "{path}");
        }
    }
}
