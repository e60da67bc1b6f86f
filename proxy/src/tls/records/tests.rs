//! Records against the library's own, which is the peer in each test.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use runtime::authority::Root;
use runtime::svid::{self, Peers, Svids};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::*;
use crate::tls::handshake::Handshake;

/// One end of ours and one of the library's, what is on its way to the library's, and what that has read.
struct Pair {
    ours: Records,
    theirs: Connection,
    going: Buffer,
    got: Vec<u8>,
}

fn configs() -> (ServerConfig, ClientConfig) {
    let hour = Duration::from_secs(3600);
    let root = Root::new("root").expect("a root");
    let member = |id: &str| -> Svids {
        let id = id.parse().expect("an identity");
        let (publisher, svids) = svid::channel();
        let own = root.svid(&id, SystemTime::now() - hour, 2 * hour).expect("an SVID");
        publisher.publish(own, root.bundle(&id).expect("a bundle"));
        svids
    };
    let (server, client) = (member("spiffe://a.b/ns/a/sa/server"), member("spiffe://a.b/ns/a/sa/client"));
    let server = server.resuming_server_config(Peers::Members, &[]).expect("a configuration");
    let client = client.client_config(Peers::Members, &[]).expect("a configuration");
    let (mut server, mut client) = (ServerConfig::clone(&server), ClientConfig::clone(&client));
    (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
    (server, client)
}

/// What the library's end has to send.
fn sent(theirs: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while theirs.wants_write() {
        theirs.write_tls(&mut bytes).expect("writes");
    }
    bytes
}

fn put(buffer: &mut Buffer, bytes: &[u8]) {
    buffer.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
    buffer.fill(bytes.len());
}

impl Pair {
    fn of(mut handshake: Handshake, mut theirs: Connection) -> Pair {
        let (mut came, mut going) = (Buffer::default(), Buffer::default());
        while !handshake.advance(&mut came, &mut going).expect("a handshake") {
            take(&mut theirs, &mut going, &mut Vec::new());
            // One byte at a time: nothing depends on how records come.
            for byte in sent(&mut theirs) {
                put(&mut came, &[byte]);
                handshake.advance(&mut came, &mut going).expect("a handshake");
            }
        }
        let (_, ours) = handshake.finish().expect("is done");
        let mut pair = Pair { ours, theirs, going, got: Vec::new() };
        pair.flush();
        pair
    }

    fn client() -> Pair {
        let (server, client) = configs();
        let name = rustls_pki_types::ServerName::try_from("a.b").expect("a name");
        let ours = UnbufferedClientConnection::new(Arc::new(client), name).expect("a client");
        let theirs = ServerConnection::new(Arc::new(server)).expect("a server");
        Pair::of(Handshake::Client(Box::new(ours)), theirs.into())
    }

    fn server() -> Pair {
        let (server, client) = configs();
        let name = rustls_pki_types::ServerName::try_from("a.b").expect("a name");
        let ours = UnbufferedServerConnection::new(Arc::new(server)).expect("a server");
        let theirs = ClientConnection::new(Arc::new(client), name).expect("a client");
        Pair::of(Handshake::Server(Box::new(ours)), theirs.into())
    }

    fn both() -> [Pair; 2] {
        [Pair::client(), Pair::server()]
    }

    /// Gives the library's end what is on its way.
    fn flush(&mut self) {
        take(&mut self.theirs, &mut self.going, &mut self.got);
    }

    /// Opens records that the library's end has sent; gives the data in them.
    fn open(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let (mut data, mut room) = (Vec::new(), vec![0; MOST_BODY]);
        while let Some(record) = whole(bytes) {
            let (first, rest) = bytes.split_at(record);
            if let Opened::Data(count) = self.ours.open(first, &mut room, &mut self.going)? {
                data.extend_from_slice(&room[..count]);
            }
            bytes = rest;
        }
        Ok(data)
    }

    fn open_sent(&mut self) -> Vec<u8> {
        let bytes = sent(&mut self.theirs);
        self.open(&bytes).expect("opens")
    }

    /// A record that the library's end would not send, sealed with its keys.
    fn forged(&mut self, kind: u8, content: &[u8]) -> Result<Opened, Error> {
        std::mem::swap(&mut self.ours.ours, &mut self.ours.theirs);
        let mut out = Buffer::default();
        self.ours.seal_anything(kind, content, &mut out);
        std::mem::swap(&mut self.ours.ours, &mut self.ours.theirs);
        self.ours.theirs.next -= 1;
        self.ours.open(out.filled(), &mut vec![0; MOST_BODY], &mut self.going)
    }
}

fn take(theirs: &mut Connection, going: &mut Buffer, got: &mut Vec<u8>) {
    while !going.is_empty() {
        let mut rest = going.filled();
        let count = theirs.read_tls(&mut rest).expect("reads");
        going.consume(count);
        let count = theirs.process_new_packets().expect("understands").plaintext_bytes_to_read();
        let read = got.len();
        got.resize(read + count, 0);
        theirs.reader().read_exact(&mut got[read..]).expect("reads");
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

#[test]
fn what_is_sealed_the_library_opens_and_the_other_way_round() {
    for mut pair in Pair::both() {
        for size in [1, 2, SMALL, SMALL + 1, CONTENT, CONTENT + 1, 2 * MOST_CONTENT] {
            let whole = bytes(size);
            for head in [0, 1, size / 2, size] {
                let (mut first, mut second) = whole.split_at(head);
                pair.got.clear();
                while !(first.is_empty() && second.is_empty()) {
                    let count = pair.ours.seal_data(first, second, &mut pair.going).expect("seals");
                    let of_first = count.min(first.len());
                    (first, second) = (&first[of_first..], &second[count - of_first..]);
                    pair.flush();
                }
                assert!(pair.got == whole, "{size} bytes, {head} of them apart");
            }
            pair.theirs.writer().write_all(&whole).expect("writes");
            assert!(pair.open_sent() == whole, "{size} bytes");
        }
    }
}

#[test]
fn either_end_may_close_its_bytes() {
    for mut pair in Pair::both() {
        pair.ours.seal_end(&mut pair.going).expect("seals");
        let mut rest = pair.going.filled();
        pair.theirs.read_tls(&mut rest).expect("reads");
        assert!(pair.theirs.process_new_packets().expect("understands").peer_has_closed());
        sent(&mut pair.theirs);
    }
    for mut pair in Pair::both() {
        // What a server says after its handshake goes before.
        pair.open_sent();
        pair.theirs.send_close_notify();
        let opened = pair.ours.open(&sent(&mut pair.theirs), &mut vec![0; MOST_BODY], &mut pair.going);
        assert_eq!(opened.expect("opens"), Opened::End);
    }
}

#[test]
fn keys_are_changed_before_they_are_used_up_and_when_the_peer_changes_its_own() {
    for mut pair in Pair::both() {
        pair.ours.change_keys_after(pair.ours.ours.next + 2);
        for _ in 0..5 {
            pair.ours.seal_data(b"hello", b"", &mut pair.going).expect("seals");
            pair.flush();
            assert_eq!(std::mem::take(&mut pair.got), b"hello");
        }
        assert_eq!(pair.ours.ours.next, 3, "three of the five are under other keys");
        pair.theirs.refresh_traffic_keys().expect("other keys");
        pair.theirs.writer().write_all(b"there").expect("writes");
        assert_eq!(pair.open_sent(), b"there");
        // The library asks for other keys of ours.
        assert_eq!(pair.forged(HANDSHAKE, &[24, 0, 0, 1, 0]).expect("opens"), Opened::Other);
    }
}

#[test]
fn a_record_that_is_not_as_it_was_sealed_is_refused() {
    let mut pair = Pair::server();
    pair.theirs.writer().write_all(b"hello").expect("writes");
    let good = sent(&mut pair.theirs);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let next = pair.ours.theirs.next;
            let opened = pair.ours.open(&bad, &mut vec![0; MOST_BODY], &mut pair.going);
            assert!(opened.is_err(), "bit {bit} of byte {at}");
            pair.ours.theirs.next = next;
        }
        let cut = pair.ours.open(&good[..at], &mut vec![0; MOST_BODY], &mut pair.going);
        assert!(cut.is_err(), "cut at {at}");
    }
    assert_eq!(pair.open(&good).expect("opens"), b"hello");
    assert_eq!(pair.open(&good), Err(Error::DecryptError), "a record is not opened twice");
}

#[test]
fn what_the_protocol_does_not_allow_is_refused_whoever_sealed_it() {
    let ticket = [4, 0, 0, 1, 0];
    for (name, kind, content, error) in [
        ("an unknown kind", 99, &b"x"[..], unexpected(99)),
        ("a change of ciphers", 20, &[1], unexpected(20)),
        ("an alert without a word", ALERT, &[], misshapen()),
        ("an alert", ALERT, &[2, 48], Error::AlertReceived(AlertDescription::UnknownCA)),
        ("an empty message", HANDSHAKE, &[], Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext)),
        ("a hello", HANDSHAKE, &[1, 0, 0, 0], unexpected(HANDSHAKE)),
        ("a ticket from a client", HANDSHAKE, &ticket, unexpected(HANDSHAKE)),
        (
            "bytes behind other keys",
            HANDSHAKE,
            &[24, 0, 0, 1, 0, 4],
            Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment),
        ),
        ("other keys, or not", HANDSHAKE, &[24, 0, 0, 1, 2], Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate)),
        ("nothing but padding", 0, &[0, 0], Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext)),
        ("too much", DATA, &[1; MOST_CONTENT + 1], Error::PeerSentOversizedRecord),
    ] {
        assert_eq!(Pair::server().forged(kind, content), Err(error), "{name}");
    }
    let mut pair = Pair::client();
    let bad_ticket = pair.forged(HANDSHAKE, &ticket);
    assert!(matches!(bad_ticket, Err(Error::InvalidMessage(_))), "{bad_ticket:?}");
    for kind in [20, 21, 22, 24] {
        let opened = pair.ours.open(&[kind, 3, 3, 0, 1, 1], &mut [0; 64], &mut pair.going);
        assert_eq!(opened, Err(unexpected(kind)), "in clear text");
    }
}

