//! Which group a message goes to that names none.
//!
//! The facts are those that routers decide by, read from Redis and kept for a second: a group that
//! is new or gone is noticed that late, and a burst of messages costs one reading.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::placement::{Choice, GroupFacts, Unserved, Wanted, choose_group};
use hive_protocol::fault::{Fault, Reason};
use parking_lot::Mutex;

use crate::core::{Gateway, reading};

/// How long facts serve.
const FRESH: Duration = Duration::from_secs(1);
/// Namespaces whose facts are kept; beyond, all are read anew.
const NAMESPACES_MAX: usize = 64;

/// Facts, and when they were read.
type Read = (Instant, Arc<[GroupFacts]>);

/// Facts of groups by namespace.
#[derive(Debug, Default)]
pub struct Facts(Mutex<BTreeMap<String, Read>>);

impl Gateway {
    async fn facts(&self, namespace: &str) -> Result<Arc<[GroupFacts]>, Fault> {
        let known = self.facts.0.lock().get(namespace).cloned();
        if let Some((read, facts)) = known
            && read.elapsed() < FRESH
        {
            return Ok(facts);
        }
        let facts = reading(async { Ok(self.store.group_facts(namespace).await?) }).await?;
        let facts: Arc<[GroupFacts]> = facts.into();
        let mut kept = self.facts.0.lock();
        if kept.len() >= NAMESPACES_MAX && !kept.contains_key(namespace) {
            kept.clear();
        }
        kept.insert(namespace.to_owned(), (Instant::now(), facts.clone()));
        Ok(facts)
    }

    /// The group for the first of `wanted` that one serves, and which of them that is.
    ///
    /// # Errors
    /// `UNSERVED_TYPE` with all that was looked for, or what Redis says.
    pub async fn choose(
        &self,
        namespace: &str,
        wanted: &[Wanted],
    ) -> Result<(usize, Choice), Fault> {
        let facts = self.facts(namespace).await?;
        let mut unserved: Vec<Unserved> = Vec::new();
        for (number, one) in wanted.iter().enumerate() {
            match choose_group(&facts, one) {
                Ok(choice) => return Ok((number, choice)),
                Err(none) => unserved.push(none),
            }
        }
        let words: Vec<String> = unserved.iter().map(ToString::to_string).collect();
        Err(Fault::new(Reason::UnservedType, words.join("; ")))
    }
}
