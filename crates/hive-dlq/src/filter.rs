//! Which dead letters a caller means: checked, and looked up by the index that narrows most.

use hive_domain::{
    dead_letter::{category::Category, plan, status::Status},
    violation::{Violations, quoted},
};
use hive_protocol::{time, wire};
use hive_store::{
    StoreError,
    letters::{Facts, Index, Letter, Letters, Order, Place},
};

use crate::desk::Desk;

/// Records that are read at once.
pub(crate) const PAGE: usize = 200;
/// Records that one look at most reads, whatever of them fits.
const READ_MAX: usize = 5_000;

/// Reads a filter.
///
/// # Errors
/// All violations.
pub(crate) fn read(filter: Option<wire::DeadLetterFilter>) -> Result<plan::Filter, Violations> {
    let asked = filter.unwrap_or_default();
    let mut faults = Violations::new();
    let category = if asked.category.is_empty() {
        None
    } else {
        let category = Category::parse(&asked.category);
        if category.is_none() {
            let words: Vec<&str> = Category::ALL.iter().map(|one| one.as_str()).collect();
            let given = quoted(&asked.category);
            let rule = format!("{given} must be one of {}", words.join(", "));
            faults.push("filter.category", rule);
        }
        category
    };
    let mut statuses = Vec::new();
    for status in asked.status() {
        match of_wire(status) {
            Some(status) => statuses.push(status),
            None => faults.push("filter.status", "must name states of dead letters"),
        }
    }
    let mut millis = |field: &str, at: Option<&prost_types::Timestamp>| {
        let at = at.map(|at| time::timestamp(field, at));
        at.and_then(|at| faults.take(at))
            .map_or(0, |at| at.as_millis())
    };
    let from_ms = millis("filter.from_time", asked.from_time.as_ref());
    let to_ms = millis("filter.to_time", asked.to_time.as_ref());
    let read = plan::Filter {
        category,
        group: asked.group,
        stream: asked.stream,
        status: statuses,
        fingerprint: asked.fingerprint,
        message_type: asked.message_type,
        workflow_id: asked.workflow_id,
        error_type: asked.error_type,
        from_ms,
        to_ms,
    };
    for one in read.validate().err().into_iter().flatten() {
        faults.push(format!("filter.{}", one.field), one.description);
    }
    faults.into_result()?;
    Ok(read)
}

/// A filter as callers see it.
pub(crate) fn shown(filter: &plan::Filter) -> wire::DeadLetterFilter {
    let time = |ms: u64| (ms > 0).then(|| time::to_timestamp(ms.into()));
    wire::DeadLetterFilter {
        category: filter.category.map_or(String::new(), |one| one.to_string()),
        group: filter.group.clone(),
        stream: filter.stream.clone(),
        status: filter
            .status
            .iter()
            .map(|one| to_wire(*one).into())
            .collect(),
        fingerprint: filter.fingerprint.clone(),
        message_type: filter.message_type.clone(),
        workflow_id: filter.workflow_id.clone(),
        error_type: filter.error_type.clone(),
        from_time: time(filter.from_ms),
        to_time: time(filter.to_ms),
    }
}

/// A status of the wire; none for what is not said.
pub(crate) const fn of_wire(status: wire::DeadLetterStatus) -> Option<Status> {
    use wire::DeadLetterStatus as W;
    match status {
        W::Unspecified => None,
        W::Quarantined => Some(Status::Quarantined),
        W::Analyzed => Some(Status::Analyzed),
        W::Replayable => Some(Status::Replayable),
        W::Replaying => Some(Status::Replaying),
        W::Replayed => Some(Status::Replayed),
        W::PermanentFailure => Some(Status::PermanentFailure),
        W::Archived => Some(Status::Archived),
    }
}

/// A status for the wire.
pub(crate) const fn to_wire(status: Status) -> wire::DeadLetterStatus {
    use wire::DeadLetterStatus as W;
    match status {
        Status::Quarantined => W::Quarantined,
        Status::Analyzed => W::Analyzed,
        Status::Replayable => W::Replayable,
        Status::Replaying => W::Replaying,
        Status::Replayed => W::Replayed,
        Status::PermanentFailure => W::PermanentFailure,
        Status::Archived => W::Archived,
    }
}

