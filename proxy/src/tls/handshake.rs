//! A handshake of TLS apart from any socket: records of the peer in, records for it out. When it is done the connection's
//! [records](super::records) are the proxy's own.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{CommonState, Error, HandshakeKind};
use rustls_pki_types::CertificateDer;

use super::records::{Records, whole};
use crate::buffer::Buffer;

/// One end's side of a handshake.
pub(crate) enum Handshake {
    /// Who calls.
    Client(Box<UnbufferedClientConnection>),
    /// Who is called.
    Server(Box<UnbufferedServerConnection>),
}

/// What the ends have agreed on.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    /// Whether the peer was verified in this handshake or in one before it.
    pub(crate) kind: Option<HandshakeKind>,
    /// The word for what is spoken inside.
    pub(crate) alpn: Option<Vec<u8>>,
    /// Who the peer is.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Handshake {
    /// Takes records of the peer's from `came` and puts answers into `going`. `true` when it is done; `false` when more
    /// must come.
    ///
    /// # Errors
    ///
    /// It has failed; the alert that says so is put out as well.
    pub(super) fn advance(&mut self, came: &mut Buffer, going: &mut Buffer) -> Result<bool, Error> {
        match self {
            Handshake::Client(session) => {
                let take = UnbufferedConnectionCommon::<ClientConnectionData>::process_tls_records;
                advance(session, take, came, going)
            }
            Handshake::Server(session) => {
                let take = UnbufferedConnectionCommon::<ServerConnectionData>::process_tls_records;
                advance(session, take, came, going)
            }
        }
    }

    /// Whether it is that of who is called.
    pub(super) fn is_server(&self) -> bool {
        matches!(self, Handshake::Server(_))
    }

    /// What has been agreed on, and the records that follow.
    ///
    /// # Errors
    ///
    /// It is not done.
    pub(super) fn finish(self) -> Result<(Agreed, Records), Error> {
        match self {
            Handshake::Client(session) => {
                let agreed = Agreed::of(&session);
                Ok((agreed, Records::of_client(session.dangerous_into_kernel_connection()?)?))
            }
            Handshake::Server(session) => {
                let agreed = Agreed::of(&session);
                Ok((agreed, Records::of_server(session.dangerous_into_kernel_connection()?)?))
            }
        }
    }
}

impl Agreed {
    fn of(common: &CommonState) -> Self {
        let chain = common.peer_certificates().unwrap_or_default();
        Agreed {
            kind: common.handshake_kind(),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        }
    }
}

type Take<Data> =
    for<'c, 'i> fn(&'c mut UnbufferedConnectionCommon<Data>, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Data>;

fn advance<Data>(
    session: &mut UnbufferedConnectionCommon<Data>,
    take: Take<Data>,
    came: &mut Buffer,
    going: &mut Buffer,
) -> Result<bool, Error> {
    // Records are shown one by one, so that none is opened that is no part of the handshake any more.
    let mut shown = 0;
    loop {
        let status = take(session, came.filled_mut().get_mut(..shown).unwrap_or_default());
        let used = status.discard;
        let (is_done, is_blocked) = match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, going)?;
                (false, false)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                (false, false)
            }
            Ok(ConnectionState::BlockedHandshake) => (false, true),
            Ok(ConnectionState::WriteTraffic(_)) => (true, false),
            Ok(_) => return Err(Error::HandshakeNotComplete),
            Err(error) => {
                put_alert(session, take, going)?;
                return Err(error);
            }
        };
        came.consume(used);
        shown -= used;
        if is_done {
            return Ok(true);
        }
        if is_blocked {
            match whole(came.filled().get(shown..).unwrap_or_default()) {
                Some(record) => shown += record,
                None => return Ok(false),
            }
        }
    }
}

fn put_alert<Data>(
    session: &mut UnbufferedConnectionCommon<Data>,
    take: Take<Data>,
    going: &mut Buffer,
) -> Result<(), Error> {
    // With something to say it looks at no bytes; without, it must not be asked after an error.
    while session.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) = take(session, &mut []).state
    {
        encode(&mut data, going)?;
    }
    Ok(())
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, going: &mut Buffer) -> Result<(), Error> {
    let encoded = match data.encode(going.room(1)) {
        Err(EncodeError::InsufficientSize(size)) => data.encode(going.room(size.required_size)),
        encoded => encoded,
    };
    let count = encoded.map_err(|error| Error::General(error.to_string()))?;
    going.fill(count);
    Ok(())
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_server() { "Handshake::Server" } else { "Handshake::Client" })
    }
}
