//! What is answered for deliveries of a group that was deleted.

use anyhow::Result;
use hive_client::{CallError, Reason, message, wire};
use hive_testkit::redis::Aof;
use wire::{SettleStatus, outcome::Action};

use crate::{
    fleet::Fleet,
    member::{ack, outcome, verdicts},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_for_a_deleted_group_is_gone_at_every_gateway() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    for round in 0..5 {
        fleet.group("g", wire::GroupSettings::default()).await?;
        for _ in 0..2 {
            fleet.publish("g", message("t", "")).await?;
        }
        let held = fleet.fetch_all("g", "puller", 2).await?;
        // The other gateway knows the group, and goes on to for up to a second.
        let other = fleet.client(1)?;
        let extend = |delivery: &wire::Delivery| wire::SettleRequest {
            group: "g".into(),
            outcomes: vec![outcome(&delivery.lease, Action::Extend(wire::Extend {}))],
        };
        let before = other.settle(extend(&held[0])).await?;
        assert_eq!(verdicts(&before.results), [SettleStatus::Ok]);
        let delete = wire::DeleteGroupRequest {
            name: "g".into(),
            force: true,
        };
        fleet.client(0)?.delete_group(delete).await?;
        let settle = wire::SettleRequest {
            group: "g".into(),
            outcomes: vec![ack(&held[0])],
        };
        for late in [settle, extend(&held[1])] {
            match other.settle(late).await {
                Ok(answer) => assert_eq!(
                    verdicts(&answer.results),
                    [SettleStatus::Gone],
                    "round {round}"
                ),
                Err(CallError::Refused(fault)) => {
                    assert_eq!(
                        fault.reason,
                        Reason::GroupNotFound,
                        "round {round}: {fault:?}"
                    );
                },
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
