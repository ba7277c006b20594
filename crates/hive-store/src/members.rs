//! Members of a group: join, attach, leave, and what each of them holds.

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::ReadLane,
    keys::{GroupKey, Shard},
    lane::{Lane, LaneRef},
    lease::Lease,
    reply,
    scripts::{CONSUMER_FORGET, Call, HELD_EXPIRE, HELD_MOVE, JOIN, LEAVE, WAITING_EXPIRE},
};

/// Entries read per step where a consumer's holdings are walked.
const WALK: u64 = 1_000;
/// Messages looked at per step for their time to live: the script reads their payloads, which may
/// be a megabyte each.
const EXPIRE_LIMIT: u64 = 50;
/// Owners whose names begin so are places, not consumers.
pub const PLACEHOLDER: char = '~';
/// Owner of what waits for another message of its ordering key.
pub const PARKED: &str = "~ordered";

/// How a consumer gets its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Over a Consume stream.
    Stream,
    /// By Fetch or REST.
    Pull,
}

/// Who joins.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    /// The group.
    pub group: &'a str,
    /// Id of the consumer.
    pub consumer: &'a str,
    /// Its session: 24 hex digits, newly minted for a first join.
    pub session: &'a str,
    /// Set where the session was answered by an earlier join: the one that it gets, newly minted,
    /// where its own is no member any more.
    pub resume: Option<&'a str>,
    /// How it gets its work.
    pub kind: Kind,
    /// The gateway's incarnation; `-` for a pull consumer.
    pub gateway: &'a str,
    /// How many it works on at once.
    pub concurrency: u32,
    /// Sorted capabilities.
    pub capabilities: &'a [String],
    /// Most members of the group.
    pub max_consumers: u32,
    /// The lease that it is told, in ms.
    pub lease_ms: u64,
    /// The pod that it runs in, `<namespace>/<name>` without blanks; empty for none.
    pub pod: &'a str,
}

/// Answer of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// A member; `resumed` when the session was there before.
    Member {
        /// Its session: another one than was asked for where that is no member any more.
        session: String,
        /// Number of this connection.
        attach: u64,
        /// Whether the session was there before.
        resumed: bool,
    },
    /// The group has its limit of members.
    Full(u64),
    /// A pull call for a consumer that is attached by stream.
    AttachedByStream,
    /// The name is another session's by now.
    SessionLost,
    /// The group is absent or being deleted.
    Gone,
}

/// Answer of a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Gone.
    Done,
    /// Another session or connection has the name, or it called meanwhile.
    Fenced,
    /// It was no member.
    Absent,
}

/// A member as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Id of the consumer.
    pub consumer: String,
    /// Its session.
    pub session: String,
    /// Number of its connection; 0 for a pull consumer.
    pub attach: u64,
    /// How it gets its work.
    pub kind: Kind,
    /// Incarnation of its gateway; `-` for a pull consumer.
    pub gateway: String,
    /// How many it works on at once.
    pub concurrency: u32,
    /// Its last join or fetch, in ms since 1970.
    pub last_ms: u64,
    /// Sorted capabilities.
    pub capabilities: Vec<String>,
    /// The lease that it was told when it joined, in ms; 0 where an older build wrote its row.
    pub lease_ms: u64,
    /// The pod that it runs in, `<namespace>/<name>`; empty for none.
    pub pod: String,
}

/// An entry that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Position of the lane in the caller's list.
    pub lane: usize,
    /// Id of the entry.
    pub id: String,
    /// Its owner: a consumer or a placeholder.
    pub owner: String,
    /// Since its last delivery or extension, in ms.
    pub idle_ms: u64,
    /// How often it was delivered.
    pub count: u64,
}

impl Pending {
    /// The lease that this is, as recovery names it.
    #[must_use]
    pub fn lease(&self, lanes: &[ReadLane], session: &str, delivered_ms: u64) -> Lease {
        Lease {
            lane: lanes
                .get(self.lane)
                .map(|lane| lane.reference.clone())
                .unwrap_or_default(),
            id: self.id.clone(),
            count: self.count,
            consumer: self.owner.as_str().into(),
            session: session.into(),
            delivered_ms,
            bytes: 0,
        }
    }
}

