//! How many more deliveries the server may send.
//!
//! At rest `granted + pending + held + withdrawn = most`. The server may think otherwise for a
//! moment, while frames cross; it caps what it sends by the window of the join.

/// Credit of one membership.
#[derive(Debug, Default)]
pub(super) struct Credit {
    most: u32,
    // Granted and not used by a delivery yet.
    granted: u32,
    // Earned and not granted yet.
    pending: u32,
    // Taken by revokes, to be earned back.
    withdrawn: u32,
}

impl Credit {
    /// Starts over on a new connection, where the server has no credit left.
    pub(super) fn join(&mut self, most: u32, held: u32) {
        self.most = most.max(1);
        self.withdrawn = self.withdrawn.min(self.most);
        self.granted = 0;
        self.pending = self
            .most
            .saturating_sub(held)
            .saturating_sub(self.withdrawn);
        self.keep_alive(held);
    }

    /// One delivery came.
    pub(super) const fn use_one(&mut self) {
        self.granted = self.granted.saturating_sub(1);
    }

    /// A delivery took the place of an older one of the same entry.
    pub(super) const fn give_back_one(&mut self) {
        self.pending = self.pending.saturating_add(1);
    }

    /// One delivery is finished: its place is free, and the window grows back by one.
    pub(super) const fn finish_one(&mut self) {
        self.pending = self.pending.saturating_add(1);
        if self.withdrawn > 0 {
            self.withdrawn -= 1;
            self.pending = self.pending.saturating_add(1);
        }
    }

    /// The server withdrew `asked` credits, and `released` deliveries go back with their places.
    pub(super) fn revoke(&mut self, asked: u32, released: u32, held: u32) {
        let from_pending = asked.min(self.pending);
        let from_granted = (asked - from_pending).min(self.granted);
        self.pending -= from_pending;
        self.granted -= from_granted;
        self.withdrawn = (self.withdrawn)
            .saturating_add(from_pending + from_granted)
            .saturating_add(released);
        self.keep_alive(held);
    }

    /// Takes no more: what is pending is never granted.
    pub(super) const fn stop(&mut self) {
        self.pending = 0;
    }

    pub(super) const fn is_pending(&self) -> bool {
        self.pending > 0
    }

    /// What to grant now.
    pub(super) const fn grant(&mut self) -> u32 {
        let grant = self.pending;
        self.pending = 0;
        self.granted = self.granted.saturating_add(grant);
        grant
    }

    /// With nothing held and nothing granted nothing would ever be earned again: earns one.
    pub(super) const fn keep_alive(&mut self, held: u32) {
        if held == 0 && self.granted == 0 && self.pending == 0 {
            self.withdrawn = self.withdrawn.saturating_sub(1);
            self.pending = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Credit;

    fn joined(most: u32) -> Credit {
        let mut credit = Credit::default();
        credit.join(most, 0);
        credit
    }

    #[test]
    fn a_join_grants_the_window_and_each_finish_one_more() {
        let mut credit = joined(3);
        assert_eq!(credit.grant(), 3);
        credit.use_one();
        credit.finish_one();
        assert_eq!(credit.grant(), 1);
        assert!(!credit.is_pending());
    }

    #[test]
    fn a_rejoin_grants_what_is_not_held() {
        let mut credit = joined(3);
        credit.grant();
        credit.join(3, 2);
        assert_eq!(credit.grant(), 1);
    }

    #[test]
    fn a_revoke_takes_credit_along_and_it_grows_back_with_finished_work() {
        let mut credit = joined(4);
        credit.grant();
        for _ in 0..4 {
            credit.use_one();
        }
        credit.revoke(2, 2, 2);
        assert_eq!(credit.grant(), 0);
        credit.finish_one();
        assert_eq!(credit.grant(), 2);
        credit.use_one();
        credit.use_one();
        credit.finish_one();
        assert_eq!(credit.grant(), 2);
        credit.finish_one();
        assert_eq!(credit.grant(), 1);
    }

    #[test]
    fn a_revoke_of_everything_leaves_one_to_go_on_with() {
        let mut credit = joined(2);
        credit.grant();
        credit.revoke(5, 0, 0);
        assert_eq!(credit.grant(), 1);
    }
}
