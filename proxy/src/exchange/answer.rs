//! The upstream's answer: its heads, taken over into what the client speaks.

use std::task::{Context, Poll, ready};

use http::response;
use tokio::time::Instant;

use super::{Answer, Broken, Exchange, Sending};
use crate::codec::{Body, Malformed, Scan, Version, parse_response};
use crate::failure::Failure;
use crate::headers::{ResponseChanges, h2 as fields, write_response, write_switch};
use crate::pump::{Framing, Pump};
use crate::report::Http1;
use crate::retry::Lost;
use crate::side::Side;
use crate::stream::Answered;

/// More interim responses than this are no conversation.
const MAX_INTERIM: usize = 16;

fn protocol(why: Malformed) -> Broken {
    Broken::Failed(Failure::UpstreamProtocol(why))
}

/// What a stream's end before an answer means.
pub(crate) fn unanswered(error: &h2::Error) -> Broken {
    if error.is_remote() && error.is_go_away() {
        Broken::Unseen
    } else if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        Broken::Refused
    } else if error.is_library() {
        protocol(Malformed::Frames)
    } else if error.is_reset() {
        Broken::Failed(Failure::UpstreamReset)
    } else {
        Broken::Unanswered
    }
}

impl Exchange<'_, '_> {
    /// Reads the next head and takes it over; an interim one is passed on at once.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // An interim response goes out at once; if the client reads slowly, the rest goes out with what follows.
        if let Poll::Ready(Err(_)) = self.down.poll_flush(cx) {
            return Poll::Ready(Err(Broken::Failed(Failure::DownstreamClosed)));
        }
        match self.up {
            Side::Text(_) => self.poll_text_head(cx),
            Side::Stream(_) => self.poll_stream_head(cx),
        }
    }

    fn poll_text_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let (Side::Text(up), Answer::Head { scan, interim }) = (&mut self.up, &mut self.answer) else {
            return Poll::Ready(Ok(()));
        };
        let end = loop {
            match scan.find_end(up.rx.filled(), self.limits) {
                Ok(Some(end)) => break end,
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(protocol(why))),
            }
            match ready!(up.poll_read(cx)) {
                Ok(0) | Err(_) if up.rx.is_empty() && *interim == 0 => return Poll::Ready(Err(Broken::Unanswered)),
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Failed(Failure::UpstreamReset))),
                Ok(_) => {}
            }
        };
        let head = up.rx.filled();
        if let Err(why) = parse_response(head, end, self.limits, self.response) {
            return Poll::Ready(Err(protocol(why)));
        }
        if let (Some(switch), Side::Text(down), Sending::Done) = (self.switch, &mut self.down, self.request_state)
            && switch.is_granted(self.response, head)
        {
            write_switch(&mut down.tx, self.response, head, switch.protocol());
            self.note.take_response(&Http1(&*self.response, head));
            up.rx.consume(end);
            self.answered = Some(Instant::now());
            self.answer = Answer::Switched;
            return Poll::Ready(Ok(()));
        }
        if self.response.is_interim() {
            *scan = Scan::default();
            if self.response.status == 101 {
                return Poll::Ready(Err(protocol(Malformed::Switch)));
            }
            let passed = match &mut self.down {
                Side::Text(down) if self.client.version == Version::Http11 => {
                    let changes = ResponseChanges { version: Version::Http11, chunked: false, close: false };
                    write_response(&mut down.tx, self.response, head, changes);
                    Ok(())
                }
                Side::Text(_) => Ok(()),
                Side::Stream(down) => {
                    let made = fields::response_of_text(self.response, head).map_err(protocol)?;
                    down.send_interim(made)
                }
            };
            up.rx.consume(end);
            return Poll::Ready(self.count_interim(&passed));
        }
        self.may_answer()?;
        Poll::Ready(self.begin_text(end))
    }

    fn poll_stream_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Side::Stream(up) = &mut self.up else { return Poll::Ready(Ok(())) };
        let mut parts = match ready!(up.poll_answer(cx)).map_err(|error| unanswered(&error))? {
            Answered::Final(parts) => parts,
            Answered::Interim(interim) => {
                let passed = match &mut self.down {
                    Side::Text(down) if self.client.version == Version::Http11 => {
                        let changes = ResponseChanges { version: Version::Http11, chunked: false, close: false };
                        fields::write_response_text(&mut down.tx, &interim.into_parts().0, changes);
                        Ok(())
                    }
                    Side::Text(_) => Ok(()),
                    Side::Stream(down) => down.send_interim(interim),
                };
                return Poll::Ready(self.count_interim(&passed));
            }
        };
        let ends = up.has_ended();
        fields::read_response(&mut parts, ends, self.limits, self.response).map_err(protocol)?;
        self.grpc_status = fields::grpc_status(&parts.headers);
        self.may_answer()?;
        Poll::Ready(self.begin_stream(parts, ends))
    }

    fn count_interim(&mut self, passed: &Result<(), h2::Error>) -> Result<(), Broken> {
        if passed.is_err() {
            return Err(Broken::Failed(Failure::DownstreamClosed));
        }
        let Answer::Head { interim, .. } = &mut self.answer else { return Ok(()) };
        *interim += 1;
        if *interim > MAX_INTERIM { Err(protocol(Malformed::Status)) } else { Ok(()) }
    }

    /// Whether the answer goes to the client, rather than the request to another endpoint.
    fn may_answer(&mut self) -> Result<(), Broken> {
        let can_repeat = self.request.can_restart() && !self.has_started();
        if can_repeat && self.tries.again(Lost::Status(self.response.status)) {
            return Err(Broken::Again);
        }
        Ok(())
    }

    /// How the head goes to the client, if it does not say how long the body is.
    fn changes(&mut self, has_end: bool) -> ResponseChanges {
        let speaks_chunks = self.client.version == Version::Http11;
        let chunked = !has_end && speaks_chunks;
        let leaves_request = self.request_state != Sending::Done && !self.response.keep_alive;
        let close = self.drain.is_draining()
            || !self.client.keep_alive
            || (!has_end && !speaks_chunks)
            || leaves_request
            || self.ends_refused()
            || self.request_state == Sending::Refused;
        self.closing = close;
        ResponseChanges { version: self.client.version, chunked, close }
    }

    /// Whether the client's connection ends because it is not what its request asked for.
    fn ends_refused(&self) -> bool {
        let Side::Text(down) = &self.down else { return false };
        self.switch.is_some_and(|switch| switch.ends_refused(!down.rx.is_empty()))
    }

    fn begin_text(&mut self, end: usize) -> Result<(), Broken> {
        let body = Body::of_response(self.response, self.client.to_head);
        let has_end = !matches!(body, Body::Chunked(_) | Body::UntilClose);
        let changes = self.changes(has_end);
        let Side::Text(up) = &mut self.up else { return Ok(()) };
        self.keeps_upstream = self.response.keep_alive && !matches!(body, Body::UntilClose);
        let head = up.rx.filled();
        match &mut self.down {
            Side::Text(down) => write_response(&mut down.tx, self.response, head, changes),
            Side::Stream(down) => {
                let made = fields::response_of_text(self.response, head).map_err(protocol)?;
                let sent = down.send_response(made, body.is_done());
                sent.map_err(|_| Broken::Failed(Failure::DownstreamClosed))?;
            }
        }
        self.note.take_response(&Http1(&*self.response, head));
        up.rx.consume(end);
        self.begin_body(Pump::new(body, framing(changes)));
        Ok(())
    }

    fn begin_stream(&mut self, parts: response::Parts, ends: bool) -> Result<(), Broken> {
        let ends = ends || self.response.is_bodiless(self.client.to_head);
        let changes = self.changes(ends || self.response.length.is_some());
        self.note.take_response(&parts.headers);
        match &mut self.down {
            Side::Text(down) => fields::write_response_text(&mut down.tx, &parts, changes),
            Side::Stream(down) => {
                let sent = down.send_response(http::Response::from_parts(parts, ()), ends);
                sent.map_err(|_| Broken::Failed(Failure::DownstreamClosed))?;
            }
        }
        self.begin_body(Pump::of_stream(ends, framing(changes)));
        Ok(())
    }

    fn begin_body(&mut self, pump: Pump) {
        self.request.keep_no_more();
        self.answered = Some(Instant::now());
        self.answer = Answer::Body(pump.counting(self.client.is_patient));
    }
}

fn framing(changes: ResponseChanges) -> Framing {
    if changes.chunked { Framing::Chunked } else { Framing::Raw }
}
