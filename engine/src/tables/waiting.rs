//! Those who wait until something is given back, first come, first served.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Those who wait. The lock is touched only while somebody does.
#[derive(Debug, Default)]
pub struct Waiting {
    count: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    wakers: VecDeque<(u64, Waker)>,
}

/// A place among those who wait; left when it is dropped.
#[derive(Debug)]
pub struct Place<'w> {
    waiting: &'w Waiting,
    number: Option<u64>,
}

impl Waiting {
    /// Wakes who has waited longest, after something has been given back.
    pub fn wake_one(&self) {
        // Either this sees who has come, or who has come sees what has been given back.
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let first = {
            let mut queue = self.lock();
            let first = queue.wakers.pop_front();
            self.count.store(queue.wakers.len(), Ordering::Relaxed);
            first
        };
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// A place that is not taken yet.
    pub fn enter(&self) -> Place<'_> {
        Place { waiting: self, number: None }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Waits to be woken, in the same place as before if it has not been left. What is waited for must be looked at
    /// once more after this.
    pub fn wait(&mut self, waker: &Waker) {
        {
            let mut queue = self.waiting.lock();
            let mine = self.number.and_then(|number| queue.wakers.iter_mut().find(|(of, _)| *of == number));
            if let Some((_, old)) = mine {
                old.clone_from(waker);
            } else {
                let number = queue.next;
                queue.next += 1;
                queue.wakers.push_back((number, waker.clone()));
                self.number = Some(number);
            }
            self.waiting.count.store(queue.wakers.len(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let was_woken = {
            let mut queue = self.waiting.lock();
            let before = queue.wakers.len();
            queue.wakers.retain(|(of, _)| *of != number);
            self.waiting.count.store(queue.wakers.len(), Ordering::Relaxed);
            queue.wakers.len() == before
        };
        // It may have been woken in vain: the next one looks whether there is something for it.
        if was_woken {
            self.waiting.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_first_is_woken_first_and_passes_on_what_it_did_not_need() {
        let waiting = Waiting::default();
        let woken: [Arc<Woken>; 3] = std::array::from_fn(|_| Arc::default());
        let counts = || [0, 1, 2].map(|nth: usize| woken[nth].0.load(Ordering::Relaxed));
        waiting.wake_one();
        let mut places: VecDeque<_> = woken.iter().map(|_| waiting.enter()).collect();
        for (place, woken) in places.iter_mut().zip(&woken) {
            place.wait(&Arc::clone(woken).into());
            place.wait(&Arc::clone(woken).into());
        }
        waiting.wake_one();
        assert_eq!(counts(), [1, 0, 0]);
        drop(places.pop_front());
        assert_eq!(counts(), [1, 1, 0], "it went without waiting again, so the next one is woken");
        drop(places.pop_back());
        assert_eq!(counts(), [1, 1, 0], "one that was not woken leaves quietly");
        drop(places);
        assert_eq!(waiting.count.load(Ordering::Relaxed), 0);
    }
}
