//! The rules of each fake.

mod clock;
mod fixture;
mod store;
