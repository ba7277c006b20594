//! How groups are scaled, as the coordinators keep it: one row a group, under an epoch.
//!
//! A coordinator that takes a group for its own claims it: the row gets the next epoch. What it
//! decides is stored under that epoch and its name; where either is another one by now it is
//! refused, so an old owner changes nothing, however late it writes. The state is the coordinator's
//! own: a row that cannot be read is left out where all are read, and claiming it mends it.
//!
//! A change is told on a channel ([`crate::bells::Line::Scaling`]) and noted as an event, both in
//! the step that stores it.

use std::collections::BTreeMap;

use redis::{Cmd, Pipeline};

use crate::{
    connection::{Purpose, Store},
    control::Put,
    error::StoreError,
    fetch::ReadLane,
    members::PLACEHOLDER,
    reply,
    scripts::{Call, SCALING_CLAIM, SCALING_WRITE},
};

/// Groups of one call of a script at most: more would hold up what others ask.
const GROUPS_MAX: usize = 200;
/// Bytes of state and events of one call, about: a group with more goes by itself.
const BYTES_MAX: usize = 256 * 1_024;
/// Events of one call at most; `scaling_write.lua` looks for as many where a call is repeated.
const CALL_EVENTS_MAX: usize = 256;
/// Longest state of a group, in bytes.
pub const STATE_MAX: usize = 32 * 1_024;
/// Most events of a write.
pub const EVENTS_MAX: usize = 16;
/// Longest event, in bytes.
pub const EVENT_MAX: usize = 8 * 1_024;
/// Events that are read at once at most.
const EVENTS_READ: u32 = 1_000;
/// The one row of the coordinators' configuration.
const CONFIG: &str = "config";

/// How a group is scaled, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalingRow {
    /// The group.
    pub group: String,
    /// Counts its owners from 1 on; above that it never goes back while the row exists.
    pub epoch: u64,
    /// The coordinator that claimed it last.
    pub owner: String,
    /// When it was decided last, in ms since 1970 by Redis' clock; 0 for never.
    pub decided_ms: u64,
    /// Consumers that the group is to have; none where nobody decided yet.
    pub desired: Option<u32>,
    /// Consumers that it would have without a shared ceiling.
    pub asked: u32,
    /// What the coordinator remembers of it: its own JSON; empty where nobody decided yet.
    pub state: String,
}

/// A decision to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalingWrite<'a> {
    /// The group.
    pub group: &'a str,
    /// The epoch under which it was decided.
    pub epoch: u64,
    /// Consumers that the group is to have.
    pub desired: u32,
    /// Consumers that it would have without a shared ceiling.
    pub asked: u32,
    /// What the coordinator remembers, at most [`STATE_MAX`] bytes.
    pub state: &'a str,
    /// What is noted for later readers: at most [`EVENTS_MAX`] of [`EVENT_MAX`] bytes each. Two
    /// that differ in nothing are one where nothing else changed between them, so an event says
    /// when it was.
    pub events: &'a [String],
}

