//! Which traces begin here, which of them are recorded, and in which headers they are told of.

use std::str::FromStr;

use super::b3::{self, Said};
use super::{Incoming, Once, Parent, SAMPLED, TraceContext, w3c};

/// How traces begin and are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracing {
    /// How many of the traces that begin here are recorded.
    pub rate: Rate,
    /// The headers that are written even if a request came without.
    pub formats: Formats,
}

/// A share of requests. At zero no trace begins here at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Of 2³² dice, those below this.
    below: u64,
}

/// Why a setting of traces makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// The rate is no percentage.
    #[error("write a percentage from 0 to 100, as 1 or 0.1")]
    Rate,
    /// A format is not known.
    #[error("{0:?} is not a format; write some of w3c, b3, b3multi, with commas between them")]
    Format(String),
}

impl Rate {
    /// No trace begins here.
    pub const NEVER: Rate = Rate { below: 0 };

    /// So many of a hundred.
    ///
    /// # Errors
    ///
    /// It is no percentage.
    pub fn percent(percent: f64) -> Result<Self, SamplingError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(SamplingError::Rate);
        }
        // Within 2³², so nothing is cut but a fraction of it.
        Ok(Rate { below: (percent / 100.0 * (1u64 << 32) as f64) as u64 })
    }

    pub(super) fn hits(self, dice: u32) -> bool {
        u64::from(dice) < self.below
    }
}

impl Default for Rate {
    /// One of a hundred, as in other meshes.
    fn default() -> Self {
        Rate { below: (1 << 32) / 100 }
    }
}

impl FromStr for Rate {
    type Err = SamplingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Rate::percent(text.trim().parse().map_err(|_| SamplingError::Rate)?)
    }
}

/// Headers that tell of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// `traceparent`.
    pub w3c: bool,
    /// `b3`.
    pub b3: bool,
    /// `X-B3-TraceId` and its like.
    pub b3_multi: bool,
}

impl Default for Formats {
    fn default() -> Self {
        Formats { w3c: true, b3: false, b3_multi: false }
    }
}

impl FromStr for Formats {
    type Err = SamplingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut formats = Formats { w3c: false, b3: false, b3_multi: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "w3c" => formats.w3c = true,
                "b3" => formats.b3 = true,
                "b3multi" => formats.b3_multi = true,
                _ => return Err(SamplingError::Format(word.to_owned())),
            }
        }
        Ok(formats)
    }
}

impl Tracing {
    /// The context of a request at this hop; `None` if it has none and gets none.
    ///
    /// `traceparent` decides; without a sound one, B3 does. The dice are asked only for what is new: half of 128 bits for
    /// a span, all of it for a trace.
    #[must_use]
    pub fn context(&self, incoming: &Incoming<'_>, mut dice: impl FnMut() -> u128) -> Option<TraceContext> {
        if !incoming.is_there && self.rate == Rate::NEVER {
            return None;
        }
        let single = b3::parse_single(incoming.b3);
        let multi = incoming.multi.parse();
        let formats = Formats {
            w3c: self.formats.w3c || incoming.traceparent != Once::Absent,
            b3: self.formats.b3 || incoming.b3 != Once::Absent,
            b3_multi: self.formats.b3_multi || incoming.multi.is_there(),
        };
        let w3c = match incoming.traceparent {
            Once::Here(value) => w3c::parse(value),
            Once::Absent | Once::Ambiguous => None,
        };
        let b3 = if matches!(single, Said::Parent(..) | Said::Sampling(_)) { single } else { multi };
        let (parent, sampled) = match (w3c, b3) {
            (Some(parent), _) => (Some(parent), Some(parent.flags & SAMPLED != 0)),
            (None, Said::Parent(parent, sampled)) => (Some(parent), sampled),
            (None, Said::Sampling(sampled)) => (None, Some(sampled)),
            (None, Said::Nothing | Said::Malformed) => (None, None),
        };
        if parent.is_none() && sampled.is_none() && self.rate == Rate::NEVER {
            // What came cannot be believed, and nothing takes its place.
            return Some(TraceContext::none());
        }
        let keeps_state = w3c.is_some() && incoming.state.is_sound();
        Some(TraceContext { formats, keeps_state, ..self.continued(parent, sampled, &mut dice) })
    }

    /// A new span of the trace, or of a new one.
    fn continued(
        &self,
        parent: Option<Parent>,
        sampled: Option<bool>,
        dice: &mut impl FnMut() -> u128,
    ) -> TraceContext {
        let thrown = dice();
        let sampled = sampled.unwrap_or_else(|| self.rate.hits(thrown as u32));
        // All zeros mean nothing: as rare as that is, it would be malformed.
        let span = ((thrown >> 64) as u64).max(1);
        let flags = u8::from(sampled);
        match parent {
            Some(parent) => TraceContext {
                trace: parent.trace,
                span,
                parent: parent.span,
                flags: parent.flags & !SAMPLED | flags,
                is_debug: parent.is_debug,
                is_short: parent.is_short,
                ..TraceContext::none()
            },
            None => TraceContext { trace: dice().max(1), span, flags, ..TraceContext::none() },
        }
    }
}

impl TraceContext {
    /// No trace, told of in no format.
    fn none() -> Self {
        TraceContext {
            trace: 0,
            span: 0,
            parent: 0,
            flags: 0,
            is_debug: false,
            is_short: false,
            keeps_state: false,
            formats: Formats { w3c: false, b3: false, b3_multi: false },
        }
    }
}
