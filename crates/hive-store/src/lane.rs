//! Lanes: the Redis streams of a shard, told apart by what decides who may take an entry and how.
//!
//! A lane's name says its priority, whether its entries need a script on every step (`m` where they
//! are ordered, `t` where they are tasks of workflows, `r` where their outcome is kept), the
//! capabilities they require and the one consumer they are for: `p4`, `p9m`, `p4t`, `p4+cuda,gpu`,
//! `p4@agent-1`. Names of groups and consumers hold none of the characters `/ + , @ |`, so a name
//! is parsed without doubt.

use std::{fmt, str::FromStr};

/// What its entries are, and so who may read and settle them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneKind {
    /// Messages that ask for nothing: read plainly, and settled by the short script.
    Plain,
    /// Messages with an ordering key: only scripts read and settle them.
    Ordered,
    /// Tasks of workflows, each with a dispatch key: only scripts read and settle them, and what
    /// becomes of one is told to the router in the same step.
    Task,
    /// Tracked messages, each with a key made of its id: only scripts read and settle them, and
    /// what becomes of one is kept in the same step, for whoever asks.
    Tracked,
}

impl LaneKind {
    const fn letter(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Ordered => "m",
            Self::Task => "t",
            Self::Tracked => "r",
        }
    }
}

/// What a lane's entries have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// 0 (least urgent) to 9.
    pub priority: u8,
    /// What they are.
    pub kind: LaneKind,
    /// Required capabilities, sorted, with commas between; empty for none.
    pub capabilities: String,
    /// The one consumer it is for; empty for any.
    pub consumer: String,
}

impl Lane {
    /// The lane of messages that ask for nothing but a priority.
    #[must_use]
    pub fn plain(priority: u8) -> Self {
        Self {
            priority,
            kind: LaneKind::Plain,
            capabilities: String::new(),
            consumer: String::new(),
        }
    }

    /// The lane of tasks of workflows that require these capabilities, sorted, with commas between.
    #[must_use]
    pub fn of_tasks(priority: u8, capabilities: &str) -> Self {
        Self {
            priority,
            kind: LaneKind::Task,
            capabilities: capabilities.to_owned(),
            consumer: String::new(),
        }
    }

    /// Whether only scripts read and settle its entries.
    #[must_use]
    pub fn is_scripted(&self) -> bool {
        self.kind != LaneKind::Plain
    }

    /// Whether its entries have ordering keys.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.kind == LaneKind::Ordered
    }

    /// Whether its entries are tasks of workflows.
    #[must_use]
    pub fn is_of_tasks(&self) -> bool {
        self.kind == LaneKind::Task
    }

    /// Whether what becomes of its entries is kept.
    #[must_use]
    pub fn is_tracked(&self) -> bool {
        self.kind == LaneKind::Tracked
    }

    /// What tells its ready set from others: capabilities and consumer.
    #[must_use]
    pub fn suffix(&self) -> String {
        let mut text = String::new();
        if !self.capabilities.is_empty() {
            text.push('+');
            text.push_str(&self.capabilities);
        }
        if !self.consumer.is_empty() {
            text.push('@');
            text.push_str(&self.consumer);
        }
        text
    }

    /// Whether a consumer may take its entries. `capabilities` are sorted.
    #[must_use]
    pub fn serves(&self, consumer: &str, capabilities: &[String]) -> bool {
        (self.consumer.is_empty() || self.consumer == consumer)
            && (self.capabilities.is_empty()
                || self.capabilities.split(',').all(|wanted| {
                    capabilities
                        .binary_search_by(|have| have.as_str().cmp(wanted))
                        .is_ok()
                }))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p{}{}{}",
            self.priority,
            self.kind.letter(),
            self.suffix()
        )
    }
}

/// A text that is not a lane's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a lane")]
pub struct NotALane(pub String);

impl FromStr for Lane {
    type Err = NotALane;