fn seen(facts: &Facts, status: Status) -> plan::Facts<'_> {
    plan::Facts {
        category: facts.category,
        group: &facts.group,
        stream: &facts.stream,
        status,
        fingerprint: &facts.fingerprint,
        message_type: &facts.message_type,
        workflow_id: &facts.workflow_id,
        error_type: &facts.error_type,
        at_ms: facts.dead_ms,
    }
}

/// Whether a record is meant.
pub(crate) fn fits(filter: &plan::Filter, letter: &Letter) -> bool {
    filter.matches(&seen(&letter.facts, letter.status))
}

/// The index with the fewest records that holds all that a filter means.
async fn narrowest(
    desk: &Desk,
    letters: &Letters,
    filter: &plan::Filter,
) -> Result<Index, StoreError> {
    let mut candidates = vec![Index::All];
    if let Some(category) = filter.category {
        candidates.push(Index::Category(category));
    }
    if let [status] = filter.status.as_slice() {
        candidates.push(Index::Status(*status));
    }
    let named = [
        Index::Group(filter.group.clone()),
        Index::Stream(filter.stream.clone()),
        Index::Fingerprint(filter.fingerprint.clone()),
        Index::Workflow(filter.workflow_id.clone()),
    ];
    candidates.extend(named.into_iter().filter(|index| !index.value().is_empty()));
    let range = (filter.from_ms, filter.to_ms);
    let mut best = (u64::MAX, Index::All);
    for index in candidates {
        let count = desk.store.count_letters(letters, &index, range).await?;
        if count < best.0 {
            best = (count, index);
        }
    }
    Ok(best.1)
}

/// A page of what a filter means.
#[derive(Debug)]
pub(crate) struct Page {
    /// Records, in the order asked for.
    pub(crate) found: Vec<Letter>,
    /// Behind which the next page begins; none at the end.
    pub(crate) next: Option<Place>,
}

/// Up to `limit` records behind a place. A page may be short, and not the last: what one look
/// reads is bounded.
pub(crate) async fn page(
    desk: &Desk,
    letters: &Letters,
    filter: &plan::Filter,
    (order, after): (Order, Option<Place>),
    limit: usize,
) -> Result<Page, StoreError> {
    let index = narrowest(desk, letters, filter).await?;
    let range = (filter.from_ms, filter.to_ms);
    let (mut found, mut after, mut looked_at) = (Vec::new(), after, 0_usize);
    loop {
        let places = desk
            .store
            .letter_ids(letters, &index, (order, after.as_ref()), range, PAGE)
            .await?;
        let is_end = places.len() < PAGE;
        let ids: Vec<String> = places.iter().map(|place| place.id.clone()).collect();
        let read = desk.store.read_letters(letters, &ids).await?;
        for (place, letter) in places.into_iter().zip(read) {
            if found.len() >= limit {
                return Ok(Page { found, next: after });
            }
            found.extend(letter.there().filter(|letter| fits(filter, letter)));
            after = Some(place);
        }
        looked_at = looked_at.saturating_add(PAGE);
        if is_end {
            return Ok(Page { found, next: None });
        }
        if found.len() >= limit || looked_at >= READ_MAX {
            return Ok(Page { found, next: after });
        }
    }
}

/// How many a filter means, up to `most`.
pub(crate) async fn count(
    desk: &Desk,
    letters: &Letters,
    filter: &plan::Filter,
    most: u64,
) -> Result<u64, StoreError> {
    let (mut total, mut after) = (0_u64, None);
    loop {
        let page = page(desk, letters, filter, (Order::Oldest, after), PAGE).await?;
        total = total.saturating_add(u64::try_from(page.found.len()).unwrap_or(u64::MAX));
        after = page.next;
        if total >= most || after.is_none() {
            return Ok(total.min(most));
        }
    }
}
