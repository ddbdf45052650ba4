//! From the percentages of pools to the weights of their servers.

/// The largest weight that HAProxy knows.
pub(super) const LARGEST: u16 = 256;

/// The weights of each pool's servers, from each pool's percentage and number of servers. The sums over the pools are in
/// proportion to the percentages, as near as whole numbers from 0 to 256 allow; a pool with a percentage and servers
/// always gets something.
pub(super) fn scale(pools: &[(u8, usize)]) -> Vec<Vec<u16>> {
    // The pool that needs most for each of its servers gets the largest weight; the others follow.
    let most = pools
        .iter()
        .filter(|(_, servers)| *servers > 0)
        .max_by(|(a, n), (b, m)| (u64::from(*a) * *m as u64).cmp(&(u64::from(*b) * *n as u64)));
    let Some((percent, count)) = most.map(|(percent, count)| (u64::from(*percent), *count as u64)) else {
        return pools.iter().map(|_| Vec::new()).collect();
    };
    let share = |weight: u8, servers: usize| {
        if weight == 0 || percent == 0 {
            return vec![0; servers];
        }
        let total = (u64::from(LARGEST) * count * u64::from(weight) + percent / 2) / percent;
        spread(total.max(1), servers)
    };
    pools.iter().map(|(weight, servers)| share(*weight, *servers)).collect()
}

/// A total in equal parts; the first ones get the rest.
fn spread(total: u64, parts: usize) -> Vec<u16> {
    let count = parts as u64;
    let part = |index: u64| u16::try_from(total / count + u64::from(index < total % count)).unwrap_or(u16::MAX);
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(pools: &[(u8, usize)]) -> Vec<f64> {
        let sums: Vec<f64> = scale(pools).iter().map(|pool| pool.iter().map(|w| f64::from(*w)).sum()).collect();
        let all: f64 = sums.iter().sum();
        sums.iter().map(|sum| 100.0 * sum / all).collect()
    }

    #[test]
    fn the_split_is_that_of_the_pools_not_of_the_servers() {
        for pools in [[(90, 3), (10, 1)], [(90, 1), (10, 3)], [(99, 1), (1, 10)], [(50, 7), (50, 2)]] {
            let shares = shares(&pools);
            assert!((shares[1] - f64::from(pools[1].0)).abs() < 0.5, "{pools:?}: {shares:?}");
        }
    }

    #[test]
    fn weights_are_within_bounds() {
        for pools in [[(100, 3), (0, 2)], [(1, 1), (99, 40)], [(99, 300), (1, 1)], [(60, 0), (40, 2)], [(0, 0), (0, 1)]]
        {
            let weights = scale(&pools);
            for ((percent, servers), weights) in pools.iter().zip(&weights) {
                assert_eq!(weights.len(), *servers);
                assert!(weights.iter().all(|weight| *weight <= 256), "{pools:?}: {weights:?}");
                let some = weights.iter().any(|weight| *weight > 0);
                assert_eq!(some, *percent > 0 && *servers > 0, "{pools:?}: {weights:?}");
            }
        }
        assert_eq!(scale(&[(100, 3), (0, 2)]), [vec![256; 3], vec![0; 2]]);
    }
}
