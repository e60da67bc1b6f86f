//! Memory that requests use in turn: it belongs to their thread, and an idle connection holds none of it.

use std::cell::RefCell;

use super::Session;
use crate::codec::{Request, Response};
use crate::report::Note;

/// How many connections' worth of it a thread keeps.
const KEPT: usize = 64;
/// What has grown beyond this is not kept.
const KEPT_BYTES: usize = 16 * 1024;

/// What one request uses.
#[derive(Debug, Default)]
struct Spare {
    request: Request,
    response: Response,
    note: Note,
    outgoing: Vec<u8>,
    tx: Vec<u8>,
}

thread_local! {
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

impl Session<'_> {
    /// Gives the memory back for as long as no request is there, with the client's buffer if nothing is in it.
    pub(super) fn rest(&mut self, tx: &mut Vec<u8>) {
        if self.note.is_new() || !tx.is_empty() {
            return;
        }
        let spare = Spare {
            request: std::mem::take(&mut self.request),
            response: std::mem::take(&mut self.response),
            note: std::mem::take(&mut self.note),
            outgoing: std::mem::take(&mut self.outgoing),
            tx: std::mem::take(tx),
        };
        if spare.outgoing.capacity() + spare.tx.capacity() > KEPT_BYTES {
            return;
        }
        // A thread that is ending keeps nothing.
        let _ = SPARE.try_with(|all| {
            let mut all = all.borrow_mut();
            if all.len() < KEPT {
                all.push(spare);
            }
        });
    }

    /// Takes memory for a request, if there is any to spare.
    pub(super) fn wake(&mut self, tx: &mut Vec<u8>) {
        if !self.note.is_new() {
            return;
        }
        let Ok(Some(spare)) = SPARE.try_with(|all| all.borrow_mut().pop()) else { return };
        let Spare { request, response, note, outgoing, tx: spare } = spare;
        (self.request, self.response, self.note, self.outgoing) = (request, response, note, outgoing);
        if tx.is_empty() {
            *tx = spare;
        }
    }
}
