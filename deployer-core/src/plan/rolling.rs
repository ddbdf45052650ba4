//! The batches of a rolling deployment.

/// One batch: so many new instances are started, then so many old ones are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// How many new instances there shall be.
    pub(super) new: u32,
    /// How many old instances stay in rotation afterwards.
    pub(super) old: u32,
}

/// The batches that bring the old instances down and `wanted` new ones up, of which `there` are there already, with never
/// more than `surge` beyond the wanted number and never more than `unavailable` below it. Of each old instance, `old` says
/// by rising ordinal whether it is ready. The last batch has all new
/// instances; those old ones that are still there then are left to the clean-up.
pub(super) fn batches(old: &[bool], there: u32, wanted: u32, surge: u32, unavailable: u32) -> Vec<Batch> {
    let ready = |first: u32| u32::try_from(old.iter().take(first as usize).filter(|ready| **ready).count());
    let ready = |first: u32| ready(first).unwrap_or(u32::MAX);
    let (mut new, mut left) = (there.min(wanted), u32::try_from(old.len()).unwrap_or(u32::MAX));
    let mut batches = Vec::new();
    loop {
        let most = wanted.saturating_add(surge);
        let start = most.saturating_sub(new.saturating_add(left)).min(wanted - new);
        new += start;
        if new == wanted {
            batches.push(Batch { new, old: left });
            return batches;
        }
        // So many must be left, and so many of them ready. Those that are not may become so meanwhile, and then they are
        // needed; where too few are ready already, it does not get worse.
        let least = wanted.saturating_sub(unavailable);
        let serving = new.saturating_add(ready(left)).min(least);
        let enough = |keep: &u32| new.saturating_add(*keep) >= least && new.saturating_add(ready(*keep)) >= serving;
        let mut keep = (0..=left).find(enough).unwrap_or(left);
        if start == 0 && keep == left {
            // Old ones beyond what may exist at all must go even if that leaves fewer than the old number.
            keep = left.saturating_sub(1);
        }
        left = keep;
        batches.push(Batch { new, old: left });
    }
}

/// The percentage of traffic for `new` of `new + old` instances: never all or nothing while both have some.
pub(super) fn share(new: u32, old: u32) -> u8 {
    match (new, old) {
        (0, _) => 0,
        (_, 0) => 100,
        _ => {
            let (new, all) = (u64::from(new), u64::from(new) + u64::from(old));
            u8::try_from(((new * 100 + all / 2) / all).clamp(1, 99)).unwrap_or(99)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(old: u32, wanted: u32, surge: u32, unavailable: u32) -> Vec<(u32, u32)> {
        let old = vec![true; old as usize];
        batches(&old, 0, wanted, surge, unavailable).into_iter().map(|batch| (batch.new, batch.old)).collect()
    }

    #[test]
    fn batches_keep_their_bounds() {
        assert_eq!(numbers(3, 3, 1, 0), [(1, 2), (2, 1), (3, 1)]);
        assert_eq!(numbers(3, 3, 3, 0), [(3, 3)]);
        assert_eq!(numbers(3, 3, 0, 1), [(0, 2), (1, 1), (2, 0), (3, 0)]);
        assert_eq!(numbers(0, 2, 1, 0), [(2, 0)]);
        assert_eq!(numbers(5, 1, 1, 0).last(), Some(&(1, 1)));
    }

    #[test]
    fn bounds_are_kept_whoever_is_ready() {
        let range = |end: u32| 0..end;
        let cases = range(6).flat_map(|old| range(1 << old).map(move |bits| (old, bits)));
        let cases = cases.map(|(old, bits)| range(old).map(|at| bits >> at & 1 == 1).collect::<Vec<bool>>());
        let cases = cases.flat_map(|old| (1..6).map(move |wanted| (old.clone(), wanted)));
        let cases = cases.flat_map(|case| range(6).map(move |there| (case.clone(), there)));
        let cases = cases.flat_map(|case| range(16).map(move |bounds| (case.clone(), bounds / 4, bounds % 4)));
        for (((old, wanted), there), surge, unavailable) in cases.filter(|(_, surge, down)| surge + down > 0) {
            let (mut new, mut left) = (there.min(wanted), u32::try_from(old.len()).unwrap());
            let ready = |first: u32| u32::try_from(old.iter().take(first as usize).filter(|r| **r).count()).unwrap();
            let case = format!("{old:?} old, {there} new, {wanted} wanted, surge {surge}, unavailable {unavailable}");
            let all = new + left;
            for batch in batches(&old, there, wanted, surge, unavailable) {
                assert!(batch.new >= new && batch.old <= left, "{case}");
                // While the batch starts: new ones beside all old ones that are still there.
                assert!(batch.new + left <= (wanted + surge).max(all), "{case}");
                // While the old ones go: what is left must be enough, or no less than before. Only where there is no
                // room for a new one and nobody else can go, a ready one does.
                let least = wanted.saturating_sub(unavailable).min(batch.new + ready(left));
                let forced = u32::from(batch.new == new && batch.old + 1 == left && ready(left) > ready(batch.old));
                assert!(batch.new + ready(batch.old) + forced >= least, "{case}");
                // Whoever is not ready may become so: the numbers alone keep the bound.
                assert!(batch.new + batch.old >= wanted.saturating_sub(unavailable).min(all), "{case}");
                (new, left) = (batch.new, batch.old);
            }
            assert_eq!(new, wanted, "{case}");
        }
    }

    #[test]
    fn what_was_begun_is_gone_on_with() {
        let numbers = |there| {
            batches(&[true; 2], there, 3, 1, 0).into_iter().map(|batch| (batch.new, batch.old)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), [(2, 1), (3, 1)]);
        assert_eq!(numbers(5), [(3, 2)]);
    }

    #[test]
    fn old_instances_that_are_not_ready_are_missing_already() {
        let numbers = |old: &[bool], unavailable| {
            let batches = batches(old, 0, 3, 3, unavailable).into_iter();
            batches.map(|batch| (batch.new, batch.old)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[false, true, true, true], 0), [(2, 2), (3, 2)]);
        assert_eq!(numbers(&[true, true, true, false], 0), [(2, 1), (3, 1)]);
        // They may become ready.
        assert_eq!(numbers(&[false; 4], 1), [(2, 0), (3, 0)]);
        assert_eq!(numbers(&[false; 4], 0), [(2, 1), (3, 1)]);
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(
            [share(0, 3), share(1, 2), share(1, 1), share(2, 1), share(3, 0), share(1, 1000)],
            [0, 33, 50, 67, 100, 1]
        );
    }
}
