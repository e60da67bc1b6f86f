//! Records of TLS 1.3 after its handshake (RFC 8446, section 5): sealed from where the bytes stand, opened to where they
//! belong, without memory or a copy in between.
//!
//! The handshake, its secrets, new keys and tickets are the library's, which hands the secrets over for this purpose
//! ([`rustls::kernel`]); the cipher is the library's below it.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, InvalidMessage, PeerMisbehaved,
};

use crate::buffer::Buffer;

/// Bytes of a record's head.
pub(super) const HEAD: usize = 5;
/// Bytes of a record behind its content: the content's kind and the tag.
const TAIL: usize = 1 + TAG;
const TAG: usize = 16;
/// The most that a record's body may have, and what is in it.
const MOST_BODY: usize = MOST_CONTENT + 256;
const MOST_CONTENT: usize = 16 * 1024;
/// What one of ours has: so that it can be opened within a buffer of 16 KiB, and four of them sealed within one of 64.
const CONTENT: usize = MOST_CONTENT - 64;
/// As many records are sealed at once.
const AT_ONCE: usize = 4;
/// Two pieces that are together so small go into one record, though one copy more is made of them.
const SMALL: usize = 4 * 1024;
/// Records in a row that bring no data.
const MOST_IDLE: u8 = 32;
/// Bytes of a message of the handshake protocol that comes in parts.
const MOST_MESSAGE: usize = 64 * 1024;
/// Records that AES-GCM may seal under one key: well below 2^24.5 (RFC 8446, section 5.5).
const AES_LIMIT: u64 = 1 << 24;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// What a record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// So many bytes of data.
    Data(usize),
    /// Something of the protocol's own.
    Other,
    /// The end of the peer's bytes.
    End,
}

/// The keys of one direction.
struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    /// Number of the next record.
    next: u64,
    /// Other keys are due when `next` has come to this.
    limit: u64,
}

impl Keys {
    fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv, limit): (&'static Algorithm, _, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, AES_LIMIT),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, AES_LIMIT),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv, u64::MAX),
            _ => return Err(unknown()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unknown())?;
        let iv = iv.as_ref().try_into().map_err(|_| unknown())?;
        Ok(Keys { key: LessSafeKey::new(key), iv, next, limit })
    }

    /// The nonce of the next record (RFC 8446, section 5.3). None is given twice.
    fn nonce(&mut self) -> Result<Nonce, Error> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(Error::EncryptError)?;
        let mut nonce = self.iv;
        for (byte, of_number) in nonce.iter_mut().skip(4).zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn unknown() -> Error {
    Error::General("the library's secrets are of a cipher that is not known here".to_owned())
}

/// What is left of the library's connection.
enum Session {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Session {
    fn new_keys(&mut self, of_peer: bool) -> Result<Keys, Error> {
        Keys::new(match (self, of_peer) {
            (Session::Client(session), true) => session.update_rx_secret()?,
            (Session::Client(session), false) => session.update_tx_secret()?,
            (Session::Server(session), true) => session.update_rx_secret()?,
            (Session::Server(session), false) => session.update_tx_secret()?,
        })
    }
}

/// A connection's records in both directions.
pub(super) struct Records {
    theirs: Keys,
    ours: Keys,
    session: Session,
    /// Records in a row that brought no data.
    idle: u8,
    /// The beginning of a message of the handshake protocol.
    message: Vec<u8>,
}

/// The length of the first record, if it is there as a whole; of what cannot be a record, all that is there.
pub(super) fn whole(bytes: &[u8]) -> Option<usize> {
    let [kind, major, _, high, low, ..] = *bytes else { return None };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=24).contains(&kind) || major != 3 || body > MOST_BODY {
        return Some(bytes.len());
    }
    (bytes.len() >= HEAD + body).then_some(HEAD + body)
}

/// Bytes that the content of a whole record may take, opened.
pub(super) fn content(record: usize) -> usize {
    record.saturating_sub(HEAD + TAG)
}

impl Records {
    /// Those of a client's connection whose handshake is done.
    pub(super) fn of_client(
        (secrets, session): (ExtractedSecrets, KernelConnection<ClientConnectionData>),
    ) -> Result<Self, Error> {
        Records::new(secrets, Session::Client(session))
    }

