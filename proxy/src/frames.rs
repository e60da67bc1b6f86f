//! Counts a peer's HTTP/2 frames as they go by, and says when there are too many of a kind that brings nothing.
//!
//! The codec below bounds what costs memory; what costs time only, answered at once and forgotten, is counted here.

use std::time::Duration;

use tokio::time::Instant;

use self::sent::Sent;

mod sent;

/// Why a peer's frames are read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Streams that it, or its mistakes, reset as soon as they were open.
    Resets,
    /// PING.
    Pings,
    /// SETTINGS.
    Settings,
    /// PRIORITY.
    Priorities,
    /// DATA and CONTINUATION without a byte.
    Empty,
    /// CONTINUATION of a head that does not end.
    Continuations,
    /// A head that is far over its bound once it is unpacked.
    Unpacked,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// Frames that the proxy does not know.
    Unknown,
    /// A preface or first frame that did not come in time.
    Slow,
    /// Frames that cannot be read, or are not sent as they may be.
    Protocol,
}

impl Cut {
    /// All of them.
    pub const ALL: [Cut; 11] = [
        Cut::Resets,
        Cut::Pings,
        Cut::Settings,
        Cut::Priorities,
        Cut::Empty,
        Cut::Continuations,
        Cut::Unpacked,
        Cut::WindowUpdates,
        Cut::Unknown,
        Cut::Slow,
        Cut::Protocol,
    ];

    /// As it stands in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cut::Resets => "resets",
            Cut::Pings => "pings",
            Cut::Settings => "settings",
            Cut::Priorities => "priorities",
            Cut::Empty => "empty_frames",
            Cut::Continuations => "continuations",
            Cut::Unpacked => "unpacked_head",
            Cut::WindowUpdates => "window_updates",
            Cut::Unknown => "unknown_frames",
            Cut::Slow => "slow_preface",
            Cut::Protocol => "protocol",
        }
    }
}

/// How many frames of a kind a peer may send in [`WINDOW`].
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Streams reset as soon as they were open, if they are more than half of all.
    pub resets: u32,
    /// PING.
    pub pings: u32,
    /// SETTINGS.
    pub settings: u32,
    /// PRIORITY.
    pub priorities: u32,
    /// DATA and CONTINUATION without a byte.
    pub empty: u32,
    /// WINDOW_UPDATE.
    pub window_updates: u32,
}

impl Default for FrameLimits {
    fn default() -> Self {
        FrameLimits { resets: 100, pings: 1000, settings: 100, priorities: 2000, empty: 1000, window_updates: 100_000 }
    }
}

/// Frames are counted anew after so long.
pub const WINDOW: Duration = Duration::from_secs(10);

const PREFACE: usize = 24;
const HEAD: usize = 9;

/// The frames that a peer has sent.
#[derive(Debug)]
pub(crate) struct Frames {
    limits: FrameLimits,
    /// Bytes that are no frame's head: of the preface, or of a frame's payload.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    counts: [u32; 6],
    since: Option<Instant>,
    has_settings: bool,
    cut: Option<Cut>,
    /// Of a client: what it is told.
    sent: Option<Sent>,
}

impl Frames {
    /// What a client sends, which begins with a preface.
    #[must_use]
    pub(crate) fn of_client(limits: FrameLimits) -> Self {
        Frames {
            limits,
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
            counts: [0; 6],
            since: None,
            has_settings: false,
            cut: None,
            sent: Some(Sent::default()),
        }
    }

    /// What a server sends.
    #[must_use]
    pub(crate) fn of_server(limits: FrameLimits) -> Self {
        Frames { skip: 0, sent: None, ..Frames::of_client(limits) }
    }

    /// Why the peer is listened to no longer, if it is not.
    #[must_use]
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Whether the first frame has come; the codec checks that it is SETTINGS.
    #[must_use]
    pub(crate) fn has_settings(&self) -> bool {
        self.has_settings
    }