#[test]
fn a_message_may_come_in_parts_between_which_nothing_else_comes() {
    let mut pair = Pair::server();
    assert_eq!(pair.forged(HANDSHAKE, &[24, 0]), Ok(Opened::Other));
    assert_eq!(pair.forged(HANDSHAKE, &[0, 1, 0]), Ok(Opened::Other), "other keys");
    let mut pair = Pair::server();
    assert_eq!(pair.forged(HANDSHAKE, &[24, 0]), Ok(Opened::Other));
    let between = Error::PeerMisbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage);
    assert_eq!(pair.forged(DATA, b"hello"), Err(between));
    let mut pair = Pair::server();
    let large = [&[24, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    let mut opened = pair.forged(HANDSHAKE, &large);
    for _ in 0..4 {
        assert_eq!(opened, Ok(Opened::Other));
        opened = pair.forged(HANDSHAKE, &[0; 16_000]);
    }
    assert_eq!(opened, Err(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)));
}

#[test]
fn padding_is_taken_off_and_records_that_bring_nothing_are_bounded() {
    let mut pair = Pair::server();
    assert_eq!(pair.forged(0, b"hello\x17\0\0\0"), Ok(Opened::Data(5)));
    for _ in 0..MOST_IDLE {
        assert_eq!(pair.forged(DATA, b""), Ok(Opened::Other));
    }
    assert_eq!(pair.forged(DATA, b"x"), Ok(Opened::Data(1)), "and begin anew");
    for _ in 0..MOST_IDLE {
        assert_eq!(pair.forged(DATA, b""), Ok(Opened::Other));
    }
    assert_eq!(pair.forged(DATA, b""), Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments)));
}

