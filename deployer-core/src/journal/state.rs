//! Placeholder while the fold is being written.

/// See below.
#[derive(Clone, Debug)]
pub struct State;
/// See below.
#[derive(Clone, Debug)]
pub struct StepState;
/// See below.
#[derive(Clone, Debug)]
pub struct GateState;
