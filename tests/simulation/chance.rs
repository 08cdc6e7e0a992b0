//! Where every decision of a simulation comes from: a seed, or the bytes of a fuzzer.

/// A source of decisions.
#[derive(Debug, Clone)]
pub enum Chance {
    /// A seeded generator, without end.
    Seeded(u64),
    /// Bytes and how many of them are used up; behind the last one every decision is 0.
    Bytes(Vec<u8>, usize),
}

impl Chance {
    /// Whether there is something left to decide with.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Self::Bytes(bytes, used) if *used >= bytes.len())
    }

    /// 64 bits of a generator, 8 of a fuzzer.
    pub fn bits(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^ (mixed >> 31)
            }
            Self::Bytes(bytes, used) => {
                let byte = bytes.get(*used).copied().unwrap_or_default();
                *used += 1;
                u64::from(byte)
            }
        }
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        let wide = if count > 256 { self.bits() << 8 ^ self.bits() } else { self.bits() };
        (wide % count as u64) as usize
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}
