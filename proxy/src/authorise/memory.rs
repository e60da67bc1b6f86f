//! Tokens that were verified before: a client shows the same one with every request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use engine::tables::Provider;
use engine::token::Claims;
use foldhash::fast::FixedState;

/// Parts of the memory, each with a lock of its own.
const PARTS: usize = 16;
/// Tokens that a part holds; at the bound it forgets all of them.
const MOST: usize = 256;

/// What tells a token of a provider, with the keys of now, from all others.
pub(super) type Key = [u8; 32];

/// The claims of tokens whose signature was good, bounded. Whether their time is over is asked every time.
#[derive(Debug)]
pub(super) struct Memory([Mutex<HashMap<Key, Arc<Claims>, FixedState>>; PARTS]);

impl Default for Memory {
    fn default() -> Self {
        Memory(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Memory {
    /// The key of a token. With other keys of its issuer it is another, so none outlives the key that it was signed by.
    pub(super) fn key(provider: &Provider, token: &str) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&provider.fingerprint);
        context.update(token.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Claims>> {
        self.part(key)?.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn put(&self, key: Key, claims: Arc<Claims>) {
        let Some(part) = self.part(&key) else { return };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= MOST {
            part.clear();
        }
        part.insert(key, claims);
    }

    fn part(&self, key: &Key) -> Option<&Mutex<HashMap<Key, Arc<Claims>, FixedState>>> {
        self.0.get(usize::from(key[0]) % PARTS)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}
