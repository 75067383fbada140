//! What a simulator saw, in order, with the moment it saw it.
//!
//! In: entries from the simulator's tasks. Out: copies for whoever looks or waits. Invariant: never more than
//! [`CAPACITY`] entries; the oldest go first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// Most entries kept.
pub const CAPACITY: usize = 200_000;

/// Locks; a panicking holder does not spread.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// When it was seen.
    pub at: Instant,
    /// What was seen.
    pub what: T,
}

/// An event log. Cheap to clone; clones share the entries.
#[derive(Debug)]
pub struct Log<T> {
    entries: Arc<Mutex<VecDeque<Entry<T>>>>,
    changed: Arc<watch::Sender<()>>,
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), changed: Arc::clone(&self.changed) }
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { entries: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }
}

impl<T: Clone> Log<T> {
    /// Adds an entry that was seen now.
    pub fn push(&self, what: T) {
        {
            let mut entries = lock(&self.entries);
            if entries.len() == CAPACITY {
                entries.pop_front();
            }
            entries.push_back(Entry { at: Instant::now(), what });
        }
        self.changed.send_replace(());
    }

    /// Everything so far, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<T>> {
        lock(&self.entries).iter().cloned().collect()
    }

    /// Entries not older than `at`, oldest first. Cheap when these are few.
    #[must_use]
    pub fn since(&self, at: Instant) -> Vec<Entry<T>> {
        let entries = lock(&self.entries);
        let from = entries.partition_point(|e| e.at < at);
        entries.range(from..).cloned().collect()
    }

    /// The first entry for which `pick` gives something.
    pub fn find<R>(&self, pick: impl FnMut(&Entry<T>) -> Option<R>) -> Option<R> {
        lock(&self.entries).iter().find_map(pick)
    }

    /// The last entry for which `pick` gives something.
    pub fn last<R>(&self, pick: impl FnMut(&Entry<T>) -> Option<R>) -> Option<R> {
        lock(&self.entries).iter().rev().find_map(pick)
    }

    /// How many entries fit.
    pub fn count(&self, mut fits: impl FnMut(&T) -> bool) -> usize {
        lock(&self.entries).iter().filter(|e| fits(&e.what)).count()
    }

    /// Waits for an entry, past ones included; `None` when `limit` passes first.
    pub async fn wait<R>(&self, limit: Duration, mut pick: impl FnMut(&Entry<T>) -> Option<R>) -> Option<R> {
        let mut changed = self.changed.subscribe();
        let end = Instant::now() + limit;
        loop {
            changed.borrow_and_update();
            if let Some(found) = self.find(&mut pick) {
                return Some(found);
            }
            match tokio::time::timeout_at(end, changed.changed()).await {
                Ok(Ok(())) => {}
                _ => return self.find(&mut pick),
            }
        }
    }
}
