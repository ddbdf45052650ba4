//! Tests of what is not a backend trait: the environment and the policies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod environments;
mod policies;
mod stacks;
mod template;
