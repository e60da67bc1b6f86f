//! Why there is no TLS with a peer, in one word.

use std::io;

use runtime::svid::Refusal;
use rustls::Error;

/// Why a handshake has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTls {
    /// There is nothing to present.
    #[error("this proxy has no certificate, or only one that has expired")]
    NoSvid,
    /// The peer's certificate is no good; the word is that of [`Refusal::code`], with `tls_` before it.
    #[error("the peer's certificate is refused ({0})")]
    Refused(&'static str),
    /// The peer shows none.
    #[error("the peer shows no certificate")]
    NoCertificate,
    /// It speaks no TLS 1.3, or knows none of the algorithms.
    #[error("the peer does not speak TLS 1.3 as the mesh does")]
    Incompatible,
    /// It offers, or takes, nothing of what is spoken.
    #[error("the peer speaks none of the protocols that are offered")]
    Alpn,
    /// What it sends is no handshake.
    #[error("what the peer sends is no TLS handshake")]
    Malformed,
    /// It refuses.
    #[error("the peer refuses: its log says why")]
    Alert,
    /// It has closed the connection.
    #[error("the peer closed the connection in the middle of the TLS handshake")]
    Closed,
    /// It takes too long.
    #[error("the TLS handshake took too long")]
    Slow,
}

/// All words: the proxy's own first, then those for certificates.
pub(crate) const WORDS: [&str; 22] = [
    "tls_no_svid",
    "tls_no_certificate",
    "tls_incompatible",
    "tls_alpn",
    "tls_malformed",
    "tls_alert",
    "tls_closed",
    "tls_slow",
    "tls_no_bundle",
    "tls_unreadable",
    "tls_nul_in_name",
    "tls_no_uri",
    "tls_several_uris",
    "tls_not_spiffe",
    "tls_authority",
    "tls_trust_domain",
    "tls_not_expected",
    "tls_expired",
    "tls_not_yet_valid",
    "tls_unknown_root",
    "tls_wrong_purpose",
    "tls_issuer",
];

impl NoTls {
    /// The word for it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            NoTls::NoSvid => "tls_no_svid",
            NoTls::Refused(word) => word,
            NoTls::NoCertificate => "tls_no_certificate",
            NoTls::Incompatible => "tls_incompatible",
            NoTls::Alpn => "tls_alpn",
            NoTls::Malformed => "tls_malformed",
            NoTls::Alert => "tls_alert",
            NoTls::Closed => "tls_closed",
            NoTls::Slow => "tls_slow",
        }
    }

    /// A peer that is refused for its certificate.
    #[must_use]
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let is_for = |word: &&&str| word.strip_prefix("tls_") == Some(refusal.code());
        NoTls::Refused(WORDS.iter().find(is_for).copied().unwrap_or("tls_unreadable"))
    }

    /// What an error of a handshake says.
    #[must_use]
    pub(crate) fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return NoTls::Closed;
        };
        if let Some(refusal) = Refusal::of_tls(error) {
            return NoTls::refused(refusal);
        }
        match error {
            Error::NoCertificatesPresented => NoTls::NoCertificate,
            Error::PeerIncompatible(_) => NoTls::Incompatible,
            Error::NoApplicationProtocol => NoTls::Alpn,
            Error::AlertReceived(_) => NoTls::Alert,
            // The library's own words for what a verifier of ours does not say.
            Error::InvalidCertificate(_) => NoTls::Refused("tls_unreadable"),
            Error::General(_) => NoTls::NoSvid,
            _ => NoTls::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_refusal_of_a_certificate_has_its_word() {
        let id = || "spiffe://cluster.local/ns/a/sa/b".parse().expect("an identity");
        let reason = || String::new();
        for refusal in [
            Refusal::NoBundle,
            Refusal::Unreadable { reason: reason() },
            Refusal::NulInName,
            Refusal::NoUri,
            Refusal::SeveralUris { count: 2 },
            Refusal::NotSpiffe { reason: reason() },
            Refusal::Authority,
            Refusal::TrustDomain { id: id() },
            Refusal::NotExpected { id: id() },
            Refusal::Expired { ago: Duration::ZERO },
            Refusal::NotYetValid { ahead: Duration::ZERO },
            Refusal::UnknownRoot,
            Refusal::WrongPurpose { as_server: true },
            Refusal::Issuer { reason: reason() },
        ] {
            assert_eq!(NoTls::refused(&refusal).code(), format!("tls_{}", refusal.code()));
        }
    }
}
