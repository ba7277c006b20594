//! Tests of what becomes of tasks at their end and at the daemon's.

use std::future::pending;
use std::io;
use std::time::Duration;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn pending_slots() -> usize {
    Tasks::new().list().len()
}

async fn failure(tasks: &Tasks) -> Failure {
    tokio::time::timeout(LIMIT, tasks.failed())
        .await
        .expect("a failure is told")
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_any_kind_of_task_stops_the_daemon() {
    for kind in [SERVER, LOOP, BACKGROUND] {
        let tasks = Tasks::new();
        tasks.spawn(kind, "a", async {
            assert!(pending_slots() > 0, "the slot was empty");
        });
        let message = "the slot was empty".to_owned();
        assert_eq!(
            failure(&tasks).await,
            Failure::Panic {
                task: "a".to_owned(),
                message
            }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_loop_stops_the_daemon_and_names_the_task() {
    let tasks = Tasks::new();
    tasks.spawn(LOOP, "sweep", async { Err(io::Error::other("no more")) });
    let error = "no more".to_owned();
    assert_eq!(
        failure(&tasks).await,
        Failure::Error {
            task: "sweep".to_owned(),
            error
        }
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_of_background_work_leaves_the_daemon_running() {
    let tasks = Tasks::new();
    let ended = tasks.spawn(BACKGROUND, "fetch", async {
        Err(io::Error::other("no more"))
    });
    while !ended.is_finished() {
        tokio::task::yield_now().await;
    }
    assert!(tokio::time::timeout(LIMIT, tasks.failed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_the_one_that_is_told() {
    let tasks = Tasks::new();
    tasks.spawn(LOOP, "a", async { Err(io::Error::other("first")) });
    let first = failure(&tasks).await;
    tasks.spawn(LOOP, "b", async { Err(io::Error::other("second")) });
    assert!(tasks.close(LIMIT).await.is_empty());
    assert_eq!(failure(&tasks).await, first);
}

#[tokio::test(start_paused = true)]
async fn closing_aborts_background_work_at_once() {
    let tasks = Tasks::new();
    let handle = tasks.spawn(BACKGROUND, "upkeep", pending::<()>());
    let started = tokio::time::Instant::now();
    assert!(tasks.close(LIMIT).await.is_empty());
    assert!(handle.is_finished());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_loop_that_ends_within_the_limit() {
    let tasks = Tasks::new();
    tasks.spawn(LOOP, "sweep", tokio::time::sleep(Duration::from_secs(3)));
    assert!(tasks.close(LIMIT).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn closing_names_a_loop_that_does_not_end() {
    let tasks = Tasks::new();
    tasks.spawn(LOOP, "sweep", pending::<()>());
    tasks.spawn(BACKGROUND, "upkeep", pending::<()>());
    assert_eq!(tasks.close(LIMIT).await, ["sweep"]);
}

#[tokio::test(start_paused = true)]
async fn running_tasks_are_listed_with_name_and_kind() {
    let tasks = Tasks::new();
    tasks.spawn(LOOP, "sweep", pending::<()>());
    let ended = tasks.spawn(BACKGROUND, "fetch", async {});
    while !ended.is_finished() {
        tokio::task::yield_now().await;
    }
    let listed = Listed {
        name: "sweep".to_owned(),
        kind: "loop",
        age_seconds: 0,
    };
    assert_eq!(tasks.list(), [listed]);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_task_is_no_failure() {
    let tasks = Tasks::new();
    tasks.spawn(SERVER, "a", pending::<()>()).abort();
    assert!(tasks.close(LIMIT).await.is_empty());
    assert!(tokio::time::timeout(LIMIT, tasks.failed()).await.is_err());
}

#[test]
fn an_error_is_told_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("the port stopped")]
    struct Outer(#[source] io::Error);
    assert_eq!(
        chain(&Outer(io::Error::other("reset"))),
        "the port stopped: reset"
    );
}
