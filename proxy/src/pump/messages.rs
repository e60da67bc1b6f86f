//! Counts the messages of a gRPC call as they go by.
//!
//! In a body each message follows five bytes: a flag and its length
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, `Length-Prefixed-Message`).

const PREFIX: usize = 5;

/// Where in the body the next byte is, and how many messages have begun so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Messages {
    /// Messages whose length has been seen.
    pub(super) count: u64,
    /// Bytes of the prefix that have come.
    prefix: [u8; PREFIX],
    come: usize,
    /// Bytes of the message that have not.
    left: usize,
}

impl Messages {
    /// Takes in the next bytes of the body.
    pub(super) fn see(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let [first, rest @ ..] = bytes else { return };
            if let Some(place) = self.prefix.get_mut(self.come) {
                *place = *first;
            }
            self.come += 1;
            bytes = rest;
            if self.come == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.come = 0;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.count += 1;
            }
        }
    }
}

/// For the fuzzer: how many messages have begun in a body that comes in pieces of this size.
pub(crate) fn count(body: &[u8], size: usize) -> u64 {
    let mut seen = Messages::default();
    body.chunks(size).for_each(|piece| seen.see(piece));
    seen.count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(lengths: &[u32]) -> Vec<u8> {
        let message = |length: &u32| [&[0], &length.to_be_bytes()[..], &vec![7; *length as usize]].concat();
        lengths.iter().flat_map(message).collect()
    }

    #[test]
    fn messages_are_counted_however_the_body_is_cut() {
        let body = body(&[3, 0, 0, 70_000, 1]);
        for size in [1, 2, 3, 4, 5, 6, 7, 64, 65_536, body.len()] {
            let mut seen = Messages::default();
            body.chunks(size).for_each(|piece| seen.see(piece));
            assert_eq!((seen.count, seen.left), (5, 0), "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_counts_from_its_length_on() {
        let mut seen = Messages::default();
        for (piece, count) in [(&[0, 0, 0][..], 0), (&[0], 0), (&[9], 1), (&[0; 4], 1)] {
            seen.see(piece);
            assert_eq!(seen.count, count);
        }
    }
}