    fn from_str(text: &str) -> Result<Self, NotALane> {
        let wrong = || NotALane(text.to_owned());
        let rest = text.strip_prefix('p').ok_or_else(wrong)?;
        let mut characters = rest.chars();
        let priority = characters
            .next()
            .and_then(|c| c.to_digit(10))
            .ok_or_else(wrong)?;
        let rest = characters.as_str();
        let (kind, rest) = match rest.split_at_checked(1) {
            Some(("m", rest)) => (LaneKind::Ordered, rest),
            Some(("t", rest)) => (LaneKind::Task, rest),
            Some(("r", rest)) => (LaneKind::Tracked, rest),
            Some(_) | None => (LaneKind::Plain, rest),
        };
        let (rest, consumer) = rest.split_once('@').unwrap_or((rest, ""));
        let capabilities = match rest.strip_prefix('+') {
            Some(names) if !names.is_empty() => names,
            Some(_) => return Err(wrong()),
            None if rest.is_empty() => "",
            None => return Err(wrong()),
        };
        Ok(Self {
            priority: u8::try_from(priority).map_err(|_error| wrong())?,
            kind,
            capabilities: capabilities.to_owned(),
            consumer: consumer.to_owned(),
        })
    }
}

/// Whether a ref names a lane of tasks: what `LaneRef` would say, without reading all of it.
#[must_use]
pub fn names_tasks(reference: &str) -> bool {
    names_kind(reference, b't')
}

/// Whether a ref names a lane of tracked messages: what `LaneRef` would say, without reading all of
/// it.
#[must_use]
pub fn names_tracked(reference: &str) -> bool {
    names_kind(reference, b'r')
}

fn names_kind(reference: &str, letter: u8) -> bool {
    let lane = reference.split_once('/').map_or("", |(_, lane)| lane);
    matches!(lane.as_bytes(), [b'p', digit, kind, ..]
        if digit.is_ascii_digit() && *kind == letter)
}

/// A lane and whose it is: of one group, or (with an empty group) of all groups of the stream.
///
/// A lane of all groups that names a consumer holds direct messages whose consumer no group has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneRef {
    /// Name of the group, or empty.
    pub group: String,
    /// The lane.
    pub lane: Lane,
}

impl LaneRef {
    /// A lane that every group reads.
    #[must_use]
    pub fn of_all(lane: Lane) -> Self {
        Self {
            group: String::new(),
            lane,
        }
    }

    /// A lane that one group reads.
    #[must_use]
    pub fn of_group(group: &str, lane: Lane) -> Self {
        Self {
            group: group.to_owned(),
            lane,
        }
    }

    /// Whether it holds messages for a consumer that no group has.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.group.is_empty() && !self.lane.consumer.is_empty()
    }

    /// Whether a group reads it.
    #[must_use]
    pub fn is_read_by(&self, group: &str) -> bool {
        self.group == group || (self.group.is_empty() && self.lane.consumer.is_empty())
    }
}

impl fmt::Display for LaneRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.lane)
    }
}

impl FromStr for LaneRef {
    type Err = NotALane;

    fn from_str(text: &str) -> Result<Self, NotALane> {
        let (group, lane) = text
            .split_once('/')
            .ok_or_else(|| NotALane(text.to_owned()))?;
        Ok(Self {
            group: group.to_owned(),
            lane: lane.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_back_from_its_name() {
        for text in [
            "g/p4",
            "/p9m",
            "g/p0+gpu",
            "g/p4m+cuda,gpu@agent-1",
            "g/p4t",
            "g/p4t+gpu",
            "g/p4r+gpu@a",
            "/p4@a.b:c",
        ] {
            let lane: LaneRef = text.parse().expect("a lane");
            assert_eq!(lane.to_string(), text);
        }
    }

    #[test]
    fn a_lane_of_tasks_is_known_by_its_name() {
        for text in [
            "g/p4t",
            "g/p9t+gpu",
            "g/p4",
            "g/p4m",
            "g/p4+t",
            "t/p4@p4t",
            "g/p4r",
            "g/p9r@a",
        ] {
            let lane: LaneRef = text.parse().expect("a lane");
            assert_eq!(names_tasks(text), lane.lane.is_of_tasks(), "{text}");
            assert_eq!(names_tracked(text), lane.lane.is_tracked(), "{text}");
        }
        assert!(!names_tasks("p4t"));
    }

    #[test]
    fn a_text_that_is_no_lane_is_refused() {
        for text in [
            "p4", "g/4", "g/p", "g/px", "g/p4+", "g/p4x", "g/p4mt", "g/p4ü",
        ] {
            assert!(text.parse::<LaneRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_consumer_without_the_capabilities_is_not_served() {
        let lane: Lane = "p4+cuda,gpu".parse().expect("a lane");
        let both = ["cuda".to_owned(), "gpu".to_owned()];
        assert!(lane.serves("a", &both));
        assert!(!lane.serves("a", &both[..1]));
        assert!(!"p4@b".parse::<Lane>().expect("a lane").serves("a", &both));
    }
}
