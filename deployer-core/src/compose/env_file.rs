//! Files of variables for the Compose files, such as `.env`.

use std::rc::Rc;

use super::dotenv::{self, Format};
use super::load;
use super::report::Report;
use super::sources::Location;
use super::variables::{Origin, Variables};
use crate::model::Problem;

/// Whether a file has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
}

/// Adds the variables of a file to those of earlier files. `given` win over both where values refer to variables.
///
/// Problems have no place: the line that a place shows could hold a password.
///
/// Answers false, after a report, if the file cannot be read: without its variables all values would look wrong.
#[must_use]
pub(super) fn read(
    report: &mut Report,
    file: &Location,
    presence: Presence,
    given: &Variables,
    earlier: &mut Variables,
) -> bool {
    let mut refuse = |message: String| report.add(Problem::error(file.shown(), message));
    let text = match load::text(&file.absolute) {
        Ok(Some(text)) => text,
        Ok(None) if presence == Presence::Optional => return true,
        Ok(None) => {
            refuse("the file does not exist".to_owned());
            return false;
        }
        Err(why) => {
            refuse(why);
            return false;
        }
    };
    match dotenv::parse(&text, Format::Compose, &|name| given.get(name), &|name| earlier.get(name)) {
        Ok(variables) => {
            let name: Rc<str> = file.shown().into();
            for variable in variables {
                let Some(value) = variable.value else { continue };
                let line = u32::try_from(variable.line).unwrap_or(u32::MAX);
                earlier.set(variable.name, value, Origin::File { name: Rc::clone(&name), line });
            }
            true
        }
        Err(faults) => {
            faults.into_iter().for_each(|fault| refuse(format!("line {}: {}", fault.line, fault.message)));
            false
        }
    }
}
