//! Tests against the real Docker Engine. They fail where there is none.

mod engine;
mod orchestrator;
