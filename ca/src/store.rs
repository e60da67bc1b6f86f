//! Where the authority's key is kept: in a Secret that somebody plugged in, or in the one that the first CA made.
//!
//! A Secret that cannot be used is never replaced: whoever holds its key is still trusted by the whole mesh.

use std::collections::BTreeMap;
use std::time::SystemTime;

use api::messages::Rotation;
use api::names::{CA_PLUGGED_SECRET, CA_ROOT_SECRET, CA_ROOT_TYPE, SYSTEM_NAMESPACE};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::authority::{Material, MaterialError, Origin, Plan, Policy};

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const ROOTS: &str = "root-cert.pem";
const CHAIN: &str = "cert-chain.pem";
/// The root that comes next, while it is made known and signs nothing yet.
const NEXT_CERTIFICATE: &str = "next-cert.pem";
const NEXT_KEY: &str = "next-key.pem";
/// Whether a CA goes on with a rotation: [`ROTATING`], [`ENDING`], or not there.
const PLAN: &str = "rotation";
const ROTATING: &str = "rotating";
const ENDING: &str = "ending";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server cannot be asked, or does not let us.
    #[error("the Secret {SYSTEM_NAMESPACE}/{name} cannot be {what}")]
    Api {
        /// Which.
        name: &'static str,
        /// `read`, `created` or `written`.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// Parts are missing.
    #[error("the Secret {SYSTEM_NAMESPACE}/{name} is incomplete: it lacks {}", missing.join(", "))]
    Incomplete {
        /// Which.
        name: &'static str,
        /// Its keys that are missing or empty.
        missing: Vec<&'static str>,
    },
    /// Its parts are no text.
    #[error("the Secret {SYSTEM_NAMESPACE}/{name} is damaged: {field} is not text")]
    NotText {
        /// Which.
        name: &'static str,
        /// Its key.
        field: &'static str,
    },
    /// Another kind of Secret has our name.
    #[error("the Secret {SYSTEM_NAMESPACE}/{CA_ROOT_SECRET} is of type {found}, not {CA_ROOT_TYPE}")]
    OtherType {
        /// Its type.
        found: String,
    },
    /// A root cannot be made.
    #[error("a root cannot be made")]
    Make(#[source] MaterialError),
    /// It is not ours to rotate.
    #[error(
        "the authority is plugged in: put another into the Secret {SYSTEM_NAMESPACE}/{CA_PLUGGED_SECRET}, whose root-cert.pem holds the old root too"
    )]
    NotOurs,
    /// The step does not come now.
    #[error("the rotation is at stage {stage:?} ({plan:?}), where {step:?} is not the next step")]
    OutOfOrder {
        /// How far it is.
        stage: Rotation,
        /// Whether it goes on.
        plan: Plan,
        /// What was asked for.
        step: Step,
    },
    /// The roots are not those that were acknowledged.
    #[error(
        "the Secret {SYSTEM_NAMESPACE}/{CA_ROOT_SECRET} has other roots now than those that everybody has acknowledged"
    )]
    Changed,
}

/// A step of a rotation of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Makes a new root and adds it to those to be trusted; goes on with a rotation that was left in the middle.
    Begin,
    /// Lets the new root sign.
    Sign,
    /// Takes the old root out.
    Retire,
    /// Ends the rotation.
    Finish,
}

impl StoreError {
    /// Whether the API server is why, so that it may be different later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            // 401 and 403 are for a person to mend.
            StoreError::Api { source, .. } => {
                !matches!(&**source, kube::Error::Api(status) if (400..500).contains(&status.code))
            }
            _ => false,
        }
    }
}

/// The Secrets of an authority.
#[derive(Clone)]
pub struct Store {
    secrets: Api<Secret>,
}