#[test]
fn the_peer_is_told_why_it_is_over() {
    for (error, alert) in [
        (Error::DecryptError, AlertDescription::BadRecordMac),
        (Error::PeerSentOversizedRecord, AlertDescription::RecordOverflow),
        (misshapen(), AlertDescription::DecodeError),
        (unexpected(20), AlertDescription::UnexpectedMessage),
    ] {
        let mut pair = Pair::client();
        pair.ours.seal_error(&error, &mut pair.going).expect("seals");
        pair.theirs.read_tls(&mut pair.going.filled()).expect("reads");
        let told = pair.theirs.process_new_packets().map(drop);
        assert_eq!(told, Err(Error::AlertReceived(alert)), "{error:?}");
    }
}

#[test]
fn whatever_a_peer_has_sealed_is_taken_or_refused() {
    let mut dice = StdRng::seed_from_u64(8446);
    for mut pair in Pair::both() {
        for _ in 0..3000 {
            let kinds = [ALERT, HANDSHAKE, HANDSHAKE, DATA, 0, dice.random()];
            let kind = kinds[dice.random_range(0..kinds.len())];
            let mut content = vec![0; dice.random_range(0..64)];
            dice.fill(&mut content[..]);
            if let ([first, a, b, ..], HANDSHAKE) = (&mut content[..], kind) {
                (*first, *a, *b) = ([4, 24, 1][dice.random_range(0..3)], 0, 0);
            }
            // An error is as good as any answer; what was begun is not gone on with.
            if pair.forged(kind, &content).is_err() {
                pair.ours.message.clear();
                pair.ours.idle = 0;
            }
            pair.going.consume(usize::MAX);
        }
    }
}