impl Store {
    /// Makes a consumer a member, or attaches a new connection of it.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn join(&self, shard: &Shard, joining: &Joining<'_>) -> Result<Joined, StoreError> {
        let mut call = Call::new(&JOIN);
        call.key(shard.groups())
            .key(shard.group(joining.group, GroupKey::Members));
        call.text(joining.group)
            .text(joining.consumer)
            .text(joining.session);
        call.flag(joining.resume.is_some());
        call.text(match joining.kind {
            Kind::Stream => "stream",
            Kind::Pull => "pull",
        });
        call.text(joining.gateway)
            .number(u64::from(joining.concurrency));
        if joining.capabilities.is_empty() {
            call.text("-");
        } else {
            call.text(joining.capabilities.join(","));
        }
        call.number(u64::from(joining.max_consumers))
            .number(joining.lease_ms)
            .number(0);
        call.text(if joining.pod.is_empty() {
            "-"
        } else {
            joining.pod
        });
        call.text(joining.resume.unwrap_or("-"));
        let (word, parts) = reply::status("join", self.run_safely(Purpose::Control, call).await?)?;
        let mut parts = parts.into_iter();
        let mut next = || parts.next().ok_or_else(|| StoreError::reply("join"));
        match word.as_str() {
            "JOINED" | "RESUMED" => Ok(Joined::Member {
                session: next()?.text()?,
                attach: next()?.number()?,
                resumed: word == "RESUMED",
            }),
            "FULL" => Ok(Joined::Full(next()?.number()?)),
            "ATTACHED" => Ok(Joined::AttachedByStream),
            "LOST" => Ok(Joined::SessionLost),
            "GONE" => Ok(Joined::Gone),
            _ => Err(StoreError::reply("join")),
        }
    }

    /// Ends a membership. `session` `*` and `attach` 0 stand for whichever is there. What the
    /// consumer holds is the caller's to give back first; the sweep finds the rest.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn leave(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        who: (&str, &str, u64),
    ) -> Result<Leaving, StoreError> {
        self.leave_from(shard, group, lanes, (who, 0)).await
    }

    /// Ends a membership as [`Store::leave`] does, if it is still the one that was read: not where
    /// its consumer joined or fetched since.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn leave_silent(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        seen: &Member,
    ) -> Result<Leaving, StoreError> {
        let who = (seen.consumer.as_str(), seen.session.as_str(), seen.attach);
        self.leave_from(shard, group, lanes, (who, seen.last_ms))
            .await
    }

    async fn leave_from(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        (who, last_ms): ((&str, &str, u64), u64),
    ) -> Result<Leaving, StoreError> {
        let (consumer, session, attach) = who;
        let mut call = Call::new(&LEAVE);
        call.key(shard.group(group, GroupKey::Members));
        for lane in lanes {
            call.key(&lane.stream);
        }
        call.text(group).text(consumer).text(session).number(attach);
        call.number(last_ms);
        let (word, _) = reply::status("leave", self.run_safely(Purpose::Control, call).await?)?;
        match word.as_str() {
            "LEFT" => Ok(Leaving::Done),
            "FENCED" => Ok(Leaving::Fenced),
            "ABSENT" => Ok(Leaving::Absent),
            _ => Err(StoreError::reply("leave")),
        }
    }

    /// Removes the Redis consumer of a name that is no member and holds nothing in a lane.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_consumer(
        &self,
        shard: &Shard,
        group: &str,
        lane: &ReadLane,
        consumer: &str,
    ) -> Result<bool, StoreError> {
        let mut call = Call::new(&CONSUMER_FORGET);
        call.key(shard.group(group, GroupKey::Members))
            .key(&lane.stream);
        call.text(group).text(consumer);
        let value = self.run_safely(Purpose::Control, call).await?;
        Ok(reply::status("consumer_forget", value)?.0 == "FORGOTTEN")
    }

    /// Names of the Redis consumers of a lane, placeholders included.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn lane_consumers(
        &self,
        group: &str,
        lane: &ReadLane,
    ) -> Result<Vec<String>, StoreError> {
        let mut info = Cmd::new();
        info.arg("XINFO")
            .arg("CONSUMERS")
            .arg(&lane.stream)
            .arg(group);
        let mut names = Vec::new();
        for consumer in self.command(Purpose::Control, info).await?.list()? {
            let mut fields = consumer.list()?.into_iter();
            let _ = fields.next();
            names.push(
                fields
                    .next()
                    .ok_or_else(|| StoreError::reply("XINFO"))?
                    .text()?,
            );
        }
        Ok(names)
    }

    /// All members of a group, by id.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn members(&self, shard: &Shard, group: &str) -> Result<Vec<Member>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL")
            .arg(shard.group(group, GroupKey::Members));
        let rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        let mut members = rows
            .iter()
            .map(|(consumer, row)| {
                parse_member(consumer, row).ok_or_else(|| StoreError::Corrupt {
                    what: format!("member `{consumer}` of group `{group}`"),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        members.sort_by(|a, b| a.consumer.cmp(&b.consumer));
        Ok(members)
    }

    /// One member.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn member(
        &self,
        shard: &Shard,
        group: &str,
        consumer: &str,
    ) -> Result<Option<Member>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET")
            .arg(shard.group(group, GroupKey::Members))
            .arg(consumer);
        let row = self.command(Purpose::Control, read).await?.maybe_text()?;
        row.map(|row| {
            parse_member(consumer, &row).ok_or_else(|| StoreError::Corrupt {
                what: format!("member `{consumer}` of group `{group}`"),
            })
        })
        .transpose()
    }

    /// Which of these groups a consumer is a member of.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn groups_of_consumer(
        &self,
        shard: &Shard,
        groups: &[String],
        consumer: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut pipeline = Pipeline::new();
        for group in groups {
            pipeline
                .cmd("HEXISTS")
                .arg(shard.group(group, GroupKey::Members))
                .arg(consumer);
        }
        let mut found = Vec::new();
        for (group, answer) in groups
            .iter()
            .zip(self.pipeline(Purpose::Control, pipeline).await?)
        {
            if answer.number()? == 1 {
                found.push(group.clone());
            }
        }
        Ok(found)
    }

    /// Everything that one consumer holds in the given lanes, by lane, then id.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn held_by(
        &self,
        group: &str,
        lanes: &[ReadLane],
        consumer: &str,
    ) -> Result<Vec<Pending>, StoreError> {
        let mut found = Vec::new();
        for lane in 0..lanes.len() {
            let mut cursor = "-".to_owned();
            loop {
                let page = self
                    .pending(group, lanes, lane, (&cursor, WALK), Some(consumer))
                    .await?;
                let Some(last) = page.last() else { break };
                cursor = format!("({}", last.id);
                found.extend(page);
            }
        }
        Ok(found)
    }

    /// One page of what is delivered and unsettled in a lane, from a cursor on (`-`, or `(id`).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn pending(
        &self,
        group: &str,
        lanes: &[ReadLane],
        lane: usize,
        from: (&str, u64),
        consumer: Option<&str>,
    ) -> Result<Vec<Pending>, StoreError> {
        let Some(read) = lanes.get(lane) else {
            return Ok(Vec::new());
        };
        let mut command = Cmd::new();
        command
            .arg("XPENDING")
            .arg(&read.stream)
            .arg(group)
            .arg(from.0)
            .arg("+")
            .arg(from.1);
        if let Some(consumer) = consumer {
            command.arg(consumer);
        }
        let rows = match self.command(Purpose::Control, command).await {
            Err(StoreError::Lost { what }) => {
                return Err(StoreError::Lost {
                    what: format!("lane `{}`: {what}", read.reference),
                });
            },
            other => other?.list()?,
        };
        rows.into_iter()
            .map(|row| {
                let [id, owner, idle, count] = row.array()?;
                Ok(Pending {
                    lane,
                    id: id.text()?,
                    owner: owner.text()?,
                    idle_ms: idle.number()?,
                    count: count.number()?,
                })
            })
            .collect()
    }

    /// Moves direct messages that waited for this consumer into its group's direct lanes; answers
    /// how many.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn move_held(
        &self,
        shard: &Shard,
        group: &str,
        consumer: &str,
        all: &[LaneRef],
    ) -> Result<u64, StoreError> {
        const LIMIT: u64 = 100;
        let mut moved = 0;
        for held in all
            .iter()
            .filter(|lane| lane.is_held() && lane.lane.consumer == consumer)
        {
            let target = LaneRef {
                group: group.to_owned(),
                lane: Lane {
                    ..held.lane.clone()
                },
            };
            loop {
                let mut call = Call::new(&HELD_MOVE);
                call.key(shard.groups()).key(shard.lanes());
                call.key(shard.group(group, GroupKey::Counters));
                call.key(shard.lane(held)).key(shard.lane(&target));
                call.key(shard.sizes());
                call.text(group).text(target.to_string()).number(LIMIT);
                call.text(held.to_string());
                let value = self.run_safely(Purpose::Control, call).await?;
                let (word, parts) = reply::status("held_move", value)?;
                if word != "OK" {
                    break;
                }
                let count: u64 = reply::detail("held_move", parts)?
                    .parse()
                    .unwrap_or_default();
                moved += count;
                if count == 0 {
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Dead-letters, in one slice of a held lane, direct messages that no consumer came for in
    /// time; answers how many, and where the next slice begins (`-` at first), none at the end.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn expire_held(
        &self,
        shard: &Shard,
        held: &LaneRef,
        from: &str,
    ) -> Result<(u64, Option<String>), StoreError> {
        let mut call = Call::new(&HELD_EXPIRE);
        call.key(shard.lane(held))
            .key(shard.dead())
            .key(shard.sizes());
        call.text(held.to_string()).text(from);
        call.number(EXPIRE_LIMIT).number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        expired("held_expire", value)
    }

    /// The same of never delivered messages in a lane that this group alone reads.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn expire_waiting(
        &self,
        shard: &Shard,
        group: &str,
        lane: &ReadLane,
        from: &str,
        (category, record): (&str, &[u8]),
    ) -> Result<(u64, Option<String>), StoreError> {
        let mut call = Call::new(&WAITING_EXPIRE);
        call.key(&lane.stream).key(shard.dead());
        call.key(shard.group(group, GroupKey::Counters))
            .key(shard.sizes());
        call.key(shard.tasks()).key(if lane.lane.lane.is_tracked() {
            shard.outcomes()
        } else {
            shard.settled()
        });
        call.text(group).text(&lane.reference).text(from);
        call.number(EXPIRE_LIMIT).text(category);
        call.bytes(Bytes::copy_from_slice(record));
        call.number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        expired("waiting_expire", value)
    }
}

fn expired(what: &'static str, value: Value) -> Result<(u64, Option<String>), StoreError> {
    let (_, parts) = reply::status(what, value)?;
    let [last, expired] = parts.try_into().map_err(|_error| StoreError::reply(what))?;
    let last = last.text()?;
    let next = (!last.is_empty()).then(|| format!("({last}"));
    Ok((expired.number()?, next))
}

pub(crate) fn parse_member(consumer: &str, row: &str) -> Option<Member> {
    let mut parts = row.split(' ');
    let (session, attach) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
    let kind = match parts.next()? {
        "stream" => Kind::Stream,
        "pull" => Kind::Pull,
        _ => return None,
    };
    let gateway = parts.next()?.to_owned();
    let (concurrency, last_ms) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let capabilities = match parts.next()? {
        "-" => Vec::new(),
        names => names.split(',').map(str::to_owned).collect(),
    };
    let lease_ms = match parts.next() {
        Some(lease) => lease.parse().ok()?,
        None => 0,
    };
    let pod = parts.next().filter(|pod| *pod != "-").unwrap_or_default();
    let consumer = consumer.to_owned();
    Some(Member {
        consumer,
        session,
        attach,
        kind,
        gateway,
        concurrency,
        last_ms,
        capabilities,
        lease_ms,
        pod: pod.to_owned(),
    })
}