impl Store {
    /// Those in this cluster.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Store { secrets: Api::namespaced(client, SYSTEM_NAMESPACE) }
    }

    /// Finds the authority: plugged in, else self-made, else made now. Of several CAs that start at once one makes it,
    /// and the others find that one's.
    ///
    /// # Errors
    ///
    /// When a Secret is there and cannot be used, or the API server cannot be asked.
    pub async fn find_or_make(&self, policy: &Policy, now: SystemTime) -> Result<Material, StoreError> {
        if let Some(material) = self.find().await? {
            return Ok(material);
        }
        let made = Material::make_root(policy, now).map_err(StoreError::Make)?;
        match self.secrets.create(&PostParams::default(), &secret(&made)).await {
            Ok(_) => {
                tracing::info!(secret = CA_ROOT_SECRET, "a root has been made");
                Ok(made)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::info!(secret = CA_ROOT_SECRET, "another CA has made a root at the same time; it is used");
                let secret = self.read(CA_ROOT_SECRET).await?;
                secret
                    .as_ref()
                    .map(self_made)
                    .transpose()?
                    .ok_or(StoreError::Incomplete { name: CA_ROOT_SECRET, missing: vec![CERTIFICATE, KEY] })
            }
            Err(error) => Err(failed(CA_ROOT_SECRET, "created", error)),
        }
    }

    /// Finds the authority, and makes none.
    ///
    /// # Errors
    ///
    /// As [`Store::find_or_make`].
    pub async fn find(&self) -> Result<Option<Material>, StoreError> {
        if let Some(secret) = self.read(CA_PLUGGED_SECRET).await? {
            return plugged_in(&secret).map(Some);
        }
        self.read(CA_ROOT_SECRET).await?.as_ref().map(self_made).transpose()
    }

    /// Takes the next step of a rotation of the root. Where the step was taken already nothing changes, so that it may be
    /// asked for again after a crash; of two who ask at once one is told of the other's change. `acknowledged` is the roots
    /// (PEM) that everybody trusts, without which nothing but the beginning is done.
    ///
    /// # Errors
    ///
    /// When the root is not ours, the step does not come now, or the Secret cannot be written.
    pub async fn rotate(
        &self,
        step: Step,
        policy: &Policy,
        now: SystemTime,
        acknowledged: &str,
    ) -> Result<(), StoreError> {
        if self.read(CA_PLUGGED_SECRET).await?.is_some() {
            return Err(StoreError::NotOurs);
        }
        let missing = || StoreError::Incomplete { name: CA_ROOT_SECRET, missing: vec![CERTIFICATE, KEY] };
        let mut secret = self.read(CA_ROOT_SECRET).await?.ok_or_else(missing)?;
        let material = self_made(&secret)?;
        let (stage, plan) = (material.rotation, material.plan);
        if step != Step::Begin && material.roots.trim() != acknowledged.trim() {
            return Err(StoreError::Changed);
        }
        let data = secret.data.get_or_insert_default();
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        match (step, stage, plan) {
            (Step::Begin, Rotation::None, _) => {
                let next = Material::make_root(policy, now).map_err(StoreError::Make)?;
                data.insert(NEXT_CERTIFICATE.to_owned(), bytes(&next.certificate));
                data.insert(NEXT_KEY.to_owned(), bytes(&next.key));
                data.insert(ROOTS.to_owned(), bytes(&format!("{}\n{}", material.roots.trim(), next.certificate)));
                data.insert(PLAN.to_owned(), bytes(ROTATING));
            }
            (Step::Begin, _, Plan::Rotating) => return Ok(()),
            (Step::Begin, ..) => {
                data.insert(PLAN.to_owned(), bytes(ROTATING));
            }
            (Step::Sign, Rotation::Added, _) => {
                for (from, to) in [(NEXT_CERTIFICATE, CERTIFICATE), (NEXT_KEY, KEY)] {
                    if let Some(value) = data.remove(from) {
                        data.insert(to.to_owned(), value);
                    }
                }
            }
            (Step::Retire, Rotation::Signing, _) => {
                data.insert(ROOTS.to_owned(), bytes(&material.certificate));
                data.insert(PLAN.to_owned(), bytes(ENDING));
            }
            (Step::Finish, Rotation::None, Plan::Ending) => {
                data.remove(PLAN);
            }
            (Step::Sign, Rotation::Signing, _) | (Step::Retire, Rotation::None, _) | (Step::Finish, _, Plan::Idle) => {
                return Ok(());
            }
            _ => return Err(StoreError::OutOfOrder { stage, plan, step }),
        }
        // The version that was read goes along: a change in between is not overwritten.
        let written = self.secrets.replace(CA_ROOT_SECRET, &PostParams::default(), &secret).await;
        written.map_err(|error| failed(CA_ROOT_SECRET, "written", error))?;
        tracing::info!(target: "audit", ?step, "the rotation of the root has taken a step");
        Ok(())
    }

    async fn read(&self, name: &'static str) -> Result<Option<Secret>, StoreError> {
        self.secrets.get_opt(name).await.map_err(|error| failed(name, "read", error))
    }
}

