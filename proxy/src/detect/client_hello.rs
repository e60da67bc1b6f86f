//! What the first message of a TLS client tells before anything is encrypted: the server's name, and what it would speak.

use std::borrow::Cow;

/// What a ClientHello tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// The server that is asked for, in lower case; `None` if none is named, or not by a name of hosts.
    pub(crate) server_name: Option<Box<str>>,
    /// The protocols that the client offers (ALPN), in its order.
    pub(crate) protocols: Vec<Box<str>>,
}

/// The bytes are no ClientHello, or one that is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotOne;

/// More than this is not read to the end; the hello of a client with a post-quantum key has 2 KiB.
pub(crate) const MAX_HELLO: usize = 16 * 1024;
/// Protocols beyond this are not looked at.
const MAX_PROTOCOLS: usize = 16;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// Bytes before a record's content, and before a handshake message's.
const RECORD_HEAD: usize = 5;
const MESSAGE_HEAD: usize = 4;

/// Reads a ClientHello off the beginning of a connection; `None` if more bytes are needed.
///
/// # Errors
///
/// The bytes are none.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<ClientHello>, NotOne> {
    let Some(message) = message(bytes)? else { return Ok(None) };
    hello(&message).ok_or(NotOne).map(Some)
}

/// The content of the first handshake message, put together from the records that carry it.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotOne> {
    let mut whole = Vec::new();
    let mut rest = bytes;
    loop {
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
            return Err(NotOne);
        }
        let Some(&[_, _, _, high, low]) = rest.first_chunk::<RECORD_HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_HELLO {
            return Err(NotOne);
        }
        let end = (RECORD_HEAD + length).min(rest.len());
        let fragment = rest.get(RECORD_HEAD..end).unwrap_or_default();
        let is_cut = fragment.len() < length;
        // Most often the first record has all of it.
        let held: &[u8] = if whole.is_empty() {
            fragment
        } else {
            whole.extend_from_slice(fragment);
            &whole
        };
        if held.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NotOne);
        }
        if let Some(&[_, a, b, c]) = held.first_chunk::<MESSAGE_HEAD>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MAX_HELLO {
                return Err(NotOne);
            }
            if held.len() >= MESSAGE_HEAD + length {
                let range = MESSAGE_HEAD..MESSAGE_HEAD + length;
                let content = match whole.is_empty() {
                    true => fragment.get(range).map(Cow::Borrowed),
                    false => whole.get(range).map(|content| Cow::Owned(content.to_vec())),
                };
                return content.ok_or(NotOne).map(Some);
            }
        }
        if is_cut {
            return Ok(None);
        }
        if whole.is_empty() {
            whole.extend_from_slice(fragment);
        }
        rest = rest.get(end..).unwrap_or_default();
    }
}

/// Reads the content of a ClientHello; `None` if it cannot be read in one way.
fn hello(content: &[u8]) -> Option<ClientHello> {
    let mut content = Bytes(content);
    let [major, _] = *content.take(2)?.first_chunk::<2>()?;
    if major != 3 {
        return None;
    }
    content.take(32)?;
    content.short_list()?;
    content.list()?;
    content.short_list()?;
    let mut hello = ClientHello::default();
    if content.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Bytes(content.list()?);
    let (mut has_name, mut has_protocols) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let value = extensions.list()?;
        match kind {
            // Twice would be two answers to one question.
            SERVER_NAME if has_name => return None,
            ALPN if has_protocols => return None,
            SERVER_NAME => {
                has_name = true;
                hello.server_name = server_name(value)?;
            }
            ALPN => {
                has_protocols = true;
                hello.protocols = protocols(value)?;
            }
            _ => {}
        }
    }
    content.0.is_empty().then_some(hello)
}

/// The one name of the list; a name that no host has is none.
fn server_name(value: &[u8]) -> Option<Option<Box<str>>> {
    let mut value = Bytes(value);
    let mut list = Bytes(value.list()?);
    if !value.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.take(1)?;
        let name = list.list()?;
        if kind == [0] && found.replace(name).is_some() {
            return None;
        }
    }
    Some(found.and_then(host_name))
}