impl Store {
    /// Makes `owner` the owner of how these groups are scaled; answers their rows in order. The
    /// epoch is the next one where the owner was another; a row that is the owner's stays as it is.
    ///
    /// # Errors
    /// As in `StoreError`; `Refused` when the owner is no word. After an error some of the groups
    /// may be claimed.
    pub async fn claim_scaling(
        &self,
        namespace: &str,
        groups: &[&str],
        owner: &str,
    ) -> Result<Vec<ScalingRow>, StoreError> {
        check_owner(owner)?;
        let key = self.control_keys().scaling(namespace);
        let mut claimed = Vec::with_capacity(groups.len());
        for groups in groups.chunks(GROUPS_MAX) {
            let mut call = Call::new(&SCALING_CLAIM);
            call.key(&*key).text(owner).number(0);
            for group in groups {
                call.text(group);
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            let (_, parts) = reply::status("scaling_claim", value)?;
            let [rows] = parts
                .try_into()
                .map_err(|_error| StoreError::reply("scaling_claim"))?;
            let rows = rows.list()?;
            if rows.len() != groups.len() {
                return Err(StoreError::reply("scaling_claim"));
            }
            for (group, row) in groups.iter().zip(rows) {
                let row = String::from_utf8_lossy(&row.bytes()?).into_owned();
                let row = parse_claimed(group, &row);
                claimed.push(row.ok_or_else(|| StoreError::reply("scaling_claim"))?);
            }
        }
        Ok(claimed)
    }

    /// Stores decisions of `owner`; answers for each whether it was, in order. One that was not is
    /// fenced: the row is gone, of another epoch or of another owner, and nothing of it changed.
    /// The time of the decision is Redis'; where `desired` changed it is told on the channel.
    ///
    /// # Errors
    /// As in `StoreError`; `Refused` when a write is larger than it may be: nothing was stored
    /// then. After another error some may be stored; to write again is safe.
    pub async fn write_scaling(
        &self,
        namespace: &str,
        owner: &str,
        writes: &[ScalingWrite<'_>],
    ) -> Result<Vec<bool>, StoreError> {
        check_owner(owner)?;
        for write in writes {
            check_write(write)?;
        }
        let keys = self.control_keys();
        let (scaling, events) = (keys.scaling(namespace), keys.scaling_events(namespace));
        let mut written = Vec::with_capacity(writes.len());
        for writes in in_calls(writes) {
            let mut call = Call::new(&SCALING_WRITE);
            call.key(&*scaling).key(&*events).text(owner).number(0);
            for write in writes {
                call.text(write.group).number(write.epoch);
                call.number(u64::from(write.desired));
                call.number(u64::from(write.asked)).text(write.state);
                call.count(write.events.len());
                for event in write.events {
                    call.text(event);
                }
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            let (_, parts) = reply::status("scaling_write", value)?;
            let verdicts = reply::detail("scaling_write", parts)?;
            if verdicts.len() != writes.len() {
                return Err(StoreError::reply("scaling_write"));
            }
            written.extend(verdicts.bytes().map(|verdict| verdict == b'w'));
        }
        Ok(written)
    }

    /// How the groups of a namespace are scaled, by group. Rows that cannot be read are left out:
    /// [`Store::scaling_row`] says so of one.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn scaling_rows(
        &self,
        namespace: &str,
    ) -> Result<BTreeMap<String, ScalingRow>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL")
            .arg(self.control_keys().scaling(namespace));
        let mut texts = self
            .command(Purpose::Control, read)
            .await?
            .list()?
            .into_iter();
        let mut rows = BTreeMap::new();
        while let (Some(group), Some(row)) = (texts.next(), texts.next()) {
            let (Ok(group), Ok(row)) = (group.text(), row.text()) else {
                continue;
            };
            if let Some(row) = parse(&group, &row) {
                rows.insert(group, row);
            }
        }
        Ok(rows)
    }

    /// How one group is scaled; none where no coordinator claimed it yet.
    ///
    /// # Errors
    /// As in `StoreError`; `Corrupt` when the row cannot be read.
    pub async fn scaling_row(
        &self,
        namespace: &str,
        group: &str,
    ) -> Result<Option<ScalingRow>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET")
            .arg(self.control_keys().scaling(namespace))
            .arg(group);
        let row = self.command(Purpose::Control, read).await?.maybe_bytes()?;
        row.map(|row| {
            let row = String::from_utf8(row).ok();
            row.and_then(|row| parse(group, &row))
                .ok_or_else(|| StoreError::Corrupt {
                    what: format!("scaling of group `{group}`"),
                })
        })
        .transpose()
    }

