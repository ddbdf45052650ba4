//! Variables are put into every value of a tree; keys stay as they are.

use super::node::{Merging, Node, Template, Value};
use super::report::Report;
use super::template::Expander;
use super::variables::{Origin, Variables};

/// Of how many variables in one value is said where they come from.
const MAX_ORIGINS: usize = 8;

/// Puts variables into every value below `node`, at most `left` bytes.
pub(super) fn apply(node: &mut Node, path: &str, variables: &Variables, left: &mut usize, report: &mut Report) {
    let lookup = |name: &str| variables.get(name);
    let mut expander = Expander::with_budget(&lookup, *left);
    walk(node, path, variables, &mut expander, report);
    *left = expander.left();
}

fn walk(node: &mut Node, path: &str, variables: &Variables, expander: &mut Expander<'_>, report: &mut Report) {
    if node.merging == Merging::Reset {
        return;
    }
    let at = node.at;
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => {
            if !scalar.text.contains('$') || expander.left() == 0 {
                return;
            }
            let place = |offset: usize| scalar.offset.map_or(at, |start| at.plus(start + offset));
            match expander.expand(&scalar.text) {
                Ok(expanded) => {
                    for (name, offset) in expanded.unset {
                        report.unset(path, place(offset), &name);
                    }
                    let text = std::mem::replace(&mut scalar.text, expanded.text);
                    let mut used = Vec::new();
                    for name in expanded.used {
                        let Some((value, origin)) = variables.value_and_origin(&name) else { continue };
                        if *origin != Origin::ProjectName {
                            report.hide(&name, value);
                        }
                        if used.len() < MAX_ORIGINS {
                            used.push((name, origin.clone()));
                        }
                    }
                    scalar.template = Some(Template { text, variables: used });
                }
                Err(fault) => {
                    let help = fault.help.map(str::to_owned);
                    report.problem(path, place(fault.offset), fault.message, help);
                    report.settle(path);
                }
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &format!("{path}[{index}]"), variables, expander, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", entry.key);
                walk(&mut entry.value, &path, variables, expander, report);
            }
        }
    }
}
