//! The commands of `hive`, one file each.

pub(crate) mod bench;
pub(crate) mod consumer;
pub(crate) mod dev;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod fetch;
pub(crate) mod group;
pub(crate) mod peek;
pub(crate) mod place;
pub(crate) mod publish;
pub(crate) mod rebalance;
pub(crate) mod replay;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod stream;
pub(crate) mod supervise;
pub(crate) mod tracked;
pub(crate) mod work;
pub(crate) mod workflow;
