//! `mesh-proxy request GET PATH`: asks the admin port of the proxy in this network namespace.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The method or path would break the request.
    #[error("{0:?} cannot be part of a request")]
    Malformed(String),
    /// Nobody listens, or it stopped halfway.
    #[error("the admin port {address} does not answer")]
    Unanswered {
        /// Where it should be.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The answer is no HTTP.
    #[error("the answer of {0} cannot be read as HTTP")]
    Unreadable(SocketAddr),
    /// The answer is an error.
    #[error("{address} answers {status}: {text}")]
    Refused {
        /// Who answers.
        address: SocketAddr,
        /// The HTTP status.
        status: u16,
        /// The body.
        text: String,
    },
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends one request and gives the body of the answer.
///
/// # Errors
///
/// When there is no answer, or it is no success.
pub fn send(port: u16, method: &str, path: &str) -> Result<Vec<u8>, RequestError> {
    for part in [method, path] {
        if part.is_empty() || part.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(RequestError::Malformed(part.to_owned()));
        }
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let slash = if path.starts_with('/') { "" } else { "/" };
    // HTTP/1.0: the end of the answer is the end of the connection.
    let request = format!("{method} {slash}{path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let answer = exchange(address, &request).map_err(|source| RequestError::Unanswered { address, source })?;
    let (status, body) = split(&answer).ok_or(RequestError::Unreadable(address))?;
    if (200..300).contains(&status) {
        return Ok(body.to_vec());
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    Err(RequestError::Refused { address, status, text })
}

fn exchange(address: SocketAddr, request: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}
