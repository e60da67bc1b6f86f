//! Read buffers that grow while bytes flow and go back to a pool of their thread when nothing is in them.

use std::cell::RefCell;

/// Sizes of buffers: a head fits the first, a stream of bytes is fastest in the last.
const SIZES: [usize; 3] = [16 * 1024, 64 * 1024, 256 * 1024];
/// How many free buffers of each size a thread keeps.
const KEPT: [usize; 3] = [64, 16, 8];

thread_local! {
    static FREE: RefCell<[Vec<Box<[u8]>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

fn take(class: usize) -> Box<[u8]> {
    let free = FREE.try_with(|free| free.borrow_mut().get_mut(class).and_then(Vec::pop)).ok().flatten();
    free.unwrap_or_else(|| vec![0; SIZES[class.min(SIZES.len() - 1)]].into_boxed_slice())
}

fn give(class: usize, bytes: Box<[u8]>) {
    if bytes.is_empty() {
        return;
    }
    // A thread that is ending keeps nothing.
    let _ = FREE.try_with(|free| {
        if let (Some(list), Some(kept)) = (free.borrow_mut().get_mut(class), KEPT.get(class))
            && list.len() < *kept
        {
            list.push(bytes);
        }
    });
}

/// Bytes that were read and are not used up yet. Holds no memory while it is parked.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    class: usize,
    start: usize,
    end: usize,
    was_filled: bool,
}

impl Buffer {
    /// The bytes that are there.
    #[must_use]
    pub(crate) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The bytes that are there, to be changed where they stand.
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Number of bytes that are there.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room for more bytes; empty only if the largest buffer is full.
    ///
    /// Takes a buffer when there is none, a larger one when it is full or when the last read filled it.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            if self.was_filled {
                self.class = (self.class + 1).min(SIZES.len() - 1);
            }
            self.bytes = take(self.class);
        } else if self.was_filled && self.is_empty() {
            self.grow();
        } else if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.grow();
            }
        }
        self.was_filled = false;
        let end = self.end;
        self.bytes.get_mut(end..).unwrap_or_default()
    }

    /// As [`Buffer::space`], for at most so many bytes and without taking a larger buffer than they need.
    pub(crate) fn space_within(&mut self, most: usize) -> &mut [u8] {
        let class = SIZES.iter().position(|size| *size >= most);
        if let Some(class) = class.filter(|class| self.is_empty() && self.class >= *class) {
            if self.class > class {
                self.release();
                self.class = class;
            }
            self.was_filled = false;
        }
        let space = self.space();
        let most = most.min(space.len());
        space.get_mut(..most).unwrap_or_default()
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// Room for `count` bytes; less only if the largest buffer has no more.
    pub(crate) fn room(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.class = SIZES.iter().position(|size| *size >= count).unwrap_or(SIZES.len() - 1);
            self.bytes = take(self.class);
        }
        while self.bytes.len() - self.end < count {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else if self.class + 1 < SIZES.len() {
                self.grow();
            } else {
                break;
            }
        }
        let end = self.end;
        self.bytes.get_mut(end..).unwrap_or_default()
    }

    /// Whether [`Buffer::space`] would give room without taking a larger buffer than the smallest.
    #[must_use]
    pub(crate) fn has_cheap_space(&self) -> bool {
        self.bytes.is_empty() || self.len() < self.bytes.len()
    }

    /// Says that `count` bytes were put into [`Buffer::space`].
    pub(crate) fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.was_filled = self.end == self.bytes.len();
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn park(&mut self) {
        if self.is_empty() {
            give(self.class, std::mem::take(&mut self.bytes));
            self.class = 0;
            self.was_filled = false;
        }
    }

    /// Lends the memory to others for the time of a wait, if nothing is in it; the size that was reached is kept.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            give(self.class, std::mem::take(&mut self.bytes));
        }
    }

    fn grow(&mut self) {
        if self.class + 1 >= SIZES.len() {
            return;
        }
        let mut larger = take(self.class + 1);
        let length = self.len();
        if let (Some(to), Some(from)) = (larger.get_mut(..length), self.bytes.get(self.start..self.end)) {
            to.copy_from_slice(from);
        }
        give(self.class, std::mem::replace(&mut self.bytes, larger));
        self.class += 1;
        self.start = 0;
        self.end = length;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give(self.class, std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_while_reads_fill_it_and_keeps_its_bytes() {
        let mut buffer = Buffer::default();
        let mut written = 0u64;
        while buffer.len() < 256 * 1024 {
            for byte in buffer.space() {
                *byte = (written % 251) as u8;
                written += 1;
            }
            let room = (written as usize) - buffer.len();
            buffer.fill(room);
        }
        assert!(buffer.space().is_empty(), "the largest buffer is full");
        assert!(buffer.filled().iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }

    fn fill_all(buffer: &mut Buffer) -> usize {
        let room = buffer.space().len();
        buffer.fill(room);
        room
    }

    #[test]
    fn a_buffer_grows_to_256_kib_while_it_is_filled_and_lends_them_to_others_when_it_waits() {
        let mut buffer = Buffer::default();
        let mut sizes = Vec::new();
        for _ in 0..4 {
            sizes.push(fill_all(&mut buffer));
            buffer.consume(usize::MAX);
        }
        assert_eq!(sizes, [16 * 1024, 64 * 1024, 256 * 1024, 256 * 1024]);
        buffer.release();
        assert!(buffer.bytes.is_empty(), "nothing is held over a wait");
        let free = || FREE.with_borrow(|free| free.each_ref().map(Vec::len));
        assert_eq!(free(), [1, 1, 1], "the memory is there for others");
        assert_eq!(buffer.space().len(), 256 * 1024, "a stream that goes on goes on at its size");
        buffer.park();
        assert_eq!(buffer.space().len(), 16 * 1024, "a new one begins small");
    }

    #[test]
    fn a_buffer_that_may_take_little_is_small_again() {
        let mut buffer = Buffer::default();
        for _ in 0..3 {
            fill_all(&mut buffer);
            buffer.consume(usize::MAX);
        }
        assert_eq!(buffer.memory(), 256 * 1024);
        for _ in 0..3 {
            assert_eq!(buffer.space_within(16 * 1024).len(), 16 * 1024);
            buffer.fill(16 * 1024);
            assert_eq!(buffer.memory(), 16 * 1024);
            buffer.consume(usize::MAX);
        }
        assert_eq!(buffer.space_within(usize::MAX).len(), 64 * 1024, "it grows on");
    }

    #[test]
    fn what_a_thread_keeps_for_others_is_bounded() {
        let mut many: Vec<Buffer> = (0..100).map(|_| Buffer::default()).collect();
        for buffer in &mut many {
            for _ in 0..3 {
                fill_all(buffer);
                buffer.consume(usize::MAX);
            }
        }
        drop(many);
        let kept = FREE.with_borrow(|free| free.each_ref().map(Vec::len));
        assert!(kept.iter().zip(KEPT).all(|(kept, most)| *kept <= most), "{kept:?}");
    }

    #[test]
    fn there_is_room_for_as_many_bytes_as_are_asked_for_up_to_the_largest_buffer() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.room(20_000).len(), 64 * 1024);
        buffer.room(5)[..5].copy_from_slice(b"hello");
        buffer.fill(5);
        assert_eq!(buffer.room(64 * 1024).len(), 256 * 1024 - 5, "a larger one");
        buffer.consume(2);
        assert_eq!(buffer.room(256 * 1024 - 3).len(), 256 * 1024 - 3, "what is used up makes room");
        assert_eq!(buffer.room(256 * 1024).len(), 256 * 1024 - 3);
        assert_eq!(buffer.filled(), b"llo");
    }

    #[test]
    fn a_parked_buffer_holds_no_memory() {
        let mut buffer = Buffer::default();
        buffer.space()[0] = 1;
        buffer.fill(1);
        buffer.park();
        assert_eq!(buffer.filled(), [1], "what is not used up stays");
        buffer.consume(1);
        buffer.park();
        assert!(buffer.bytes.is_empty());
        assert!(!buffer.space().is_empty());
    }
}
