//! What a worker tells whoever watches it.

use hive_protocol::fault::Fault;

/// Something that happened to a worker's membership. Jobs are not events: the handler sees them.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is a member, over this gateway.
    Joined {
        /// The gateway's URL.
        gateway: String,
        /// Number of this connection within the session; 1 is the first.
        attach: u64,
        /// Deliveries that were taken away while the connection was lost.
        lost: usize,
    },
    /// The connection is gone; it is made again by itself.
    LostConnection {
        /// The gateway's URL.
        gateway: String,
        /// Why.
        fault: Fault,
    },
    /// The group does not exist, and the worker waits for it.
    WaitingForGroup,
    /// The gateway goes away; another one is joined, or this one used until it is gone.
    Draining {
        /// The gateway's URL.
        gateway: String,
    },
    /// Fewer agents are wanted: nothing new is taken, what runs may take as long as it takes, then
    /// the worker ends for good.
    ScaledDown {
        /// Handlers that still run.
        running: usize,
    },
    /// Another group has work for this agent, and the offer is taken up.
    Offered {
        /// The group.
        group: String,
        /// Why, for a person.
        reason: String,
    },
    /// It is a member of the offered group too.
    Helping {
        /// The group.
        group: String,
    },
    /// It left the offered group, or could not join it.
    Returned {
        /// The group.
        group: String,
        /// Outcomes that handlers gave for it.
        handled: u64,
    },
    /// The server asked for unstarted deliveries back.
    Revoked {
        /// How many it asked for.
        asked: u32,
        /// How many were given back.
        released: u32,
    },
    /// These deliveries are no longer the agent's; their handlers were told to stop.
    Cancelled {
        /// Their tokens.
        leases: Vec<String>,
        /// Why, for a person.
        reason: String,
    },
    /// An outcome was not taken.
    SettleRefused {
        /// The token of the delivery.
        lease: String,
        /// Why, for a person.
        error: String,
    },
    /// A handler panicked; its message counts as failed.
    HandlerPanicked {
        /// Id of the message.
        message_id: String,
        /// What the panic said.
        reason: String,
    },
    /// The shutdown began: nothing new is taken.
    ShuttingDown {
        /// Handlers that still run.
        running: usize,
    },
}
