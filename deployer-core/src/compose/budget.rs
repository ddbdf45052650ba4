//! What all files of one read may take together.

/// How many nodes all trees may have after aliases and `extends` are resolved.
const MAX_NODES: usize = 200_000;
/// How much text all trees may hold after aliases and `extends` are resolved.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// What is left for further nodes.
#[derive(Debug)]
pub(super) struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES, bytes: MAX_TEXT_BYTES }
    }
}

impl Budget {
    /// Takes this much, if it is there. Otherwise nothing is left for anybody.
    #[must_use]
    pub(super) fn take(&mut self, nodes: usize, bytes: usize) -> bool {
        match (self.nodes.checked_sub(nodes), self.bytes.checked_sub(bytes)) {
            (Some(nodes), Some(bytes)) => {
                *self = Self { nodes, bytes };
                true
            }
            _ => {
                *self = Self { nodes: 0, bytes: 0 };
                false
            }
        }
    }
}
