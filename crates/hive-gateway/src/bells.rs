//! The doorbell: wakes dispatchers and long polls when there may be new work, and tells of leases
//! that are over and of the ends of tracked messages.
//!
//! One subscription per gateway hears the bells of all shards. A bell that is lost, or rings while
//! the subscription is made anew, costs one poll interval, never a message; of a lease that is over
//! the next heartbeat tells, of an end the next look.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hive_store::{
    Shard, Store,
    bells::{CancelledLease, Line},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Pause before the subscription is made anew.
const RETRY: Duration = Duration::from_millis(200);
/// Pause between two bells of a shard through Redis, where only coordinators hear them: they wake
/// groups at rest, and a flood must not cost Redis a command for each flush.
const OUTSIDE_PAUSE: Duration = Duration::from_millis(20);

/// Who wants to be woken, by shard.
#[derive(Debug, Default)]
pub struct Bells {
    listeners: Mutex<HashMap<String, Vec<Weak<Notify>>>>,
    /// Whether no other gateway is known to hear.
    is_alone: AtomicBool,
    /// When the bell of a shard last rings through Redis, which may be soon.
    outside: Mutex<HashMap<String, Instant>>,
}

impl Bells {
    /// A listener of a shard's bell; it ends when it is dropped.
    #[must_use]
    pub fn listen(&self, shard: &Shard) -> Arc<Notify> {
        self.add(shard.doorbell())
    }

    /// A listener of what is said on a channel, these words alone; it ends when it is dropped, and
    /// leaves nothing behind: such words are without number.
    #[must_use]
    pub fn listen_to(self: &Arc<Self>, channel: &str, words: &str) -> Listener {
        let name = said_on(channel, words);
        Listener {
            bell: self.add(name.clone()),
            name,
            bells: Arc::clone(self),
        }
    }

    fn forget(&self, name: &str, bell: &Arc<Notify>) {
        let mut listeners = self.listeners.lock();
        let Some(of_name) = listeners.get_mut(name) else {
            return;
        };
        let other = |listener: &Weak<Notify>| {
            listener.strong_count() > 0 && !std::ptr::eq(listener.as_ptr(), Arc::as_ptr(bell))
        };
        of_name.retain(other);
        if of_name.is_empty() {
            listeners.remove(name);
        }
    }

    fn add(&self, name: String) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut listeners = self.listeners.lock();
        let of_name = listeners.entry(name).or_default();
        of_name.retain(|listener| listener.strong_count() > 0);
        of_name.push(Arc::downgrade(&bell));
        bell
    }

    /// Notes whether no other gateway is known to hear.
    pub fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::Relaxed);
    }

    /// Says that there is new work in a shard. With other gateways there the bell goes through
    /// Redis to all of them, this one included: who rings would otherwise always be the first to
    /// fetch.
    pub fn announce(&self, store: &Store, shard: &Shard) {
        if self.is_alone.load(Ordering::Relaxed) {
            self.ring(&shard.doorbell());
            if let Some(wait) = self.outside_wait(shard, Instant::now()) {
                store.ring_after(shard, wait);
            }
        } else {
            store.ring_soon(shard);
        }
    }

    /// How long to wait before the bell of a shard rings through Redis; none where it is about to.
    /// Every call is followed by a ring.
    fn outside_wait(&self, shard: &Shard, now: Instant) -> Option<Duration> {
        let mut outside = self.outside.lock();
        let Some(last) = outside.get_mut(shard.tag()) else {
            outside.insert(shard.tag().to_owned(), now);
            return Some(Duration::ZERO);
        };
        if *last > now {
            return None;
        }
        *last = now.max(*last + OUTSIDE_PAUSE);
        Some(last.saturating_duration_since(now))
    }

    /// Wakes the listeners of a shard in this gateway.
    pub fn ring(&self, doorbell: &str) {
        let mut listeners = self.listeners.lock();
        let Some(of_shard) = listeners.get_mut(doorbell) else {
            return;
        };
        of_shard.retain(|listener| match listener.upgrade() {
            Some(bell) => {
                bell.notify_one();
                true
            },
            None => false,
        });
        if of_shard.is_empty() {
            listeners.remove(doorbell);
        }
    }

    fn ring_all(&self) {
        let doorbells: Vec<String> = self.listeners.lock().keys().cloned().collect();
        for doorbell in doorbells {
            self.ring(&doorbell);
        }
    }

    /// Hears the bells of all shards until cancelled; survives Redis going away and lines that go
    /// silent. `cancel` gets the channel and the lease of a task or tracked message that was
    /// decided elsewhere.
    pub async fn hear<F>(self: Arc<Self>, store: Store, cancel: F)
    where
        F: Fn(&str, &CancelledLease) + Send + Sync,
    {
        loop {
            let lines = [Line::Work, Line::Cancels, Line::Outcomes];
            if let Ok(line) = store.lines(&lines).await {
                // What rang while nobody heard.
                self.ring_all();
                line.listen(|channel, said| match CancelledLease::parse(said) {
                    Some(lease) => cancel(channel, &lease),
                    None if said.is_empty() => self.ring(channel),
                    None => self.ring(&said_on(channel, said)),
                })
                .await;
                tracing::debug!("bells_lost");
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Who waits for certain words.
#[derive(Debug)]
pub struct Listener {
    bell: Arc<Notify>,
    name: String,
    bells: Arc<Bells>,
}

impl Listener {
    /// Waits until they are said; what was said since the last wait counts.
    pub async fn heard(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.bells.forget(&self.name, &self.bell);
    }
}

fn said_on(channel: &str, words: &str) -> String {
    format!("{channel} {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bells_outside_are_few_and_one_follows_every_call() {
        let bells = Bells::default();
        let shard = Shard::new("hive", "default", "work", 0);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let rings: Vec<Option<u64>> = [0, 1, 2, 21, 39, 41, 300]
            .map(|ms| {
                let wait = bells.outside_wait(&shard, at(ms));
                wait.map(|wait| ms + u64::try_from(wait.as_millis()).unwrap())
            })
            .into();
        let expected = [Some(0), Some(20), None, Some(40), None, Some(60), Some(300)];
        assert_eq!(rings, expected);
    }

    #[tokio::test]
    async fn who_waits_for_words_hears_them_and_leaves_nothing_behind() {
        let bells = Arc::new(Bells::default());
        let (first, second) = (
            bells.listen_to("channel", "m"),
            bells.listen_to("channel", "m"),
        );
        bells.ring(&said_on("channel", "n"));
        bells.ring(&said_on("channel", "m"));
        first.heard().await;
        drop(first);
        second.heard().await;
        assert_eq!(bells.listeners.lock().len(), 1);
        drop(second);
        assert!(bells.listeners.lock().is_empty());
    }
}