#[test]
fn a_handshake_takes_any_bytes_without_harm() {
    let mut dice = StdRng::seed_from_u64(8446);
    let (server, client) = configs();
    let (server, client) = (Arc::new(server), Arc::new(client));
    let name = rustls_pki_types::ServerName::try_from("a.b").expect("a name");
    let (mut done, mut failed) = (0, 0);
    for round in 0..600 {
        let ours = UnbufferedServerConnection::new(Arc::clone(&server)).expect("a server");
        let mut handshake = Handshake::Server(Box::new(ours));
        let mut theirs: Connection = ClientConnection::new(Arc::clone(&client), name.clone()).expect("a client").into();
        let (mut came, mut going) = (Buffer::default(), Buffer::default());
        loop {
            let mut bytes = sent(&mut theirs);
            if round % 4 > 0 && !bytes.is_empty() {
                let at = dice.random_range(0..bytes.len());
                match dice.random_range(0..4) {
                    0 => bytes[at] ^= 1 << dice.random_range(0..8),
                    1 => bytes.truncate(at),
                    2 => bytes.extend_from_within(..at),
                    _ => bytes.insert(at, dice.random()),
                }
            }
            let is_silent = bytes.is_empty() && going.is_empty();
            put(&mut came, &bytes);
            match handshake.advance(&mut came, &mut going) {
                Ok(true) => {
                    done += 1;
                    break;
                }
                Err(_) => {
                    failed += 1;
                    break;
                }
                Ok(false) if is_silent => break,
                Ok(false) => {}
            }
            let mut rest = going.filled();
            let read = theirs.read_tls(&mut rest).expect("reads");
            going.consume(read);
            if theirs.process_new_packets().is_err() {
                break;
            }
        }
    }
    assert!(done >= 150 && failed > 100, "{done} done, {failed} failed");
}