    /// Removes the rows of groups that are no more. Who still writes of one is fenced, and so is
    /// who claimed it under the same name meanwhile: that one claims again.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_scaling(&self, namespace: &str, groups: &[&str]) -> Result<(), StoreError> {
        let key = self.control_keys().scaling(namespace);
        for groups in groups.chunks(GROUPS_MAX) {
            let mut forget = Cmd::new();
            forget.arg("HDEL").arg(&*key).arg(groups);
            self.command(Purpose::Control, forget).await?;
        }
        Ok(())
    }

    /// Id and JSON of what was noted of the scaling of a namespace, newest first: at most `limit`
    /// (1 to 1,000) before the id that an earlier call answered. The last 10,000 are kept.
    ///
    /// # Errors
    /// As in `StoreError`; `Refused` when `before` is no id.
    pub async fn scaling_events(
        &self,
        namespace: &str,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let from = before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let mut read = Cmd::new();
        read.arg("XREVRANGE")
            .arg(self.control_keys().scaling_events(namespace))
            .arg(from)
            .arg("-")
            .arg("COUNT")
            .arg(limit.clamp(1, EVENTS_READ));
        let entries = self.command(Purpose::Control, read).await?.list()?;
        entries
            .into_iter()
            .map(|entry| {
                let (id, event) = entry.entry()?;
                let event = String::from_utf8(event).map_err(|_error| StoreError::Corrupt {
                    what: format!("event `{id}` of the scaling"),
                })?;
                Ok((id, event))
            })
            .collect()
    }

    /// What each consumer of a group holds in these lanes, by consumer; who holds nothing is
    /// missing. Cheaper than a walk over the entries: Redis keeps these counts.
    ///
    /// # Errors
    /// As in `StoreError`; `Lost` when a lane lacks the group.
    pub async fn held_counts(
        &self,
        group: &str,
        lanes: &[ReadLane],
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(lanes.len());
        for lane in lanes {
            pipeline.cmd("XPENDING").arg(&lane.stream).arg(group);
        }
        let mut counts = BTreeMap::new();
        if lanes.is_empty() {
            return Ok(counts);
        }
        for summary in self.pipeline(Purpose::Control, pipeline).await? {
            let [_count, _first, _last, owners] = summary.array()?;
            for owner in owners.list()? {
                let [name, count] = owner.array()?;
                let name = name.text()?;
                if !name.starts_with(PLACEHOLDER) {
                    *counts.entry(name).or_default() += count.number()?;
                }
            }
        }
        Ok(counts)
    }

    /// The configuration of the coordinators with its version; none where nobody stored one.
    ///
    /// # Errors
    /// As in `StoreError`; `Corrupt` when the row cannot be read.
    pub async fn coordinator_config(&self) -> Result<Option<(u64, String)>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET")
            .arg(self.control_keys().coordinator_config())
            .arg(CONFIG);
        let row = self.command(Purpose::Control, read).await?.maybe_text()?;
        row.map(|row| {
            let parts = row.split_once(' ');
            let parts = parts.and_then(|(version, text)| Some((version.parse().ok()?, text)));
            let (version, text) = parts.ok_or_else(|| StoreError::Corrupt {
                what: "configuration of the coordinators".into(),
            })?;
            Ok((version, text.to_owned()))
        })
        .transpose()
    }

    /// Stores the configuration of the coordinators if its version is still `version` (0: there is
    /// none yet).
    ///
    /// # Errors
    /// As in `StoreError`; `Refused` when the text is empty or longer than [`STATE_MAX`] bytes.
    pub async fn put_coordinator_config(
        &self,
        version: u64,
        text: &str,
    ) -> Result<Put, StoreError> {
        if text.is_empty() || text.len() > STATE_MAX {
            let bytes = text.len();
            return Err(refused(format!(
                "a configuration of {bytes} bytes; it has 1 to {STATE_MAX}"
            )));
        }
        let key = self.control_keys().coordinator_config();
        self.put_text(key, CONFIG, version, text).await
    }
}

fn refused(detail: String) -> StoreError {
    StoreError::Refused { detail }
}

fn check_owner(owner: &str) -> Result<(), StoreError> {
    // `-` stands for nobody in the script.
    if owner.is_empty() || owner == "-" || owner.contains(char::is_whitespace) {
        return Err(refused(format!(
            "owner `{owner}`: it is one word, and not `-`"
        )));
    }
    Ok(())
}

fn check_write(write: &ScalingWrite<'_>) -> Result<(), StoreError> {
    let (group, events) = (write.group, write.events.len());
    let state = write.state.len();
    if state > STATE_MAX {
        return Err(refused(format!(
            "the state of group `{group}` has {state} bytes; at most {STATE_MAX}"
        )));
    }
    if events > EVENTS_MAX {
        return Err(refused(format!(
            "{events} events of group `{group}` at once; at most {EVENTS_MAX}"
        )));
    }
    if let Some(event) = write.events.iter().find(|event| event.len() > EVENT_MAX) {
        let bytes = event.len();
        return Err(refused(format!(
            "an event of group `{group}` has {bytes} bytes; at most {EVENT_MAX}"
        )));
    }
    Ok(())
}

