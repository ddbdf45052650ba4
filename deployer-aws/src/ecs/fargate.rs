//! Processors and memory that Fargate sells:
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size>.

/// One size of processor in units of 1/1024, with the memory it may have in MiB: from, to, and in which steps.
const SIZES: [(u32, u32, u32, u32); 7] = [
    (256, 512, 2_048, 1_024),
    (512, 1_024, 4_096, 1_024),
    (1_024, 2_048, 8_192, 1_024),
    (2_048, 4_096, 16_384, 1_024),
    (4_096, 8_192, 30_720, 1_024),
    (8_192, 16_384, 61_440, 4_096),
    (16_384, 32_768, 122_880, 8_192),
];

/// The smallest pair of processor units and MiB that has at least so much of both; none if Fargate has no such machine.
pub(super) fn size(cpu_millis: u64, memory_bytes: u64) -> Option<(u32, u32)> {
    let units = cpu_millis.saturating_mul(1_024).div_ceil(1_000);
    let mebibytes = memory_bytes.div_ceil(1 << 20);
    SIZES.into_iter().find_map(|(cpu, from, to, step)| {
        if u64::from(cpu) < units || u64::from(to) < mebibytes {
            return None;
        }
        if mebibytes <= u64::from(from) {
            return Some((cpu, from));
        }
        // The smallest processor has half a gibibyte and then whole ones.
        let memory = mebibytes.div_ceil(u64::from(step)) * u64::from(step);
        u32::try_from(memory).ok().map(|memory| (cpu, memory.max(from)))
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_smallest_machine_that_suffices() {
        assert_eq!(size(0, 0), Some((256, 512)));
        assert_eq!(size(250, 513 * MIB), Some((256, 1_024)));
        assert_eq!(size(251, 0), Some((512, 1_024)));
        assert_eq!(size(250, 3_000 * MIB), Some((512, 3_072)));
        assert_eq!(size(1_000, 2_048 * MIB), Some((1_024, 2_048)));
        assert_eq!(size(100, 31_000 * MIB), Some((8_192, 32_768)));
        assert_eq!(size(16_000, 122_880 * MIB), Some((16_384, 122_880)));
    }

    #[test]
    fn none_is_large_enough() {
        assert_eq!(size(16_001, 0), None);
        assert_eq!(size(0, 122_881 * MIB), None);
    }
}
