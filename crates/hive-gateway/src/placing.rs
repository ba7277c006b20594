//! Which group a message goes to that names none.
//!
//! The facts are those that routers decide by, read from Redis and kept for a second: a group that
//! is new or gone is noticed that late, and a burst of messages costs one reading.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::placement::{
    Choice, GroupFacts, Unserved, Wanted, agent::has_template, choose_group,
};
use hive_protocol::{
    fault::{Fault, Reason},
    wire,
};
use parking_lot::Mutex;

use crate::{
    core::{Gateway, reading},
    peers::Onward,
};

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

    /// The group for the first of `wanted` that one serves, and which of them that is. Where none
    /// does, a coordinator makes the group of the first that has a template, if its options say so.
    ///
    /// # Errors
    /// `UNSERVED_TYPE` with all that was looked for; what Redis or a coordinator says.
    pub async fn choose(
        &self,
        onward: &Onward,
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
        for (number, one) in wanted.iter().enumerate() {
            if self.provisioned(onward, one).await? {
                self.facts.0.lock().remove(namespace);
                if let Ok(choice) = choose_group(&self.facts(namespace).await?, one) {
                    return Ok((number, choice));
                }
            }
        }
        let words: Vec<String> = unserved.iter().map(ToString::to_string).collect();
        Err(Fault::new(Reason::UnservedType, words.join("; ")))
    }

    /// Whether a coordinator has made a group for this, or found one that serves it by now.
    async fn provisioned(&self, onward: &Onward, wanted: &Wanted) -> Result<bool, Fault> {
        if wanted.group.is_some()
            || has_template(&wanted.kind).is_none()
            || self.coordinators.addresses().is_empty()
        {
            return Ok(false);
        }
        let request = wire::PlaceTaskRequest {
            r#type: wanted.kind.clone(),
            ..wire::PlaceTaskRequest::default()
        };
        match self.place_task(onward, request).await.map_err(Fault::from) {
            Ok(_) => Ok(true),
            Err(fault) if fault.reason == Reason::UnservedType => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}
