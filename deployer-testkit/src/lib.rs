//! What Deployer is tested with, published so that others can test with it too.
//!
//! [`load`] sends requests at a constant rate and accounts for each of them, which is how "no request is lost" is
//! shown rather than said.

pub mod load;
