//! Tests of the phases of a shutdown and of the exit code each end gives.

use std::io;

use super::*;
use crate::tasks::LOOP;

const GRACE: Duration = Duration::from_secs(25);

fn ending() -> Ending {
    Ending {
        tasks: Tasks::new(),
        shutdown: Shutdown::new(),
        gate: Gate::new(),
        health: Health::new(),
        grace: GRACE,
    }
}

/// A daemon's own code that does what it is asked to: it ends at the stop.
fn obedient(ending: &Ending) -> Pin<Box<impl Future<Output = io::Result<()>> + use<>>> {
    let shutdown = ending.shutdown.clone();
    Box::pin(async move {
        shutdown.stopped().await;
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_drain_with_nothing_to_do_ends_at_once_with_0() {
    let ending = ending();
    ending.shutdown.drain();
    let started = Instant::now();
    assert_eq!(ending.follow(obedient(&ending)).await, Exit::Drained);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_draining_daemon_is_not_ready_while_its_work_goes_on() {
    let ending = ending();
    ending.health.component("server").ready();
    let pass = ending.gate.enter("settle");
    ending.shutdown.drain();
    let observed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ending.health.report().reasons(), "shutdown: draining");
        assert!(!ending.shutdown.is_stopped());
        drop(pass);
    };
    let (exit, ()) = tokio::join!(ending.follow(obedient(&ending)), observed);
    assert_eq!(exit, Exit::Drained);
}

#[tokio::test(start_paused = true)]
async fn work_that_outlives_the_grace_makes_the_exit_code_3() {
    let ending = ending();
    let _pass = ending.gate.enter("settle");
    ending.shutdown.drain();
    let started = Instant::now();
    assert_eq!(ending.follow(obedient(&ending)).await, Exit::Unfinished);
    assert_eq!(started.elapsed(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_see_the_stop_is_given_up_after_the_wind_up() {
    let ending = ending();
    ending
        .tasks
        .spawn(LOOP, "sweep", std::future::pending::<()>());
    ending.shutdown.drain();
    let started = Instant::now();
    assert_eq!(ending.follow(obedient(&ending)).await, Exit::Unfinished);
    assert_eq!(started.elapsed(), WIND_UP);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_fails_drains_the_daemon_and_makes_the_exit_code_1() {
    let ending = ending();
    ending
        .tasks
        .spawn(LOOP, "sweep", async { Err(io::Error::other("lost")) });
    assert_eq!(ending.follow(obedient(&ending)).await, Exit::Failed);
    assert!(ending.shutdown.is_stopped());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_daemons_own_code_makes_the_exit_code_1() {
    let ending = ending();
    let failed = Box::pin(async { Err(io::Error::other("no scripts")) });
    assert_eq!(ending.follow(failed).await, Exit::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_task_makes_the_exit_code_70_without_a_drain() {
    let ending = ending();
    let _pass = ending.gate.enter("settle");
    let is_whole = ending.tasks.list().len() > 1;
    ending.tasks.spawn(
        LOOP,
        "sweep",
        async move { assert!(is_whole, "half a daemon") },
    );
    let started = Instant::now();
    assert_eq!(ending.follow(obedient(&ending)).await, Exit::Panic);
    assert_eq!(started.elapsed(), Duration::ZERO);
}
