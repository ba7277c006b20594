//! Workers of one group, with plain shells in place of supervised ones.

use super::*;

#[test]
fn a_group_and_its_command_stand_around_the_first_equals_sign() {
    let read = scale("g=hive work --exec 'x=1'").unwrap();
    assert_eq!(
        (&*read.group, &*read.command),
        ("g", "hive work --exec 'x=1'")
    );
    for wrong in ["g", "=x", "g=", "g= "] {
        assert!(scale(wrong).is_err(), "{wrong}");
    }
}

fn wish(executor: wire::ScalingExecutor) -> wire::GroupScaling {
    wire::GroupScaling {
        enabled: true,
        desired_consumers: Some(1),
        policy: Some(wire::ScalingPolicy {
            executor: executor.into(),
            ..wire::ScalingPolicy::default()
        }),
        ..wire::GroupScaling::default()
    }
}

#[test]
fn only_wishes_for_nobody_and_for_processes_are_followed() {
    use wire::ScalingExecutor as Executor;
    for (executor, expected) in [
        (Executor::None, Attitude::Follows),
        (Executor::Process, Attitude::Follows),
        (Executor::Keda, Attitude::Foreign("keda")),
        (Executor::Kubernetes, Attitude::Foreign("kubernetes")),
        (Executor::Webhook, Attitude::Foreign("webhook")),
    ] {
        assert_eq!(Attitude::of(&wish(executor)), expected);
    }
    let off = wire::GroupScaling {
        enabled: false,
        ..wish(Executor::Process)
    };
    let text = Attitude::of(&off).text("g").unwrap();
    assert!(text.contains("hive scale set g --enable"), "{text}");
    let undecided = wire::GroupScaling {
        desired_consumers: None,
        ..wish(Executor::Process)
    };
    assert_eq!(Attitude::of(&undecided), Attitude::Waits);
}

#[test]
fn a_worker_is_told_more_and_never_less() {
    let (told, _heard) = watch::channel(Word::Work);
    let worker = Worker {
        number: 1,
        id: id_of("g", 1, 0xab),
        started: Instant::now(),
        told,
    };
    assert!(!worker.is_ending() && worker.id == "g-1-00ab");
    worker.tell(Word::Now);
    worker.tell(Word::End);
    assert_eq!(*worker.told.borrow(), Word::Now);
}

/// Longest wait for a process.
const DEADLINE: Duration = Duration::from_secs(20);

fn plain(line: &OsStr) -> io::Result<Command> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    Ok(command)
}

/// A keeper of workers that run `command`, and what tells it.
struct Bench {
    keeper: Keeper,
    wishes: watch::Sender<Option<wire::GroupScaling>>,
    _order: watch::Sender<Order>,
}

impl Bench {
    fn new(command: &str) -> Self {
        let (wishes, told) = watch::channel(None);
        let (order, ordered) = watch::channel(Order::Run);
        let (ended, ends) = mpsc::channel(ENDS);
        let keeper = Keeper {
            scale: scale(&format!("g={command}")).unwrap(),
            settings: vec![("HIVE_SCALE_GROUP", "g".to_owned())],
            spawner: Spawner::start().unwrap(),
            supervised: plain,
            members: Members::Known(BTreeMap::new()),
            told,
            order: ordered,
            workers: Vec::new(),
            ended,
            ends,
            pauses: Pauses::default(),
            surplus_since: None,
            lost: Vec::new(),
            attitude: Attitude::Waits,
            desired: None,
        };
        Self {
            keeper,
            wishes,
            _order: order,
        }
    }

    /// Tells what is wanted and what is there, and lets the keeper act.
    async fn wish(&mut self, desired: u32, current: u32, draining: u32) -> Option<Instant> {
        let wish = wire::GroupScaling {
            desired_consumers: Some(desired),
            current_consumers: current,
            draining_consumers: draining,
            max_consumers: 8,
            ..wish(wire::ScalingExecutor::Process)
        };
        self.wishes.send_replace(Some(wish));
        self.keeper.act().await
    }

    async fn wants(&mut self, desired: u32) -> Option<Instant> {
        self.wish(desired, count(self.keeper.workers.len()), 0)
            .await
    }

    /// Waits for the end of a worker, and notes it.
    async fn end(&mut self) {
        let end = timeout(DEADLINE, self.keeper.ends.recv()).await;
        self.keeper.note_end(&end.unwrap().unwrap());
    }

    fn numbers(&self) -> Vec<u32> {
        self.keeper.workers.iter().map(|one| one.number).collect()
    }
}

#[tokio::test]
async fn as_many_workers_are_started_as_are_wanted_and_all_are_ended() {
    let mut bench = Bench::new("exec sleep 600");
    bench.wants(1).await;
    assert_eq!(bench.numbers(), [1]);
    bench.wants(3).await;
    assert_eq!(bench.numbers(), [1, 2, 3]);
    bench.wants(3).await;
    assert_eq!(bench.numbers(), [1, 2, 3]);
    bench.keeper.end_all().await;
    assert!(bench.numbers().is_empty());
}

