//! Calls that answer once their effect is on the disk of the primary.
//!
//! Where the server syncs each write before it answers there is nothing to do; else it is asked to
//! wait, on the connection that wrote. A server that can do neither refuses before it writes.

use std::time::Instant;

use redis::{Cmd, Pipeline, Value};

use crate::{
    connection::{Purpose, RETRY_PAUSE, Store},
    error::StoreError,
    keys::Shard,
    reply::Reply,
    scripts::Call,
    tracked::OUTCOMES,
};

/// Longest wait for the disk, of WAITAOF; below the wait for the answer.
const FSYNC_WAIT_MS: u64 = 2_000;

impl Store {
    /// Runs a script and makes its effect durable on the disk of the primary before it answers.
    ///
    /// # Errors
    /// As `run_safely`; `Durability` when the server can do neither WAITAOF nor `appendfsync
    /// always`: nothing was done then. `Unknown` when the disk does not answer in time: the effect
    /// may stay.
    pub async fn run_durably(&self, purpose: Purpose, call: Call) -> Result<Value, StoreError> {
        let end = Instant::now() + self.wait();
        loop {
            match self.run_and_sync(purpose, call.clone()).await {
                Err(error) if error.is_transient() && Instant::now() < end => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                },
                other => return other,
            }
        }
    }

    /// As [`Self::run_durably`], for a script that must not be sent again where its answer is lost.
    ///
    /// # Errors
    /// As `run_durably`.
    pub async fn run_durably_once(
        &self,
        purpose: Purpose,
        call: Call,
    ) -> Result<Value, StoreError> {
        self.run_and_sync(purpose, call).await
    }

    async fn run_and_sync(&self, purpose: Purpose, call: Call) -> Result<Value, StoreError> {
        self.check_durable().await?;
        if self.server().appendfsync_always {
            return self.run(purpose, call).await;
        }
        // On the connection that wrote: WAITAOF waits for that client's own writes.
        let mut pipeline = Pipeline::new();
        pipeline.add_command(call.command());
        pipeline.cmd("WAITAOF").arg(1).arg(0).arg(FSYNC_WAIT_MS);
        let mut replies = self.pipeline_raw(purpose, pipeline).await?.into_iter();
        let (value, fsynced) = (replies.next(), replies.next());
        if let Some(Value::ServerError(error)) = value {
            let error = StoreError::of_command(&error.into());
            if error.is_unavailable() {
                // Where the server forgot its scripts, the next attempt finds this one.
                let mut load = Cmd::new();
                load.arg("SCRIPT").arg("LOAD").arg(call.script().text());
                self.command(purpose, load).await?;
            }
            return Err(error);
        }
        fsynced_by(fsynced.unwrap_or_default())?;
        Ok(value.unwrap_or_default())
    }

    /// Refuses where the durability level `local` cannot be reached: to be asked before something
    /// is written that `sync` waits for.
    ///
    /// # Errors
    /// `Durability`, or that the server cannot be asked.
    pub async fn check_durable(&self) -> Result<(), StoreError> {
        if self.run_id().is_empty() {
            // What the server can do is known with the first connection.
            self.info("server").await?;
        }
        if self.can_be_durable() {
            return Ok(());
        }
        Err(StoreError::Durability {
            detail: "this server cannot WAITAOF, and its appendfsync is not `always`".into(),
        })
    }

    /// Waits until all that was written before, by whomever, is on the disk of the primary.
    ///
    /// # Errors
    /// `Durability`; `Unknown` when the disk does not answer in time: what was written may stay.
    pub async fn sync(&self, shard: &Shard) -> Result<(), StoreError> {
        self.check_durable().await?;
        if self.server().appendfsync_always {
            return Ok(());
        }
        let end = Instant::now() + self.wait();
        loop {
            // A write of its own, which WAITAOF waits for, and with it for all before.
            let mut pipeline = Pipeline::new();
            pipeline.cmd("HINCRBY").arg(shard.sizes());
            pipeline.arg(OUTCOMES).arg(0);
            pipeline.cmd("WAITAOF").arg(1).arg(0).arg(FSYNC_WAIT_MS);
            let waited = self.pipeline_raw(Purpose::Control, pipeline).await;
            let waited = waited.and_then(|replies| {
                let mut replies = replies.into_iter();
                if let Some(Value::ServerError(error)) = replies.next() {
                    return Err(StoreError::of_command(&error.into()));
                }
                fsynced_by(replies.next().unwrap_or_default())
            });
            match waited {
                Err(error) if error.is_transient() && Instant::now() < end => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                },
                other => return other,
            }
        }
    }

    /// Whether the durability level `local` can be reached now.
    #[must_use]
    pub fn can_be_durable(&self) -> bool {
        let server = self.server();
        server.appendfsync_always || server.waitaof
    }
}

/// Whether the answer of a WAITAOF says that the primary has it on disk.
fn fsynced_by(answer: Value) -> Result<(), StoreError> {
    let [local, _] = Reply::new("WAITAOF", answer).array()?;
    if local.number()? == 0 {
        // It is written, and may be lost with the machine: not "nothing was done".
        return Err(StoreError::Unknown {
            detail: "no fsync within 2 s".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hive_protocol::fault::{Fault, FaultKind};

    use super::*;

    fn waited(local: i64) -> Result<(), StoreError> {
        fsynced_by(Value::Array(vec![Value::Int(local), Value::Int(0)]))
    }

    #[test]
    fn a_write_that_is_not_on_disk_in_time_may_or_may_not_stay() {
        let error = waited(0).unwrap_err();
        assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
        assert_eq!(Fault::from(error).kind, FaultKind::Timeout);
    }

    #[test]
    fn a_write_on_disk_is_done() {
        assert!(waited(1).is_ok());
    }

    #[test]
    fn an_answer_of_another_shape_is_no_promise() {
        assert!(fsynced_by(Value::Okay).is_err());
    }
}
