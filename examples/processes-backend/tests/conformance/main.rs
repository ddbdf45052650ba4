//! The published suites on this backend. What they ask for is in `site`, what they look at past the backend in `oracle`.

mod oracle;
mod site;
mod stores;

use std::process::ExitCode;

use deployer_testkit::conformance::Conformance;

fn main() -> ExitCode {
    Conformance::new().store(stores::Stores).site(site::ThisHost).run()
}
