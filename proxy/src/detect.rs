//! What a connection speaks, by its first bytes.

pub(crate) mod client_hello;
pub(crate) mod spoken;

use std::time::Duration;

use engine::tables::{Chain, Listener, Seen};

use self::client_hello::{ClientHello, MAX_HELLO, NotOne};
use self::spoken::Spoken;
use crate::conn::Conn;
use crate::data::DataPath;
use crate::failure::Failure;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request line longer than this is taken for HTTP by its beginning alone.
const ENOUGH: usize = 2048;
/// Methods are words of at most this length.
const MAX_METHOD: usize = 24;

/// Tells what the first bytes are; `None` if more are needed to tell.
#[must_use]
pub(crate) fn recognise(bytes: &[u8]) -> Option<Spoken> {
    match bytes {
        [] | [0x16] | [0x16, 3] => return None,
        [0x16, 3, _, ..] => return Some(Spoken::Tls),
        _ => {}
    }
    let start = bytes.len().min(PREFACE.len());
    if bytes.get(..start) == PREFACE.get(..start) {
        return if bytes.len() >= PREFACE.len() { Some(Spoken::H2c) } else { None };
    }
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')).count();
    if method > MAX_METHOD {
        return Some(Spoken::Opaque);
    }
    match bytes.get(method) {
        None => return if bytes == b"\r" || method > 0 || bytes.is_empty() { None } else { Some(Spoken::Opaque) },
        Some(b' ') if method > 0 => {}
        Some(_) => return Some(Spoken::Opaque),
    }
    let Some(newline) = memchr::memchr(b'\n', bytes) else {
        let rest = bytes.get(method + 1..).unwrap_or_default();
        // A target begins with one of these; SMTP's and others' commands do not.
        if !matches!(rest.first(), None | Some(b'/' | b'*' | b'h' | b'H')) && !bytes.starts_with(b"CONNECT ") {
            return Some(Spoken::Opaque);
        }
        return if bytes.len() >= ENOUGH { Some(Spoken::Http11) } else { None };
    };
    let line = bytes.get(..newline).unwrap_or_default().trim_ascii_end();
    if line.ends_with(b" HTTP/1.1") {
        Some(Spoken::Http11)
    } else if line.ends_with(b" HTTP/1.0") {
        Some(Spoken::Http10)
    } else {
        Some(Spoken::Opaque)
    }
}

/// What was found out about a connection by its first bytes, which stay in its buffer.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What it speaks; `None` if nobody asked.
    pub(crate) spoken: Option<Spoken>,
    /// What its ClientHello tells, if it was read.
    pub(crate) hello: Option<ClientHello>,
}

impl Found {
    /// The listener's filter chain for a connection to `port`.
    #[must_use]
    pub(crate) fn chain<'l>(&self, listener: &'l Listener, port: u16) -> Option<&'l Chain> {
        let offered: Vec<&str> = self.hello.iter().flat_map(|hello| &hello.protocols).map(|name| &**name).collect();
        let spoken = self.spoken.and_then(Spoken::alpn);
        listener.chain_for(&Seen {
            port,
            server_name: self.hello.as_ref().and_then(|hello| hello.server_name.as_deref()),
            is_tls: self.spoken == Some(Spoken::Tls),
            protocols: if offered.is_empty() { spoken.as_slice() } else { &offered },
        })
    }
}

impl Found {
    /// Why a connection is closed that none of the listener's filter chains is for.
    #[must_use]
    pub(crate) fn without_chain(&self, listener: &Listener) -> Failure {
        let goes_by_name = listener.chains.iter().any(|chain| !chain.matches.server_names.is_empty());
        if self.spoken == Some(Spoken::Tls) && goes_by_name {
            Failure::UnknownServer
        } else {
            Failure::NoRoute("no filter chain is for this connection")
        }
    }
}

/// Finds out about a connection to `port` what its listener's filter chains depend on.
///
/// # Errors
///
/// The caller closed the connection without a byte, or said nothing in time where that is not allowed.
pub(crate) async fn inspect(
    path: &DataPath,
    listener: &Listener,
    conn: &mut Conn,
    port: u16,
) -> Result<Found, Failure> {
    let wanted = listener.must_inspect(port);
    if !wanted.is_any() {
        return Ok(Found::default());
    }
    let found = detect(conn, wanted.tls, listener.inspect_timeout).await?;
    path.metrics.detections.count(found.spoken);
    if matches!(found.spoken, Some(Spoken::Silent | Spoken::Undecided)) && !listener.continue_on_timeout {
        return Err(Failure::SlowRequest);
    }
    Ok(found)
}

/// Reads until it is clear what the connection speaks, and with `tls` what a ClientHello tells, for at most `timeout`.
pub(crate) async fn detect(conn: &mut Conn, tls: bool, timeout: Option<Duration>) -> Result<Found, Failure> {
    let as_found = |spoken| Found { spoken: Some(spoken), hello: None };
    let reading = async {
        loop {
            let bytes = conn.rx.filled();
            match recognise(bytes) {
                Some(Spoken::Tls) if tls && bytes.len() < MAX_HELLO => match client_hello::read(bytes) {
                    Ok(Some(hello)) => return Ok(Found { spoken: Some(Spoken::Tls), hello: Some(hello) }),
                    Ok(None) => {}
                    Err(NotOne) => return Ok(as_found(Spoken::Opaque)),
                },
                Some(spoken) => return Ok(as_found(spoken)),
                None => {}
            }
            match std::future::poll_fn(|cx| conn.poll_read(cx)).await {
                // Bytes that ended before they could be told apart are the upstream's to judge.
                Ok(0) if !conn.rx.is_empty() => return Ok(as_found(Spoken::Opaque)),
                Ok(0) | Err(_) => return Err(Failure::DownstreamClosed),
                Ok(_) => {}
            }
        }
    };
    let Some(timeout) = timeout else { return reading.await };
    match tokio::time::timeout(timeout, reading).await {
        Ok(found) => found,
        Err(_) if conn.rx.is_empty() => Ok(as_found(Spoken::Silent)),
        Err(_) => Ok(as_found(Spoken::Undecided)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (bytes, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http11)),
            (b"GET / HTTP/1.0\r\n", Some(Spoken::Http10)),
            (b"GET / HTTP/1.1\n", Some(Spoken::Http11)),
            (b"\r\nPOST /x HTTP/1.1\r\n", Some(Spoken::Http11)),
            (b"CONNECT a:1 HTTP/1.1\r\n", Some(Spoken::Http11)),
            (b"G", None),
            (b"GET ", None),
            (b"GET /x", None),
            (b"PRI * HT", None),
            (PREFACE, Some(Spoken::H2c)),
            (b"PRI * HTTP/1.1\r\n", Some(Spoken::Http11)),
            (b"\x16\x03\x01", Some(Spoken::Tls)),
            (b"\x16", None),
            (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Opaque)),
            (b"PING\r\n", Some(Spoken::Opaque)),
            (b"EHLO mail", Some(Spoken::Opaque)),
            (b"\0\0\0", Some(Spoken::Opaque)),
            (b"GET key\r\n", Some(Spoken::Opaque)),
            (b"", None),
        ] {
            assert_eq!(recognise(bytes), spoken, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
