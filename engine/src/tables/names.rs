//! Names with their hash, and a map from names that shares what did not change.

use std::borrow::Borrow;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

/// A resource's name with its hash: cheap to copy, cheap to look up.
#[derive(Clone)]
pub struct Name {
    hash: u64,
    text: Arc<str>,
}

impl Name {
    /// Names a resource.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Name { hash: hash(text), text: text.into() }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name as shared text.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for Name {}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn hash(text: &str) -> u64 {
    foldhash::fast::FixedState::default().hash_one(text)
}

const SHARDS: usize = 64;

type Shard<V> = Vec<(Name, V)>;

/// A map from names to values, cheap to clone: a change copies one shard of 64 and shares the others.
///
/// Meant for values that are cheap to clone themselves (`Arc`). With 10,000 names a change copies about 160 entries.
pub struct NameMap<V> {
    shards: Arc<[Option<Arc<Shard<V>>>; SHARDS]>,
    len: usize,
}

impl<V> Clone for NameMap<V> {
    fn clone(&self) -> Self {
        NameMap { shards: Arc::clone(&self.shards), len: self.len }
    }
}

impl<V> Default for NameMap<V> {
    fn default() -> Self {
        NameMap { shards: Arc::new([const { None }; SHARDS]), len: 0 }
    }
}

impl<V: fmt::Debug> fmt::Debug for NameMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries()).finish()
    }
}

impl<V> NameMap<V> {
    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a name whose hash is known.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&V> {
        self.find(name.hash, &name.text)
    }

    /// The value of a name.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&V> {
        self.find(hash(name), name)
    }

    /// All names and values, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.shards.iter().flatten().flat_map(|shard| shard.iter().map(|(name, value)| (name, value)))
    }

    fn find(&self, hash: u64, text: &str) -> Option<&V> {
        let shard = self.shards[shard_of(hash)].as_ref()?;
        let at = position(shard, hash, text).ok()?;
        Some(&shard[at].1)
    }
}

impl<V: Clone> NameMap<V> {
    /// Sets the value of a name and gives the old one.
    pub fn insert(&mut self, name: Name, value: V) -> Option<V> {
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards)[shard_of(name.hash)].get_or_insert_default());
        match position(shard, name.hash, &name.text) {
            Ok(at) => Some(std::mem::replace(&mut shard[at].1, value)),
            Err(at) => {
                shard.insert(at, (name, value));
                self.len += 1;
                None
            }
        }
    }

    /// Removes a name and gives its value.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let hash = hash(name);
        let shard = self.shards[shard_of(hash)].as_ref()?;
        let at = position(shard, hash, name).ok()?;
        let shard = Arc::make_mut(&mut self.shards)[shard_of(hash)].as_mut()?;
        self.len -= 1;
        Some(Arc::make_mut(shard).remove(at).1)
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> 58) as usize
}

/// Where a name is, or belongs, in a shard, which is sorted by hash and then by text.
fn position<V>(shard: &Shard<V>, hash: u64, text: &str) -> Result<usize, usize> {
    shard.binary_search_by(|(name, _)| name.hash.cmp(&hash).then_with(|| (*name.text).cmp(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_copy_leaves_the_original_alone() {
        let mut first = NameMap::default();
        for i in 0..1000 {
            assert_eq!(first.insert(Name::new(&format!("n{i}")), i), None);
        }
        let mut second = first.clone();
        assert_eq!(second.insert(Name::new("n7"), 70), Some(7));
        assert_eq!(second.remove("n8"), Some(8));
        assert_eq!(second.remove("n8"), None);
        assert_eq!((first.get_str("n7"), first.get_str("n8"), first.len()), (Some(&7), Some(&8), 1000));
        assert_eq!((second.get_str("n7"), second.get_str("n8"), second.len()), (Some(&70), None, 999));
        assert_eq!(second.entries().count(), 999);
    }
}