fn failed(name: &'static str, what: &'static str, error: kube::Error) -> StoreError {
    StoreError::Api { name, what, source: Box::new(error) }
}

fn secret(material: &Material) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = BTreeMap::from([
        (CERTIFICATE.to_owned(), bytes(&material.certificate)),
        (KEY.to_owned(), bytes(&material.key)),
        (ROOTS.to_owned(), bytes(&material.roots)),
    ]);
    Secret {
        metadata: ObjectMeta {
            name: Some(CA_ROOT_SECRET.to_owned()),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "mesh".to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some(CA_ROOT_TYPE.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

fn self_made(secret: &Secret) -> Result<Material, StoreError> {
    if secret.type_.as_deref() != Some(CA_ROOT_TYPE) {
        return Err(StoreError::OtherType { found: secret.type_.clone().unwrap_or_default() });
    }
    let [certificate, key] = parts(secret, CA_ROOT_SECRET, [CERTIFICATE, KEY])?;
    // The roots may be more than this one while they are rotated.
    let roots = match parts(secret, CA_ROOT_SECRET, [ROOTS]) {
        Ok([roots]) => roots,
        Err(StoreError::Incomplete { .. }) => certificate.clone(),
        Err(error) => return Err(error),
    };
    let has_next = parts(secret, CA_ROOT_SECRET, [NEXT_CERTIFICATE, NEXT_KEY]).is_ok();
    let count = runtime::tls::certificates(roots.as_bytes()).map_or(0, |roots| roots.len());
    let rotation = match (has_next, count) {
        (true, _) => Rotation::Added,
        (false, 0 | 1) => Rotation::None,
        (false, _) => Rotation::Signing,
    };
    let plan = match parts(secret, CA_ROOT_SECRET, [PLAN]) {
        Ok([plan]) if plan == ROTATING => Plan::Rotating,
        Ok([plan]) if plan == ENDING => Plan::Ending,
        _ => Plan::Idle,
    };
    Ok(Material { certificate, key, chain: String::new(), roots, origin: Origin::SelfMade, rotation, plan })
}

fn plugged_in(secret: &Secret) -> Result<Material, StoreError> {
    let [certificate, key, roots, chain] = parts(secret, CA_PLUGGED_SECRET, [CERTIFICATE, KEY, ROOTS, CHAIN])?;
    let (origin, rotation, plan) = (Origin::PluggedIn, Rotation::None, Plan::Idle);
    Ok(Material { certificate, key, chain, roots, origin, rotation, plan })
}

/// Parts of a Secret as text; all that are missing are named at once.
fn parts<const N: usize>(
    secret: &Secret,
    name: &'static str,
    fields: [&'static str; N],
) -> Result<[String; N], StoreError> {
    let bytes = |field: &str| secret.data.as_ref()?.get(field).filter(|bytes| !bytes.0.trim_ascii().is_empty());
    let missing: Vec<&'static str> = fields.into_iter().filter(|field| bytes(field).is_none()).collect();
    if !missing.is_empty() {
        return Err(StoreError::Incomplete { name, missing });
    }
    let mut texts = [const { String::new() }; N];
    for (text, field) in texts.iter_mut().zip(fields) {
        let read = bytes(field).map(|bytes| String::from_utf8(bytes.0.clone()));
        *text = read.and_then(Result::ok).ok_or(StoreError::NotText { name, field })?;
    }
    Ok(texts)
}
