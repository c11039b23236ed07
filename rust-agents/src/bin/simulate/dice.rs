//! The dice exist so that one number decides everything a schedule does; they never ask the machine
//! they run on for anything.

/// Steele, Lea and Flood's splitmix64: no dependency, the same everywhere, and good for any seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to below `sides`, which fits into 32 bits.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((mixed >> 32) * sides) >> 32
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: i64, most: i64) -> i64 {
        least + self.roll((most - least + 1) as u64) as i64
    }

    /// The same for sizes.
    pub(crate) fn size(&mut self, least: usize, most: usize) -> usize {
        least + self.roll((most - least + 1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize]
    }
}