/// The writes in calls of a bounded size.
fn in_calls<'a, 'b>(writes: &'a [ScalingWrite<'b>]) -> Vec<&'a [ScalingWrite<'b>]> {
    let mut calls = Vec::new();
    let (mut began, mut bytes, mut events) = (0, 0, 0);
    for (position, write) in writes.iter().enumerate() {
        let size: usize = write.state.len() + write.events.iter().map(String::len).sum::<usize>();
        let is_full = position - began == GROUPS_MAX
            || bytes + size > BYTES_MAX
            || events + write.events.len() > CALL_EVENTS_MAX;
        if is_full && position > began {
            calls.extend(writes.get(began..position));
            (began, bytes, events) = (position, 0, 0);
        }
        bytes += size;
        events += write.events.len();
    }
    calls.extend(writes.get(began..).filter(|rest| !rest.is_empty()));
    calls
}

/// Epoch, owner and what follows.
fn split(row: &str) -> Option<(u64, &str, &str)> {
    let (epoch, rest) = row.split_once(' ')?;
    let (owner, rest) = rest.split_once(' ')?;
    Some((epoch.parse().ok()?, owner, rest))
}

fn parse(group: &str, row: &str) -> Option<ScalingRow> {
    let (epoch, owner, rest) = split(row)?;
    let mut parts = rest.splitn(4, ' ');
    let decided_ms = parts.next()?.parse().ok()?;
    let desired = match parts.next()? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    Some(ScalingRow {
        group: group.to_owned(),
        epoch,
        owner: owner.to_owned(),
        decided_ms,
        desired,
        asked: parts.next()?.parse().ok()?,
        state: parts.next()?.to_owned(),
    })
}

/// A row that was claimed: where what another build wrote cannot be read, it is as if nobody had
/// decided yet, and the next write mends it.
fn parse_claimed(group: &str, row: &str) -> Option<ScalingRow> {
    parse(group, row).or_else(|| {
        let (epoch, owner, _) = split(row)?;
        Some(ScalingRow {
            group: group.to_owned(),
            epoch,
            owner: owner.to_owned(),
            decided_ms: 0,
            desired: None,
            asked: 0,
            state: String::new(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write<'a>(state: &'a str, events: &'a [String]) -> ScalingWrite<'a> {
        ScalingWrite {
            group: "g",
            epoch: 1,
            desired: 0,
            asked: 0,
            state,
            events,
        }
    }

    #[test]
    fn writes_are_cut_by_number_by_bytes_and_by_events() {
        let sizes = |writes: &[ScalingWrite<'_>]| -> Vec<usize> {
            in_calls(writes).iter().map(|call| call.len()).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![write("", &[]); 401]), [200, 200, 1]);
        let large = "x".repeat(STATE_MAX);
        assert_eq!(sizes(&vec![write(&large, &[]); 10]), [8, 2]);
        let events = vec![String::new(); EVENTS_MAX];
        assert_eq!(sizes(&vec![write("", &events); 17]), [16, 1]);
        let most = vec!["x".repeat(EVENT_MAX); EVENTS_MAX];
        assert_eq!(sizes(&[write(&large, &most); 2]), [1, 1]);
    }

    #[test]
    fn a_row_is_read_with_its_state_whatever_that_holds() {
        let row = parse("g", "7 c1 12 - 0 ").unwrap();
        assert_eq!((row.epoch, row.desired, &*row.state), (7, None, ""));
        let row = parse("g", "7 c1 12 3 4 {\"a\": \"b c\n\"}").unwrap();
        assert_eq!((row.decided_ms, row.desired, row.asked), (12, Some(3), 4));
        assert_eq!(row.state, "{\"a\": \"b c\n\"}");
        for other in ["", "7", "x c1 1 2 3 {}", "7 c1 1 -3 3 {}", "7 c1 1 2"] {
            assert_eq!(parse("g", other), None, "{other}");
        }
        let mended = parse_claimed("g", "7 c1 1 x 3 {}").unwrap();
        assert_eq!(
            (mended.epoch, mended.desired, mended.decided_ms),
            (7, None, 0)
        );
    }
}