    /// Those of a server's.
    pub(super) fn of_server(
        (secrets, session): (ExtractedSecrets, KernelConnection<ServerConnectionData>),
    ) -> Result<Self, Error> {
        Records::new(secrets, Session::Server(session))
    }

    fn new(secrets: ExtractedSecrets, session: Session) -> Result<Self, Error> {
        let (theirs, ours) = (Keys::new(secrets.rx)?, Keys::new(secrets.tx)?);
        Ok(Records { theirs, ours, session, idle: 0, message: Vec::new() })
    }

    /// Opens a whole record into `into`, which has room for its [`content`]. What is to be answered is sealed.
    ///
    /// # Errors
    ///
    /// It is not by the peer, or is not what the protocol allows: the connection is over.
    pub(super) fn open(&mut self, record: &[u8], into: &mut [u8], out: &mut Buffer) -> Result<Opened, Error> {
        let Some((head, body)) = record.split_first_chunk::<HEAD>() else { return Err(misshapen()) };
        if head[0] != DATA {
            // Nothing goes in clear text any more.
            return Err(unexpected(head[0]));
        }
        if usize::from(u16::from_be_bytes([head[3], head[4]])) != body.len() || body.len() > MOST_BODY {
            return Err(Error::PeerSentOversizedRecord);
        }
        let sealed = body.len().checked_sub(TAG).filter(|sealed| *sealed > 0).ok_or(Error::DecryptError)?;
        let (sealed, tag) = body.split_at(sealed);
        let into = into.get_mut(..sealed.len()).ok_or(Error::PeerSentOversizedRecord)?;
        let nonce = self.theirs.nonce()?;
        let opened = self.theirs.key.open_separate_gather(nonce, Aad::from(*head), sealed, tag, into);
        opened.map_err(|_| Error::DecryptError)?;
        // Zeros behind the content's kind hide how long it is.
        let end = into.iter().rposition(|byte| *byte != 0);
        let end = end.ok_or(Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext))?;
        let (content, kind) = (into.get(..end).unwrap_or_default(), into.get(end).copied().unwrap_or_default());
        if content.len() > MOST_CONTENT {
            return Err(Error::PeerSentOversizedRecord);
        }
        if kind == DATA && !content.is_empty() && self.message.is_empty() {
            self.idle = 0;
            return Ok(Opened::Data(end));
        }
        self.idle += 1;
        if self.idle > MOST_IDLE {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments));
        }
        match kind {
            ALERT => alert(content),
            HANDSHAKE => self.messages(content, out).map(|()| Opened::Other),
            _ if !self.message.is_empty() => {
                Err(Error::PeerMisbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage))
            }
            DATA => Ok(Opened::Other),
            _ => Err(unexpected(kind)),
        }
    }

    /// Takes messages of the handshake protocol, which may come in parts (RFC 8446, sections 4.6 and 5.1).
    fn messages(&mut self, content: &[u8], out: &mut Buffer) -> Result<(), Error> {
        if content.is_empty() {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext));
        }
        if self.message.len() + content.len() > MOST_MESSAGE {
            return Err(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge));
        }
        let mut together = std::mem::take(&mut self.message);
        together.extend_from_slice(content);
        let mut rest = together.as_slice();
        while let [kind, a, b, c, behind @ ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            rest = behind;
            self.message_whole(*kind, payload, rest.is_empty(), out)?;
        }
        self.message = rest.to_vec();
        Ok(())
    }

    fn message_whole(&mut self, kind: u8, payload: &[u8], is_last: bool, out: &mut Buffer) -> Result<(), Error> {
        const NEW_SESSION_TICKET: u8 = 4;
        const KEY_UPDATE: u8 = 24;
        match (kind, &mut self.session, payload) {
            (NEW_SESSION_TICKET, Session::Client(session), _) => session.handle_new_session_ticket(payload),
            // What follows is under other keys, so it begins with a record.
            (KEY_UPDATE, ..) if !is_last => Err(Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment)),
            (KEY_UPDATE, session, [asks @ (0 | 1)]) => {
                self.theirs = session.new_keys(true)?;
                if *asks == 1 { self.change_keys(out) } else { Ok(()) }
            }
            (KEY_UPDATE, ..) => Err(Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate)),
            _ => Err(unexpected(HANDSHAKE)),
        }
    }

    /// Goes on with other keys, and tells the peer.
    fn change_keys(&mut self, out: &mut Buffer) -> Result<(), Error> {
        self.seal(HANDSHAKE, [&[24, 0, 0, 1, 0], &[]], out)?;
        self.ours = self.session.new_keys(false)?;
        Ok(())
    }

    /// Seals as much of both as goes at once, one after the other; gives how many bytes that are.
    ///
    /// # Errors
    ///
    /// The cipher is at its end.
    pub(super) fn seal_data(&mut self, head: &[u8], body: &[u8], out: &mut Buffer) -> Result<usize, Error> {
        if head.len() + body.len() <= SMALL {
            self.seal_by_limit([head, body], out)?;
            return Ok(head.len() + body.len());
        }
        let pieces = head.chunks(CONTENT).chain(body.chunks(CONTENT)).take(AT_ONCE);
        let mut count = 0;
        for piece in pieces {
            self.seal_by_limit([piece, &[]], out)?;
            count += piece.len();
        }
        Ok(count)
    }

    fn seal_by_limit(&mut self, pieces: [&[u8]; 2], out: &mut Buffer) -> Result<(), Error> {
        if self.ours.next >= self.ours.limit {
            self.change_keys(out)?;
        }
        self.seal(DATA, pieces, out)
    }

    /// Seals the alert that ends our bytes.
    pub(super) fn seal_end(&mut self, out: &mut Buffer) -> Result<(), Error> {
        const WARNING: u8 = 1;
        self.seal(ALERT, [&[WARNING, AlertDescription::CloseNotify.into()], &[]], out)
    }

    /// Seals the alert that tells the peer of an error.
    pub(super) fn seal_error(&mut self, error: &Error, out: &mut Buffer) -> Result<(), Error> {
        const FATAL: u8 = 2;
        let what = match error {
            Error::AlertReceived(_) => return Ok(()),
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } => AlertDescription::UnexpectedMessage,
            _ => AlertDescription::InternalError,
        };
        self.seal(ALERT, [&[FATAL, what.into()], &[]], out)
    }

    fn seal(&mut self, kind: u8, pieces: [&[u8]; 2], out: &mut Buffer) -> Result<(), Error> {
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let body = u16::try_from(length + TAIL).map_err(|_| Error::EncryptError)?.to_be_bytes();
        let head = [DATA, 3, 3, body[0], body[1]];
        let total = HEAD + length + TAIL;
        let room = out.room(total).get_mut(..total).ok_or(Error::EncryptError)?;
        let (to_head, rest) = room.split_at_mut(HEAD);
        let (content, tail) = rest.split_at_mut(length);
        to_head.copy_from_slice(&head);
        let (nonce, key) = (self.ours.nonce()?, &self.ours.key);
        let sealed = match pieces {
            [piece, []] | [[], piece] => {
                key.seal_out_of_place_scatter(nonce, Aad::from(head), piece, content, &[kind], tail)
            }
            [one, other] => {
                let (first, second) = content.split_at_mut(one.len());
                first.copy_from_slice(one);
                second.copy_from_slice(other);
                key.seal_in_place_scatter(nonce, Aad::from(head), content, &[kind], tail)
            }
        };
        sealed.map_err(|_| Error::EncryptError)?;
        out.fill(total);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn change_keys_after(&mut self, records: u64) {
        self.ours.limit = records;
    }

    /// As a peer would that does not keep to the protocol.
    #[cfg(test)]
    pub(super) fn seal_anything(&mut self, kind: u8, content: &[u8], out: &mut Buffer) {
        self.seal(kind, [content, &[]], out).expect("seals");
    }
}

impl std::fmt::Debug for Records {
    /// Without a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({} opened, {} sealed)", self.theirs.next, self.ours.next)
    }
}

fn alert(content: &[u8]) -> Result<Opened, Error> {
    let &[_, what] = content else { return Err(misshapen()) };
    match AlertDescription::from(what) {
        AlertDescription::CloseNotify => Ok(Opened::End),
        // A close follows.
        AlertDescription::UserCanceled => Ok(Opened::Other),
        what => Err(Error::AlertReceived(what)),
    }
}

fn unexpected(kind: u8) -> Error {
    Error::InappropriateMessage { expect_types: vec![ContentType::ApplicationData], got_type: ContentType::from(kind) }
}

fn misshapen() -> Error {
    Error::InvalidMessage(InvalidMessage::InvalidContentType)
}

#[cfg(test)]
mod tests;
