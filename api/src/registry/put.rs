//! Puts objects that decide about access into the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Access, Shared};

type Objects<K, V> = BTreeMap<K, Arc<V>>;

/// Puts an object among others of its kind, or takes it out; says whether that changed anything.
pub(super) fn put_in<K: Ord + Clone, V: PartialEq>(
    access: &mut Shared<Access>,
    objects: fn(&Access) -> &Objects<K, V>,
    objects_mut: fn(&mut Access) -> &mut Objects<K, V>,
    key: &K,
    value: Option<V>,
) -> bool {
    // What copies of the model share is not copied when nothing changes.
    objects(access).get(key).map(|old| &**old) != value.as_ref() && super::put(objects_mut(access), key, value)
}
