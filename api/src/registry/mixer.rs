//! Rules, and the handlers and instances that they refer to.

use super::MixerKind;
use super::put::put_in;
use crate::config::Meant;
use crate::model::{Access, Handler, Instance, Key, Reference, Shared};

/// Puts what an object means into the model, or takes it out; says whether that changed anything.
pub(super) fn put(access: &mut Shared<Access>, kind: MixerKind, key: &Key, meant: Option<Meant>) -> bool {
    let handler = |access, adapter, handler: Option<Handler>| {
        let reference = Reference::new(adapter, key);
        put_in(access, |a| &a.mixer.handlers, |a| &mut a.mixer.handlers, &reference, handler)
    };
    let instance = |access, template, instance: Option<Instance>| {
        let reference = Reference::new(template, key);
        put_in(access, |a| &a.mixer.instances, |a| &mut a.mixer.instances, &reference, instance)
    };
    match (kind, meant) {
        (MixerKind::Rule, Some(Meant::Rule(rule))) => {
            put_in(access, |a| &a.mixer.rules, |a| &mut a.mixer.rules, key, Some(rule))
        }
        (MixerKind::Rule, _) => put_in(access, |a| &a.mixer.rules, |a| &mut a.mixer.rules, key, None),
        (MixerKind::Rbac, Some(Meant::Handler(it))) => handler(access, "rbac", Some(it)),
        (MixerKind::Rbac, _) => handler(access, "rbac", None),
        (MixerKind::Denier, Some(Meant::Handler(it))) => handler(access, "denier", Some(it)),
        (MixerKind::Denier, _) => handler(access, "denier", None),
        (MixerKind::Authorization, Some(Meant::Instance(it))) => instance(access, "authorization", Some(it)),
        (MixerKind::Authorization, _) => instance(access, "authorization", None),
        (MixerKind::CheckNothing, Some(Meant::Instance(it))) => instance(access, "checknothing", Some(it)),
        (MixerKind::CheckNothing, _) => instance(access, "checknothing", None),
    }
}
