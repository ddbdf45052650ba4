//! DynamoDB's expressions, as far as a release store writes them:
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html>.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Refusal;
use super::records_api::Item;

/// Some of the names that may not be written out, of those that somebody could choose.
const RESERVED: [&str; 12] =
    ["owner", "position", "first", "last", "number", "hash", "state", "status", "ttl", "value", "name", "time"];

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("ValidationException", message)
}

/// An expression with what it may refer to.
#[derive(Debug)]
pub(super) struct Expression<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    names: &'a Value,
    values: &'a Value,
}

/// Words, placeholders and signs.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let inner = |c: char| c.is_ascii_alphanumeric() || "_:#".contains(c);
        let length = if inner(first) { rest.find(|c| !inner(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, left) = rest.split_at(length);
        tokens.push(token);
        rest = left.trim_start();
    }
    tokens
}

impl<'a> Expression<'a> {
    /// The expression of this name in a request, if there is one.
    pub(super) fn new(request: &'a Value, name: &str) -> Result<Option<Self>, Refusal> {
        let (names, values) = (&request["ExpressionAttributeNames"], &request["ExpressionAttributeValues"]);
        for (what, given) in [("names", names), ("values", values)] {
            if given.as_object().is_some_and(serde_json::Map::is_empty) {
                return Err(invalid(format!("Expression attribute {what} must not be empty")));
            }
        }
        let Some(text) = request[name].as_str() else { return Ok(None) };
        Ok(Some(Self { tokens: tokens(text), at: 0, names, values }))
    }

    /// Whether the condition holds of an item.
    pub(super) fn holds(&mut self, item: Option<&Item>) -> Result<bool, Refusal> {
        self.at = 0;
        let nothing = Item::new();
        let holds = self.any(item.unwrap_or(&nothing))?;
        self.end()?;
        Ok(holds)
    }

    /// Applies an update to an item.
    pub(super) fn apply(mut self, item: &mut Item) -> Result<(), Refusal> {
        let before = item.clone();
        while let Some(clause) = self.next() {
            loop {
                let name = self.path()?;
                match clause {
                    "SET" => {
                        self.expect("=")?;
                        let value = self.operand(&before)?.ok_or_else(|| invalid("an operand has no value"))?;
                        item.insert(name, value);
                    }
                    "REMOVE" => drop(item.remove(&name)),
                    other => return Err(invalid(format!("{other} is not known here"))),
                }
                if !self.take(",") {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Everything that was given is used here.
    pub(super) fn check_used(&self) -> Result<(), Refusal> {
        self.unused(self.mentioned())
    }

    /// Everything that was given is used here or there.
    pub(super) fn check_used_with(&self, other: &Self) -> Result<(), Refusal> {
        self.unused(self.mentioned().chain(other.mentioned()))
    }

    fn mentioned(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.tokens.iter().copied()
    }

    fn unused(&self, used: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
        let used: BTreeSet<&str> = used.collect();
        let given = [self.names, self.values].into_iter().filter_map(Value::as_object).flat_map(|given| given.keys());
        match given.into_iter().find(|name| !used.contains(name.as_str())) {
            Some(name) => Err(invalid(format!("{name} is given and unused in expressions"))),
            None => Ok(()),
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Result<(), Refusal> {
        if self.take(wanted) { Ok(()) } else { Err(self.wrong()) }
    }

    fn end(&self) -> Result<(), Refusal> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(self.wrong()) }
    }

    fn wrong(&self) -> Refusal {
        invalid(format!("Syntax error at {:?} of {}", self.peek().unwrap_or("the end"), self.tokens.join(" ")))
    }

    // Both sides are read, whatever the first one says.
    fn any(&mut self, item: &Item) -> Result<bool, Refusal> {
        let mut holds = self.all(item)?;
        while self.take("OR") {
            holds |= self.all(item)?;
        }
        Ok(holds)
    }

    fn all(&mut self, item: &Item) -> Result<bool, Refusal> {
        let mut holds = self.one(item)?;
        while self.take("AND") {
            holds &= self.one(item)?;
        }
        Ok(holds)
    }

    fn one(&mut self, item: &Item) -> Result<bool, Refusal> {
        if self.take("NOT") {
            return Ok(!self.one(item)?);
        }
        if self.take("(") {
            let holds = self.any(item)?;
            self.expect(")")?;
            return Ok(holds);
        }
        match self.peek() {
            Some(function @ ("attribute_exists" | "attribute_not_exists" | "contains")) => {
                self.at += 1;
                self.function(function, item)
            }
            _ => {
                let left = self.operand(item)?;
                if self.take("BETWEEN") {
                    let from = self.operand(item)?;
                    self.expect("AND")?;
                    let to = self.operand(item)?;
                    let text =
                        |value: &Option<Value>| value.as_ref().and_then(|it| it["S"].as_str().map(str::to_owned));
                    return Ok(text(&left).is_some() && text(&from) <= text(&left) && text(&left) <= text(&to));
                }
                self.expect("=")?;
                let right = self.operand(item)?;
                Ok(left.is_some() && left == right)
            }
        }
    }

    fn function(&mut self, function: &str, item: &Item) -> Result<bool, Refusal> {
        self.expect("(")?;
        let name = self.path()?;
        let found = item.get(&name);
        let holds = match function {
            "attribute_exists" => found.is_some(),
            "attribute_not_exists" => found.is_none(),
            _ => {
                self.expect(",")?;
                let wanted = self.operand(item)?;
                let listed = found.and_then(|value| value["L"].as_array());
                listed.is_some_and(|list| list.iter().any(|one| Some(one) == wanted.as_ref()))
            }
        };
        self.expect(")")?;
        Ok(holds)
    }

    /// The name of an attribute.
    fn path(&mut self) -> Result<String, Refusal> {
        let Some(token) = self.next() else { return Err(self.wrong()) };
        if token.starts_with('#') {
            let name = self.names[token].as_str();
            return name.map(str::to_owned).ok_or_else(|| invalid(format!("{token} is not defined")));
        }
        if RESERVED.contains(&token.to_ascii_lowercase().as_str()) {
            return Err(invalid(format!("Attribute name is a reserved keyword; reserved keyword: {token}")));
        }
        let first = token.chars().next();
        if first.is_some_and(|c| c.is_ascii_alphabetic()) { Ok(token.to_owned()) } else { Err(self.wrong()) }
    }

    /// A value that was given, an attribute, or what a function makes of them.
    fn operand(&mut self, item: &Item) -> Result<Option<Value>, Refusal> {
        match self.peek() {
            Some(value) if value.starts_with(':') => {
                self.at += 1;
                let given = Some(&self.values[value]).filter(|given| given.is_object());
                given.cloned().map(Some).ok_or_else(|| invalid(format!("{value} is not defined")))
            }
            Some(function @ ("if_not_exists" | "list_append")) => {
                self.at += 1;
                self.expect("(")?;
                let first = match function {
                    "if_not_exists" => item.get(&self.path()?).cloned(),
                    _ => self.operand(item)?,
                };
                self.expect(",")?;
                let second = self.operand(item)?;
                self.expect(")")?;
                if function == "if_not_exists" {
                    return Ok(first.or(second));
                }
                let list = |value: Option<Value>| value.and_then(|value| value["L"].as_array().cloned());
                match (list(first), list(second)) {
                    (Some(one), Some(other)) => {
                        let both = [one, other].concat();
                        Ok(Some(json!({"L": both})))
                    }
                    _ => Err(invalid("list_append takes two lists")),
                }
            }
            _ => Ok(item.get(&self.path()?).cloned()),
        }
    }
}
