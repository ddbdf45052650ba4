//! The orchestrator: what it starts, sees, stops, and leaves alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compose;
mod exits;
mod health;
mod launch;
mod logs;
mod meaning;
mod network;
mod secrets;
mod shared;
mod task;
