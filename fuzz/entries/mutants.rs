//! Mutants of a corpus, for machines without libFuzzer: not guided by coverage, but in ordinary tests and on any
//! toolchain.
//!
//! `FUZZ_SEED` chooses another sequence than the usual one, `FUZZ_SECONDS` how long to go on; without the latter it is a
//! fixed number of mutants. One that fails is written to the directory of temporary files, and its path is said.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs an entry point with every file of its corpus, and with so many mutants of them.
pub(crate) fn run(target: &str, mutants: u32, words: &[&str], entry: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut corpus: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    corpus.sort();
    let mut corpus: Vec<Vec<u8>> = corpus.into_iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() >= 5, "{} is no corpus", directory.display());
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut random = Random(number("FUZZ_SEED").unwrap_or(1));
    let until = number("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let tried = |data: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| entry(data))) {
            let path = std::env::temp_dir().join(format!("deployer-fuzz-{target}-{}", std::process::id()));
            fs::write(&path, data).unwrap();
            eprintln!("the input is in {}", path.display());
            resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|data| tried(data));
    let seeds = corpus.len();
    let mut runs = 0_u32;
    while until.map_or(runs < mutants, |until| Instant::now() < until) {
        let mut data = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            random.mutate(&mut data, &corpus, words);
        }
        data.truncate(1 << 17);
        tried(&data);
        runs += 1;
        // Mutants of mutants go farther.
        match random.below(8) {
            0 if corpus.len() < 4 * seeds => corpus.push(data),
            0 => {
                let old = seeds + random.below(corpus.len() - seeds);
                corpus[old] = data;
            }
            _ => {}
        }
    }
    println!("fuzz {target}: {seeds} files, {runs} mutants");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    /// A piece of some bytes, by where it begins and ends.
    fn piece(&mut self, length: usize, longest: usize) -> (usize, usize) {
        let start = self.below(length + 1);
        (start, (start + self.below(longest)).min(length))
    }

    fn mutate(&mut self, data: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
        let at = self.below(data.len() + 1);
        match self.below(9) {
            0 => {
                let (start, end) = self.piece(data.len(), 64);
                data.drain(start..end);
            }
            1 => {
                let (start, end) = self.piece(data.len(), 256);
                let piece = data[start..end].repeat(1 + self.below(3));
                data.splice(at..at, piece);
            }
            2 if !data.is_empty() => {
                let at = at.min(data.len() - 1);
                data[at] ^= 1 << self.below(8);
            }
            3 => data.insert(at, b" \n\t:-,{}[]\"'&*!|>#?%$0"[self.below(22)]),
            4 => data.truncate(at),
            5 => {
                let other = &corpus[self.below(corpus.len())];
                let (start, end) = self.piece(other.len(), 512);
                data.splice(at..at, other[start..end].iter().copied());
            }
            6 => {
                // One line goes, comes twice, or changes its place.
                let mut lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                let line = lines[self.below(lines.len())].clone();
                let to = self.below(lines.len());
                match self.below(3) {
                    0 => drop(lines.remove(to)),
                    1 => lines.insert(to, line),
                    _ => {
                        let from = self.below(lines.len());
                        lines.swap(from, to);
                    }
                }
                *data = lines.join(&b'\n');
            }
            7 => {
                // A number becomes one at a border.
                const BORDERS: [&str; 8] =
                    ["0", "1", "-1", "255", "4294967295", "18446744073709551615", "9223372036854775808", "1e400"];
                let digits = data.iter().enumerate().skip(at).skip_while(|(_, byte)| !byte.is_ascii_digit());
                let digits: Vec<usize> =
                    digits.take_while(|(_, byte)| byte.is_ascii_digit()).map(|(index, _)| index).collect();
                if let (Some(first), Some(last)) = (digits.first(), digits.last()) {
                    data.splice(first..=last, BORDERS[self.below(8)].bytes());
                }
            }
            _ => {
                let word = words[self.below(words.len())];
                data.splice(at..at, word.bytes());
            }
        }
    }
}
