//! The authority: signs certificates for identities that were proved, within its policy and its own certificate's life.

mod material;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::messages::Rotation;
use api::spiffe::{SpiffeId, TrustDomain};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use runtime::svid::report::stamp;
use runtime::svid::{Bundle, Clock};

pub(crate) use self::material::ROOT_SKEW;
pub use self::material::{Material, MaterialError};
use crate::csr::SubjectKey;

/// What certificates may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Trust domain of all identities that are issued.
    pub domain: TrustDomain,
    /// Other names of the same trust domain, whose SVIDs are accepted: it is being renamed.
    pub aliases: Vec<TrustDomain>,
    /// For how long certificates hold when nothing else is asked for.
    pub lifetime: Duration,
    /// The longest that may be asked for.
    pub longest: Duration,
    /// How far back certificates hold, for machines whose clocks are behind.
    pub skew: Duration,
}

impl Policy {
    /// A day, at most; ten minutes of skew.
    #[must_use]
    pub fn of(domain: TrustDomain) -> Self {
        let day = Duration::from_secs(86_400);
        Policy { domain, aliases: Vec::new(), lifetime: day, longest: day, skew: Duration::from_secs(600) }
    }
}

/// Why the authority does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Longer than the policy allows.
    #[error("a lifetime of {asked:?} is over the limit of {limit:?}")]
    TooLong {
        /// What was asked for.
        asked: Duration,
        /// The limit.
        limit: Duration,
    },
    /// The authority's own certificate does not hold now.
    #[error("the authority's own certificate does not hold now: it holds from {from} to {to}")]
    IssuerNotValid {
        /// When it begins to hold.
        from: String,
        /// When it ends.
        to: String,
    },
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The clock is out of the calendar.
    #[error("the clock cannot be used")]
    Clock,
    /// Signing failed.
    #[error("the certificate cannot be signed")]
    Sign(#[from] rcgen::Error),
}

/// A signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The leaf (PEM).
    pub leaf: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Signs. Immutable: another key or root makes another authority.
pub struct Authority {
    policy: Policy,
    clock: Arc<dyn Clock>,
    issuer: Issuer<'static, KeyPair>,
    /// What the issuer's certificate, and those above it, allow.
    valid: (SystemTime, SystemTime),
    /// The issuer's certificate (PEM), and the identifier of its key that leaves carry.
    certificate: (String, String),
    /// Issuer first, without the root; each PEM. Empty when the issuer is the root.
    intermediates: Vec<String>,
    roots: String,
    bundle: Bundle,
    origin: Origin,
    rotation: Rotation,
    plan: Plan,
}

/// Whether the CA goes on with a rotation of the root by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Plan {
    /// It does not.
    #[default]
    Idle,
    /// It does, stage by stage.
    Rotating,
    /// All stages are done; that the old root is gone is not acknowledged by all yet.
    Ending,
}

/// Where an authority's key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The CA made its root itself.
    SelfMade,
    /// Somebody plugged an intermediate in.
    PluggedIn,
}

impl Origin {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Origin::SelfMade => "self-made root",
            Origin::PluggedIn => "plugged-in",
        }
    }
}

impl Authority {
    /// Signs a certificate for `id` and the holder of `key`.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn issue(&self, id: &SpiffeId, key: &SubjectKey, asked: Option<Duration>) -> Result<Issued, Refusal> {
        let lifetime = asked.unwrap_or(self.policy.lifetime);
        if lifetime > self.policy.longest {
            return Err(Refusal::TooLong { asked: lifetime, limit: self.policy.longest });
        }
        let now = self.now().ok_or(Refusal::Clock)?;
        if now < self.valid.0 || now >= self.valid.1 {
            let [from, to] = [self.valid.0, self.valid.1].map(stamp);
            return Err(Refusal::IssuerNotValid { from, to });
        }
        let not_after = now.checked_add(lifetime).ok_or(Refusal::Clock)?.min(self.valid.1);
        let not_before = now.checked_sub(self.policy.skew).unwrap_or(now).max(self.valid.0);
        let mut serial = [0u8; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| Refusal::Random)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let leaf = params.signed_by(key, &self.issuer)?.pem();
        Ok(Issued { leaf, serial: hex(&serial), not_after })
    }

    /// What certificates may be.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The certificate (PEM) whose key signs.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate.0
    }

    /// Identifier of the key that signs, in hexadecimal, as certificates carry it.
    #[must_use]
    pub fn issuer_key(&self) -> &str {
        &self.certificate.1
    }

    /// Certificates between a leaf and the root, each PEM, the issuer's first.
    #[must_use]
    pub fn intermediates(&self) -> &[String] {
        &self.intermediates
    }

    /// The roots that everybody should trust (PEM).
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// The same, to verify with.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// From when until when it can sign.
    #[must_use]
    pub fn valid(&self) -> (SystemTime, SystemTime) {
        self.valid
    }

    /// Where its key comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether it has the same key and roots as another.
    #[must_use]
    pub fn is_like(&self, other: &Authority) -> bool {
        self.roots == other.roots
            && self.intermediates == other.intermediates
            && self.issuer.key().public_key_raw() == other.issuer.key().public_key_raw()
            && self.rotation == other.rotation
            && self.plan == other.plan
    }

    /// How far a rotation of the root is.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Whether that goes on.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// The time by its clock.
    #[must_use]
    pub fn now(&self) -> Option<SystemTime> {
        let now = self.clock.current_time()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()))
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("policy", &self.policy).field("origin", &self.origin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