#[tokio::test]
async fn a_worker_that_was_drained_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let drained = folder.path().join("drained");
    let line = format!(
        "until rm {} 2>/dev/null; do sleep 0.05; done",
        drained.display()
    );
    let mut bench = Bench::new(&line);
    bench.wants(2).await;
    bench.wish(1, 2, 1).await;
    std::fs::write(&drained, "").unwrap();
    bench.end().await;
    // What was told before its end counts it still.
    bench.wish(1, 2, 1).await;
    assert_eq!(bench.numbers().len(), 1);
    bench.wish(1, 1, 0).await;
    assert_eq!(bench.numbers().len(), 1);
    bench.keeper.end_all().await;
}

#[tokio::test]
async fn a_worker_that_was_killed_while_it_drained_is_not_replaced() {
    let mut bench = Bench::new("exec sleep 600");
    bench.wants(2).await;
    bench.wish(1, 2, 1).await;
    bench.keeper.workers[1].tell(Word::Kill);
    bench.end().await;
    bench.wish(1, 2, 1).await;
    assert_eq!(bench.numbers(), [1]);
    bench.wish(1, 1, 0).await;
    assert_eq!(bench.numbers(), [1]);
    // One that nobody told to go is.
    bench.keeper.workers[0].tell(Word::Kill);
    bench.end().await;
    bench.wish(1, 1, 0).await;
    assert_eq!(bench.numbers(), [1]);
    bench.keeper.end_all().await;
}

#[tokio::test]
async fn a_worker_elsewhere_is_one_of_those_that_are_wanted() {
    let mut bench = Bench::new("exec sleep 600");
    bench.wish(2, 1, 0).await;
    assert_eq!(bench.numbers(), [1]);
    bench.wish(1, 2, 1).await;
    bench.wish(1, 1, 0).await;
    assert_eq!(bench.numbers(), [1]);
    bench.keeper.end_all().await;
}

#[tokio::test]
async fn a_command_that_fails_is_not_started_at_once_again() {
    let mut bench = Bench::new("exit 3");
    bench.wants(2).await;
    assert_eq!(bench.numbers(), [1, 2]);
    bench.end().await;
    bench.end().await;
    let wake = bench.wants(2).await;
    assert!(wake.is_some() && bench.numbers().is_empty());
    sleep_until(wake.unwrap()).await;
    bench.wants(2).await;
    assert_eq!(bench.numbers(), [1, 2]);
    bench.keeper.end_all().await;
}

#[tokio::test]
async fn surplus_workers_are_ended_after_a_while_those_first_that_hold_nothing() {
    let mut bench = Bench::new("exec sleep 600");
    bench.wants(4).await;
    let due = bench.wants(2).await.unwrap();
    assert!(due > Instant::now());
    assert_eq!(bench.numbers(), [1, 2, 3, 4]);
    let held = [0, 1, 0, 1];
    let held = bench.keeper.workers.iter().zip(held);
    let held = held.map(|(worker, held)| (worker.id.clone(), held));
    bench.keeper.members = Members::Known(held.collect());
    // As if that had lasted.
    bench.keeper.surplus_since = Instant::now().checked_sub(SURPLUS_AFTER);
    bench.wants(2).await;
    bench.end().await;
    bench.end().await;
    assert_eq!(bench.numbers(), [2, 4]);
    bench.keeper.end_all().await;
}

#[tokio::test]
async fn no_surplus_worker_is_told_to_end_while_nobody_tells_what_it_holds() {
    let mut bench = Bench::new("exec sleep 600");
    let nobody = Client::new("http://127.0.0.1:1").unwrap();
    bench.keeper.members = Members::Asked(nobody);
    bench.wants(2).await;
    bench.keeper.surplus_since = Instant::now().checked_sub(SURPLUS_AFTER);
    assert!(bench.wants(1).await.is_some());
    assert!(!bench.keeper.workers.iter().any(Worker::is_ending));
    bench.keeper.end_all().await;
}

#[test]
fn only_a_group_without_an_executor_is_claimed() {
    use wire::ScalingExecutor as Executor;
    let group = |enabled: bool, executor: Executor| wire::Group {
        settings: Some(wire::GroupSettings {
            auto_scale_enabled: Some(enabled),
            scaling: wish(executor).policy,
            ..wire::GroupSettings::default()
        }),
        ..wire::Group::default()
    };
    assert!(is_unclaimed(&group(true, Executor::None)));
    assert!(!is_unclaimed(&group(false, Executor::None)));
    for executor in [Executor::Process, Executor::Kubernetes, Executor::Keda] {
        assert!(!is_unclaimed(&group(true, executor)));
    }
}

#[tokio::test]
async fn a_group_that_is_not_scaled_keeps_the_workers_it_has() {
    let mut bench = Bench::new("exec sleep 600");
    bench.wants(1).await;
    let off = wire::GroupScaling {
        enabled: false,
        ..wish(wire::ScalingExecutor::Process)
    };
    bench.wishes.send_replace(Some(off));
    assert_eq!(bench.keeper.act().await, None);
    assert_eq!(bench.numbers(), [1]);
    bench.keeper.end_all().await;
}

#[test]
fn a_group_has_one_command() {
    let (one, other) = (scale("g=a").unwrap(), scale("h=a").unwrap());
    assert!(ensure_distinct(&[one.clone(), other]).is_ok());
    let refused = ensure_distinct(&[one.clone(), one]).unwrap_err();
    assert_eq!(refused.to_string(), "--scale names the group `g` twice");
}