fn host_name(name: &[u8]) -> Option<Box<str>> {
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 255 || !name.iter().all(is_host) {
        return None;
    }
    Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase().into())
}

fn protocols(value: &[u8]) -> Option<Vec<Box<str>>> {
    let mut value = Bytes(value);
    let mut list = Bytes(value.list()?);
    if !value.0.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let name = list.short_list()?;
        if found.len() < MAX_PROTOCOLS
            && let Ok(name) = std::str::from_utf8(name)
        {
            found.push(name.into());
        }
    }
    Some(found)
}

/// What is left to read.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Bytes behind their length in two bytes.
    fn list(&mut self) -> Option<&'b [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    /// Bytes behind their length in one byte.
    fn short_list(&mut self) -> Option<&'b [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixed(size: usize, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[4 - size..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &prefixed(2, content)].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        extension(SERVER_NAME, &prefixed(2, &[&[0][..], &prefixed(2, name)].concat()))
    }

    fn offering(names: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = names.iter().flat_map(|name| prefixed(1, name)).collect();
        extension(ALPN, &prefixed(2, &list))
    }

    fn message_of(extensions: &[u8]) -> Vec<u8> {
        let content = [
            &[3, 3][..],
            &[7; 32],
            &prefixed(1, &[9; 32]),
            &prefixed(2, &[0x13, 1, 0x13, 2]),
            &prefixed(1, &[0]),
            &prefixed(2, extensions),
        ]
        .concat();
        [&[CLIENT_HELLO][..], &prefixed(3, &content)].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &prefixed(2, part)].concat()).collect()
    }

    #[test]
    fn name_and_protocols_are_read_however_the_message_is_cut() {
        let extensions =
            [extension(10, &[0; 1200]), named(b"Www.Example.com"), offering(&[b"h2", b"http/1.1"])].concat();
        let expected = ClientHello {
            server_name: Some("www.example.com".into()),
            protocols: vec!["h2".into(), "http/1.1".into()],
        };
        for size in [1, 3, 4, 5, 100, 16 * 1024] {
            let bytes = records(&message_of(&extensions), size);
            assert_eq!(read(&bytes), Ok(Some(expected.clone())), "records of {size}");
            let more = [&bytes[..], b"what follows"].concat();
            assert_eq!(read(&more), Ok(Some(expected.clone())));
            for length in 0..bytes.len() {
                assert_eq!(read(&bytes[..length]), Ok(None), "{length} bytes of records of {size}");
            }
        }
    }

    #[test]
    fn a_hello_without_extensions_names_nobody() {
        assert_eq!(read(&records(&message_of(&[]), 1000)), Ok(Some(ClientHello::default())));
    }

    #[test]
    fn names_that_no_host_has_are_none() {
        for name in [&b""[..], b"a b", b"a\0.example.com", b"a\n", &[b'a'; 256], b"\xff", b"\"quoted\""] {
            let found = read(&records(&message_of(&named(name)), 1000));
            assert_eq!(found, Ok(Some(ClientHello::default())), "{name:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_believed() {
        let two = prefixed(2, &[&[0][..], &prefixed(2, b"a"), &[0], &prefixed(2, b"b")].concat());
        let mut long = message_of(&named(b"a"));
        long[1] = 1;
        for bytes in [
            records(&message_of(&[named(b"a"), named(b"b")].concat()), 1000),
            records(&message_of(&[offering(&[b"a"]), offering(&[b"b"])].concat()), 1000),
            records(&message_of(&extension(SERVER_NAME, &two)), 1000),
            records(&message_of(&extension(SERVER_NAME, &[0, 9, 0, 0, 1])), 1000),
            records(&message_of(&[0, 0, 0]), 1000),
            records(&long, 1000),
            records(&[2, 0, 0, 1, 0], 1000),
            b"\x16\x02\x00\x00\x05".to_vec(),
            b"\x16\x03\x01\x00\x00".to_vec(),
            b"\x16\x03\x01\xff\xff".to_vec(),
            b"\x17\x03\x03\x00\x05".to_vec(),
        ] {
            assert_eq!(read(&bytes), Err(NotOne), "{bytes:?}");
        }
    }
}
