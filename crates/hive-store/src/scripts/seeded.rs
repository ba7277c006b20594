//! Deliberate bugs for the self-test of the history checker; a release build holds none of this.
//!
//! A debug build that is started with `HIVE_SEEDED_BUG=<name>` serves one script with one line
//! changed, or takes one wrong turn in Rust. The fault tests start daemons so and demand that the
//! checker finds the bug: a checker that finds nothing proves nothing. Each bug is one that
//! somebody makes who takes a shortcut through the rules of the scripts.

use std::borrow::Cow;

/// Environment variable that names the bug of this process.
pub const VARIABLE: &str = "HIVE_SEEDED_BUG";
/// A consumer group reads the lane for all groups, also for a message of one group.
pub const SHARED_LANE: &str = "shared_lane";
/// A lost bell is never made up for by a poll.
pub const NO_POLL: &str = "no_poll";

/// One changed line of a script.
#[cfg(debug_assertions)]
#[derive(Debug)]
pub struct Patch {
    /// Name of the bug.
    pub bug: &'static str,
    /// The script that it is in.
    pub script: &'static str,
    /// What stands there.
    pub find: &'static str,
    /// What is served instead.
    pub replace: &'static str,
}

/// Every bug that is a changed script.
#[cfg(debug_assertions)]
pub const PATCHES: &[Patch] = &[
    Patch {
        bug: "plain_xack",
        script: "ack",
        find: "elseif not fresh or counts[id] ~= 1 then",
        replace: "elseif false then",
    },
    Patch {
        bug: "maxlen_trim",
        script: "publish",
        find: "redis.call('XADD', stream, '*', 'm', add.body)",
        replace: "redis.call('XADD', stream, 'MAXLEN', 20, '*', 'm', add.body)",
    },
    Patch {
        bug: "two_step_dead_lettering",
        script: "settle",
        find: "  redis.call('XADD', KEYS[7], '*', 'm', body or '', 'group', group, 'lane', \
               lane.ref, 'id', id,\n    'count', count, 'category', category, 'record', record, \
               'failures', failures or '')",
        replace: "  if redis.call('HSETNX', KEYS[6], 'dying', id) == 1 then\n    \
                  redis.call('XADD', KEYS[7], '*', 'm', body or '', 'group', group, 'lane', \
                  lane.ref, 'id', id, 'count', count, 'category', category, 'record', record, \
                  'failures', failures or '')\n    return 'k'\n  end\n  \
                  redis.call('HDEL', KEYS[6], 'dying')",
    },
    Patch {
        bug: "no_dedup",
        script: "publish",
        find: "    if found then",
        replace: "    if false then",
    },
    Patch {
        bug: "no_session_fence",
        script: "leave",
        find: "if ARGV[3] ~= '*' and ARGV[3] ~= session or",
        replace: "if",
    },
    Patch {
        bug: "no_attach_check",
        script: "leave",
        find: " or ARGV[4] ~= '0' and ARGV[4] ~= attach then",
        replace: " then",
    },
    Patch {
        bug: "group_at_end",
        script: "group_create",
        find: "local backlog, from = 0, '0'",
        replace: "local backlog, from = 0, '$'",
    },
    Patch {
        bug: "lane_without_its_group",
        script: "publish",
        find: "redis.call('XGROUP', 'CREATE', stream, name, '0', 'MKSTREAM')",
        replace: "if lane.base then redis.call('XGROUP', 'CREATE', stream, name, '0') end",
    },
    Patch {
        bug: "delconsumer_with_entries",
        script: "leave",
        find: "  if #rows == 0 then",
        replace: "  if rows then",
    },
    Patch {
        bug: "expiry_keeps_owner",
        script: "settle",
        find: "redis.call('XCLAIM', lane.key, group, '~ready', 0, id, 'JUSTID')",
        replace: "",
    },
    Patch {
        bug: "flush_without_number",
        script: "publish",
        find: "if stored then",
        replace: "if false then",
    },
    Patch {
        bug: "no_allow_oom",
        script: "ack",
        find: "#!lua flags=allow-oom",
        replace: "#!lua",
    },
];

/// The source of a script as this process serves it.
#[cfg(debug_assertions)]
pub(super) fn served(script: &str, source: &'static str) -> Cow<'static, str> {
    let mine = |patch: &&Patch| patch.script == script && is(patch.bug);
    match PATCHES.iter().find(mine) {
        Some(patch) => Cow::Owned(source.replacen(patch.find, patch.replace, 1)),
        None => Cow::Borrowed(source),
    }
}

/// The source of a script as this process serves it.
#[cfg(not(debug_assertions))]
pub(super) const fn served(_script: &str, source: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(source)
}

/// Whether this process was started with this bug.
#[cfg(debug_assertions)]
#[must_use]
pub fn is(bug: &str) -> bool {
    static SEEDED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());
    SEEDED.as_deref() == Some(bug)
}

/// Whether this process was started with this bug: a release build never is.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn is(_bug: &str) -> bool {
    false
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::{super::ALL, PATCHES};

    #[test]
    fn each_bug_changes_one_place_of_its_script() {
        for patch in PATCHES {
            let script = ALL.iter().find(|script| script.name == patch.script);
            let source = script.expect("a script of this name").source;
            assert_eq!(source.matches(patch.find).count(), 1, "{}", patch.bug);
        }
    }
}