    /// Whether several frames without a byte have come lately.
    #[must_use]
    pub(crate) fn has_empty(&self) -> bool {
        const SEVERAL: u32 = 10;
        self.counts[0] > SEVERAL
    }

    /// Looks at the next bytes that go to the peer.
    pub(crate) fn scan_sent(&mut self, bytes: &[u8]) {
        if let Some(sent) = &mut self.sent {
            sent.scan(bytes);
        }
    }

    /// Streams that the peer was refused because it had too many, since this was last asked.
    pub(crate) fn take_refused(&mut self) -> u64 {
        self.sent.as_mut().map_or(0, Sent::take_refused)
    }

    /// The flood for which the peer was told to go, if the codec has named one.
    pub(crate) fn told(&self) -> Option<Cut> {
        self.sent.as_ref().and_then(Sent::cut)
    }

    /// Looks at the next bytes.
    pub(crate) fn scan(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            for (to, from) in self.head.iter_mut().skip(self.have).zip(head) {
                *to = *from;
            }
            self.have += taken;
            bytes = rest;
            if self.have == HEAD {
                self.have = 0;
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = length;
        self.has_settings |= kind == 4;
        const END: u8 = 1;
        let (at, cut, limit) = match kind {
            0 if length == 0 && flags & END == 0 => (0, Cut::Empty, self.limits.empty),
            9 if length == 0 => (0, Cut::Empty, self.limits.empty),
            2 => (1, Cut::Priorities, self.limits.priorities),
            4 => (2, Cut::Settings, self.limits.settings),
            6 if flags & END == 0 => (3, Cut::Pings, self.limits.pings),
            8 => (4, Cut::WindowUpdates, self.limits.window_updates),
            0 | 1 | 3 | 5 | 6 | 7 | 9 => return,
            _ => (5, Cut::Unknown, self.limits.priorities),
        };
        let Some(count) = self.counts.get_mut(at) else { return };
        *count += 1;
        if *count > limit && self.cut.is_none() {
            // The time is asked for only here, so that counting costs nothing.
            let now = Instant::now();
            match self.since {
                Some(since) if now.duration_since(since) < WINDOW => self.cut = Some(cut),
                _ => {
                    self.since = Some(now);
                    self.counts = [0; 6];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_at_twice_its_limit_however_its_bytes_come() {
        for (kind, flags, payload, limit, cut) in [
            (6, 0, &[0; 8][..], 1000, Cut::Pings),
            (4, 0, &[][..], 100, Cut::Settings),
            (2, 0, &[0; 5][..], 2000, Cut::Priorities),
            (0, 0, &[][..], 1000, Cut::Empty),
            (0x4a, 0, &[1][..], 2000, Cut::Unknown),
        ] {
            for size in [1, 7, 4096] {
                let mut frames = Frames::of_server(FrameLimits::default());
                let flood = frame(kind, flags, payload).repeat(2 * limit + 2);
                let (before, last) = flood.split_at(flood.len() - 9 - payload.len());
                before.chunks(size).for_each(|bytes| frames.scan(bytes));
                assert_eq!(frames.cut(), None, "{kind}");
                frames.scan(last);
                assert_eq!(frames.cut(), Some(cut), "{kind}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_something_are_never_too_many() {
        let mut frames = Frames::of_client(FrameLimits::default());
        frames.scan(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..100_000 {
            frames.scan(&frame(0, 0, b"x"));
            frames.scan(&frame(1, 4, b"x"));
            frames.scan(&frame(6, 1, &[0; 8]));
        }
        assert_eq!(frames.cut(), None);
        for _ in 0..100 {
            (0..900).for_each(|_| frames.scan(&frame(6, 0, &[0; 8])));
            tokio::time::advance(WINDOW).await;
        }
        assert_eq!(frames.cut(), None, "pings of a connection that lives long");
    }
}
