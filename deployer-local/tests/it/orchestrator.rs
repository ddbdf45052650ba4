//! The orchestrator: what it starts, sees, stops, and leaves alone.

mod compose;
mod exits;
mod health;
mod launch;
mod logs;
mod network;
mod secrets;
mod shared;
mod task;
