//! What the codec says to a client without telling the proxy, told by the frames that go out: which streams it has refused
//! because there were too many, and which flood it has cut.

use super::Cut;

const HEAD: usize = 9;
/// The head of RST_STREAM with its reason.
const RESET: usize = HEAD + 4;
/// The head of GOAWAY with its last stream and reason, and as much of its words as tells one from another.
const GOAWAY: usize = HEAD + 8 + 12;
const REFUSED_STREAM: u32 = 7;
const FLOODS: [(&[u8], Cut); 2] = [(b"too_many_con", Cut::Continuations), (b"header_list_", Cut::Unpacked)];

/// Where in the frames that go out the next byte is, and what they have said.
#[derive(Debug)]
pub(super) struct Sent {
    /// Bytes of a payload that nobody looks at.
    skip: usize,
    frame: [u8; GOAWAY],
    have: usize,
    /// Bytes of the frame that are looked at.
    wanted: usize,
    refused: u64,
    cut: Option<Cut>,
}

impl Default for Sent {
    fn default() -> Self {
        Sent { skip: 0, frame: [0; GOAWAY], have: 0, wanted: HEAD, refused: 0, cut: None }
    }
}

impl Sent {
    /// Takes in the next bytes.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let (some, rest) = bytes.split_at((self.wanted - self.have).min(bytes.len()));
            for (to, from) in self.frame.iter_mut().skip(self.have).zip(some) {
                *to = *from;
            }
            self.have += some.len();
            bytes = rest;
            if self.have == self.wanted {
                self.whole();
            }
        }
    }

    /// As much has come as is looked at, so far.
    fn whole(&mut self) {
        let [a, b, c, kind, _, _, _, _, _, payload @ ..] = &self.frame;
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let wanted = match kind {
            3 => HEAD + length.min(RESET - HEAD),
            7 => HEAD + length.min(GOAWAY - HEAD),
            _ => HEAD,
        };
        if self.have < wanted {
            self.wanted = wanted;
            return;
        }
        if wanted == RESET && *kind == 3 {
            let [a, b, c, d, ..] = *payload;
            self.refused += u64::from(u32::from_be_bytes([a, b, c, d]) == REFUSED_STREAM);
        }
        if wanted == GOAWAY {
            let words = payload.get(8..).unwrap_or_default();
            self.cut = FLOODS.iter().find(|(beginning, _)| *beginning == words).map(|(_, cut)| *cut).or(self.cut);
        }
        (self.skip, self.have, self.wanted) = (HEAD + length - wanted, 0, HEAD);
    }

    /// The flood for which the client was told to go, if the codec names one.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// How many streams were refused since this was last asked.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_seen_however_the_bytes_are_cut() {
        let frame = |kind: u8, payload: &[u8]| [&[0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 1], payload].concat();
        let refused = frame(3, &REFUSED_STREAM.to_be_bytes());
        let sent = [
            frame(4, &[0; 6]),
            refused.clone(),
            frame(0, &refused),
            frame(3, &8u32.to_be_bytes()),
            frame(4, &[]),
            frame(7, &[0; 8]),
            frame(7, &[&[0; 8][..], b"too_many_resets"].concat()),
            refused,
        ]
        .concat();
        let words = |words: &[u8]| frame(7, &[&[0; 8], words].concat());
        for size in [1, 2, 5, 9, 13, sent.len()] {
            let mut seen = Sent::default();
            sent.chunks(size).for_each(|piece| seen.scan(piece));
            assert_eq!((seen.take_refused(), seen.take_refused(), seen.cut()), (2, 0, None), "in pieces of {size}");
            words(b"too_many_continuations").chunks(size).for_each(|piece| seen.scan(piece));
            assert_eq!(seen.cut(), Some(Cut::Continuations), "in pieces of {size}");
            words(b"header_list_way_too_large").chunks(size).for_each(|piece| seen.scan(piece));
            assert_eq!(seen.cut(), Some(Cut::Unpacked), "in pieces of {size}");
        }
    }
}
