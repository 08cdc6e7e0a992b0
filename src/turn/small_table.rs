//! A map that is a short array until it is not: most allocations have one or two peers, some have many.

use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;
use smallvec::SmallVec;

/// Entries searched one by one before a hash pays off.
const FEW: usize = 8;

/// A map with two entries inline.
#[derive(Debug, Clone)]
pub(super) enum SmallTable<K, V> {
    Few(SmallVec<[(K, V); 2]>),
    #[expect(clippy::box_collection, reason = "a hash map inline would double the size of every small table")]
    Many(Box<HashMap<K, V, RandomState>>),
}

impl<K, V> Default for SmallTable<K, V> {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl<K: Eq + Hash + Copy, V> SmallTable<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn find(&self, key: &K) -> Option<&V> {
        match self {
            Self::Few(few) => few.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            Self::Many(many) => many.get(key),
        }
    }

    pub(super) fn find_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Self::Few(few) => few.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v),
            Self::Many(many) => many.get_mut(key),
        }
    }

    /// Inserts or replaces.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if let Some(slot) = self.find_mut(&key) {
            *slot = value;
            return;
        }
        match self {
            Self::Few(few) if few.len() < FEW => few.push((key, value)),
            Self::Few(few) => {
                let mut many: HashMap<K, V, RandomState> = few.drain(..).collect();
                many.insert(key, value);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => {
                many.insert(key, value);
            }
        }
    }

    /// Keeps the entries for which `keep` holds.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match self {
            Self::Few(few) => few.retain(|(k, v)| keep(k, v)),
            Self::Many(many) => many.retain(|k, v| keep(k, v)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter().map(|(k, v)| (k, v)).chain(many.into_iter().flat_map(|many| many.iter()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_small_table_equals_a_map(steps: Vec<(u8, Option<u16>)>) {
            let (mut table, mut model) = (SmallTable::default(), BTreeMap::new());
            for (key, value) in steps {
                let key = key % 24;
                if let Some(value) = value {
                    table.insert(key, value);
                    model.insert(key, value);
                } else {
                    table.retain(|k, _| *k != key);
                    model.remove(&key);
                }
                prop_assert_eq!(table.len(), model.len());
                for key in 0..24 {
                    prop_assert_eq!(table.find(&key), model.get(&key));
                }
            }
            let seen: BTreeMap<_, _> = table.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(seen, model);
        }
    }
}
