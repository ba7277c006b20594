//! A ceiling that all groups share: what each of them gets of it.
//!
//! Every owner divides by the same rows, and writes its own. A share moves only where that is worth
//! a start or a drain, and more is taken only of what the others' rows leave free: so shares that
//! differ by a message start nobody and send nobody away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hive_domain::scaling::{self, Want};
use hive_store::StoreError;

use super::state::{self, State};
use super::step::Look;
use crate::desk::Desk;
use crate::roster::{GroupName, Roster};

/// How long what was read of all groups serves.
const FRESH: Duration = Duration::from_secs(1);
/// A share falls where it is less than it was by more than one part in so many.
const MARGIN: u32 = 10;

/// What is granted, and why not all that was asked for.
pub(super) type Granted = (u32, Option<String>);

/// What all groups want, as of a moment ago.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    read: Option<Instant>,
    /// By `namespace/group`: what it wants, and what it was granted.
    wants: BTreeMap<String, (Want, u32)>,
}

impl Ceiling {
    /// What each of these groups gets.
    ///
    /// # Errors
    /// What Redis says.
    pub(super) async fn granted(
        &mut self,
        desk: &Desk,
        roster: &Roster,
        looks: &[Look],
    ) -> Result<BTreeMap<GroupName, Granted>, StoreError> {
        let options = desk.options();
        let ceiling = options.max_total_consumers;
        if ceiling == 0 {
            let whole = looks
                .iter()
                .map(|look| (look.name.clone(), (look.asked, None)));
            return Ok(whole.collect());
        }
        self.read(desk, roster).await?;
        for look in looks {
            let key = look.name.to_string();
            let want = state::want(key.clone(), &look.definition, look.asked, &look.state);
            let had = self.wants.get(&key).map_or(0, |(_, had)| *had);
            self.wants.insert(key, (want, had));
        }
        let wants: Vec<Want> = self.wants.values().map(|(want, _)| want.clone()).collect();
        let mut shares: BTreeMap<String, Granted> =
            scaling::divide(options.allocation_mode, ceiling, &wants)
                .into_iter()
                .map(|grant| (grant.group, (grant.granted, grant.reason)))
                .collect();
        let mut granted = BTreeMap::new();
        for look in looks {
            let key = look.name.to_string();
            let (share, why) = shares.remove(&key).unwrap_or_default();
            let taken: u64 = self.wants.values().map(|(_, had)| u64::from(*had)).sum();
            let Some((_, had)) = self.wants.get_mut(&key) else {
                continue;
            };
            let now = settled(*had, look.asked, share, free(ceiling, taken));
            *had = now;
            granted.insert(look.name.clone(), (now, why.filter(|_| now < look.asked)));
        }
        Ok(granted)
    }

    async fn read(&mut self, desk: &Desk, roster: &Roster) -> Result<(), StoreError> {
        if self.read.is_some_and(|read| read.elapsed() < FRESH) {
            return Ok(());
        }
        let mut wants = BTreeMap::new();
        for (namespace, groups) in &roster.groups {
            let is_scaled = groups
                .values()
                .any(|group| group.settings.auto_scale_enabled);
            if !is_scaled {
                continue;
            }
            let rows = desk.store.scaling_rows(namespace).await?;
            for (name, group) in groups {
                if !group.settings.auto_scale_enabled {
                    continue;
                }
                let key = format!("{namespace}/{name}");
                let row = rows.get(&**name).filter(|row| row.decided_ms > 0);
                let one = match row {
                    Some(row) => {
                        let state = state::of_row(row);
                        let want = state::want(key.clone(), group, row.asked, &state);
                        (want, row.desired.unwrap_or_default())
                    },
                    // Nothing was decided of it yet: its least is kept for it.
                    None => {
                        let min = group.settings.min_consumers;
                        (state::want(key.clone(), group, min, &State::default()), 0)
                    },
                };
                wants.insert(key, one);
            }
        }
        self.wants = wants;
        self.read = Some(Instant::now());
        Ok(())
    }
}

/// What is left of a ceiling; negative where more is granted than there is.
fn free(ceiling: u32, taken: u64) -> i64 {
    i64::from(ceiling).saturating_sub(i64::try_from(taken).unwrap_or(i64::MAX))
}

/// What a group has from now on that had `had`, asks for `asked`, and whose share is `share`.
fn settled(had: u32, asked: u32, share: u32, free: i64) -> u32 {
    let kept = had.min(asked);
    if share < kept {
        let is_worth_it = free < 0 || kept - share > kept / MARGIN;
        return if is_worth_it { share } else { kept };
    }
    // What it gives up by asking for less is free as well.
    let left = free.saturating_add(i64::from(had - kept)).max(0);
    let more = u32::try_from(left).unwrap_or(u32::MAX);
    share.min(kept.saturating_add(more))
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn a_share_moves_where_that_is_worth_it_and_never_past_the_ceiling() {
        // had, asked, share, free -> has
        let rows = [
            ((50, 100, 49, 0), 50),
            ((50, 100, 44, 0), 44),
            ((50, 100, 49, -1), 49),
            ((50, 100, 53, 0), 50),
            ((50, 100, 53, 2), 52),
            ((50, 30, 30, 0), 30),
            ((50, 30, 20, 0), 20),
            ((0, 3, 3, 2), 2),
            ((0, 3, 3, 9), 3),
        ];
        for ((had, asked, share, free), has) in rows {
            assert_eq!(
                settled(had, asked, share, free),
                has,
                "{had} {asked} {share} {free}"
            );
        }
    }
}
