//! `hive dev --scale`: starts and stops local workers as their groups want.
//!
//! One task follows the wishes of all groups over the gateways, for ever; a group that does not
//! exist yet is waited for. One task per group keeps its workers: it compares what is there with
//! the last wish, whatever happened before, and starts what is missing (`plan` says how many).
//!
//! Fewer are wanted: the coordinator tells workers to finish and go, they end by themselves and are
//! not replaced. A command that does not understand that, as one with curl, gets SIGTERM once it
//! has been surplus a while. Which: each worker has an id, by its environment, which `hive work`
//! takes for its own; so the group's members tell who left or holds nothing, and these go first.
//! One that got it may take as long as it needs, `hive work` too: what runs is not interrupted, and
//! nothing killed, before `hive dev` itself stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use hive_client::{Client, wire};
use hive_protocol::words::coordination::{SCALING_EXECUTORS, word_for};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child as Process, Command},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use self::plan::{Change, Facts, Pauses, change, farewells};
use super::child::{Order, STOP_WITHIN, in_background};
use crate::{
    children::{Spawner, patient_command},
    commands::work::{GRACE_VARIABLE, ID_VARIABLE},
    connection::told,
    exit::{Exit, Failure},
    output::{note, worker_line},
    values::{harmless, short_seconds},
};

mod plan;

/// How long workers may be surplus before they get SIGTERM.
const SURPLUS_AFTER: Duration = Duration::from_secs(10);

/// How long a worker that died may be counted as a live consumer: the group's reconnect grace, 3 s
/// unless changed, until that is noticed and told, and the longest pause before it is replaced.
const LOST_FOR: Duration = Duration::from_secs(15);

/// How long the members of a group may take to be told.
const MEMBERS_WITHIN: Duration = Duration::from_secs(2);

/// What `hive work` gives running commands after SIGTERM: as long as they need.
const GRACE: &str = "365d";

/// Longest part of a group's name in the id of a worker; names hold 128 characters.
const GROUP_CHARACTERS_MAX: usize = 64;

/// Groups are told at least every 5 s; one of which nothing was heard for so long, while others
/// were, is gone.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// Pause before wishes are asked for again, where nobody answers.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Longest line of a worker that is passed on whole.
const LINE_BYTES_MAX: u64 = 64 * 1_024;

/// How long workers may take to be gone after they were killed.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Ends of workers that wait to be noted.
const ENDS: usize = 64;

/// A group, and the command that works for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    group: String,
    command: String,
}

/// Reads `group=command`.
pub(super) fn scale(text: &str) -> Result<Scale, String> {
    let rule = "write it like `group=command`";
    let (group, command) = text.split_once('=').ok_or(rule)?;
    if group.is_empty() || command.trim().is_empty() {
        return Err(rule.to_owned());
    }
    Ok(Scale {
        group: group.to_owned(),
        command: command.to_owned(),
    })
}

/// Refuses two commands for one group.
///
/// # Errors
/// When a group is named twice.
pub(super) fn ensure_distinct(scales: &[Scale]) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    match scales.iter().find(|scale| !names.insert(&scale.group)) {
        None => Ok(()),
        Some(Scale { group, .. }) => {
            let message = format!("--scale names the group `{group}` twice");
            Err(Failure::new(Exit::Usage, message))
        },
    }
}

/// Keeps the workers of groups.
#[derive(Debug)]
pub(super) struct Scaler {
    order: watch::Sender<Order>,
    keepers: Vec<watch::Receiver<bool>>,
}

/// Who tells what the members of a group hold.
#[derive(Debug)]
enum Members {
    /// The gateways.
    Asked(Client),
    /// A test.
    #[cfg(test)]
    Known(BTreeMap<String, u64>),
}

impl Members {
    /// What each member of the group holds, by its id; none where nobody tells in time.
    async fn held(&self, group: &str) -> Option<BTreeMap<String, u64>> {
        match self {
            Self::Asked(client) => {
                let request = wire::ListConsumersRequest {
                    group: group.to_owned(),
                };
                let answer = timeout(MEMBERS_WITHIN, client.list_consumers(request)).await;
                let consumers = answer.ok()?.ok()?.consumers.into_iter();
                Some(
                    consumers
                        .map(|one| (one.consumer_id, one.in_flight))
                        .collect(),
                )
            },
            #[cfg(test)]
            Self::Known(held) => Some(held.clone()),
        }
    }
}

impl Scaler {
    /// Follows these groups through `client`. Workers get `settings` by their environment.
    pub(super) fn start(
        spawner: &Spawner,
        client: Client,
        scales: &[Scale],
        settings: &[(&'static str, String)],
    ) -> Self {
        let (order, ordered) = watch::channel(Order::Run);
        let (mut wishes, mut keepers) = (BTreeMap::new(), Vec::new());
        for scale in scales {
            let (wish, told) = watch::channel(None);
            wishes.insert(scale.group.clone(), wish);
            let (is_over, over) = watch::channel(false);
            keepers.push(over);
            let mut settings = settings.to_vec();
            settings.push(("HIVE_SCALE_GROUP", scale.group.clone()));
            settings.push((GRACE_VARIABLE, GRACE.to_owned()));
            let (ended, ends) = mpsc::channel(ENDS);
            let keeper = Keeper {
                scale: scale.clone(),
                settings,
                spawner: spawner.clone(),
                supervised: patient_command,
                members: Members::Asked(client.clone()),
                told,
                order: ordered.clone(),
                workers: Vec::new(),
                ended,
                ends,
                pauses: Pauses::default(),
                surplus_since: None,
                lost: Vec::new(),
                attitude: Attitude::Waits,
                desired: None,
            };
            in_background(async move {
                keeper.run().await;
                is_over.send_replace(true);
            });
        }
        in_background(follow(client, wishes, ordered));
        Self { order, keepers }
    }

    /// Stops all workers, with SIGTERM, and kills those that take too long.
    pub(super) async fn stop(&self) {
        self.order.send_replace(Order::Stop);
        self.over().await;
    }

    /// Kills all workers.
    pub(super) async fn kill(&self) {
        self.order.send_replace(Order::Kill);
        self.over().await;
    }

    /// Waits until no worker is left. A keeper that is gone keeps none.
    async fn over(&self) {
        for keeper in &self.keepers {
            drop(keeper.clone().wait_for(|is_over| *is_over).await);
        }
    }
}

/// Waits until everything is to stop. An owner that is gone has no use for workers.
async fn ordered(order: &mut watch::Receiver<Order>) {
    drop(order.wait_for(|order| *order != Order::Run).await);
}

/// Waits until everything is to stop at once.
async fn hurried(order: &mut watch::Receiver<Order>) {
    drop(order.wait_for(|order| *order == Order::Kill).await);
}

/// Hands on what groups want, until everything is to stop.
async fn follow(
    client: Client,
    wishes: BTreeMap<String, watch::Sender<Option<wire::GroupScaling>>>,
    mut order: watch::Receiver<Order>,
) {
    let mut watch = client.watch_scaling(wishes.keys().cloned().collect());
    let mut heard: BTreeMap<String, Instant> = BTreeMap::new();
    let (mut is_away, mut is_first) = (false, true);
    let mut claimed = BTreeSet::new();
    loop {
        let next = tokio::select! {
            next = watch.next() => next,
            () = ordered(&mut order) => return,
        };
        let now = Instant::now();
        match next {
            Ok(groups) => {
                let mut unclaimed = Vec::new();
                if is_away {
                    note("scale: the wishes of groups are followed again");
                    is_away = false;
                }
                for wish in groups {
                    if let Some(sender) = wishes.get(&wish.group) {
                        heard.insert(wish.group.clone(), now);
                        if has_nobody(&wish) && !claimed.contains(&wish.group) {
                            unclaimed.push(wish.group.clone());
                        }
                        sender.send_replace(Some(wish));
                    }
                }
                for group in unclaimed {
                    let is_done = tokio::select! {
                        is_done = claim(&client, &group) => is_done,
                        () = ordered(&mut order) => return,
                    };
                    if is_done {
                        claimed.insert(group);
                    }
                }
                for (group, sender) in &wishes {
                    let last = heard.get(group).copied();
                    let is_gone = last.is_some_and(|last| now - last > GONE_AFTER);
                    if is_gone {
                        heard.remove(group);
                        sender.send_replace(None);
                    }
                    if is_gone || (is_first && last.is_none()) {
                        note(&format!("scale: waits for the group `{group}`"));
                    }
                }
                is_first = false;
            },
            Err(error) => {
                if !is_away {
                    let why = told(error.fault());
                    note(&format!(
                        "scale: nobody tells what groups want: {why}; goes on asking"
                    ));
                }
                is_away = true;
                // Silence of the gateways says nothing of groups.
                heard.values_mut().for_each(|last| *last = now);
                tokio::select! {
                    () = sleep(ASK_AGAIN) => {},
                    () = ordered(&mut order) => return,
                }
            },
        }
    }
}

/// Whether a group is scaled, and nobody starts its workers.
fn has_nobody(wish: &wire::GroupScaling) -> bool {
    let policy = wish.policy.clone().unwrap_or_default();
    wish.enabled && policy.executor() == wire::ScalingExecutor::None
}

/// Says in the definition of a group whose workers nobody starts that it is processes from now on:
/// only then do coordinators tell those to finish and go that are not wanted any more. Answers
/// whether that is settled; else the next wish, in a few seconds, is the occasion to try again.
///
/// A wish may be seconds old, and somebody may have named an executor since, with a target that
/// this would delete. So the definition is read right before, and a group is claimed once in a run:
/// who takes it back means it.
async fn claim(client: &Client, group: &str) -> bool {
    let change = wire::UpdateGroupRequest {
        name: group.to_owned(),
        settings: Some(wire::GroupSettings {
            scaling: Some(wire::ScalingPolicy {
                executor: wire::ScalingExecutor::Process.into(),
                ..wire::ScalingPolicy::default()
            }),
            ..wire::GroupSettings::default()
        }),
    };
    let claimed = async {
        let found = client.get_group(group).await?;
        if !is_unclaimed(&found) {
            return Ok(false);
        }
        client.update_group(change).await.map(|_group| true)
    };
    match claimed.await {
        Ok(true) => {
            note(&format!(
                "scale: `{group}` had no executor; it is `process` from now on"
            ));
            true
        },
        Ok(false) => true,
        Err(error) => {
            note(&format!(
                "scale: `{group}` cannot get the executor `process`: {}",
                told(error.fault())
            ));
            false
        },
    }
}

/// Whether the definition of a group names nobody who starts its workers.
fn is_unclaimed(group: &wire::Group) -> bool {
    let settings = group.settings.clone().unwrap_or_default();
    let policy = settings.scaling.clone().unwrap_or_default();
    let has_executor = !matches!(
        policy.executor(),
        wire::ScalingExecutor::None | wire::ScalingExecutor::Unspecified
    );
    settings.auto_scale_enabled() && !has_executor
}

/// What is to be done about a group in general.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attitude {
    /// Nothing yet: it does not exist, or nothing was decided.
    Waits,
    /// Nothing: it is not scaled.
    Off,
    /// Nothing: somebody else starts its workers.
    Foreign(&'static str),
    /// Its wish is followed.
    Follows,
}

impl Attitude {
    fn of(wish: &wire::GroupScaling) -> Self {
        let executor = wish.policy.as_ref().map(wire::ScalingPolicy::executor);
        match executor.unwrap_or_default() {
            _ if !wish.enabled => Self::Off,
            wire::ScalingExecutor::Unspecified
            | wire::ScalingExecutor::None
            | wire::ScalingExecutor::Process => match wish.desired_consumers {
                Some(_) => Self::Follows,
                None => Self::Waits,
            },
            other @ (wire::ScalingExecutor::Keda
            | wire::ScalingExecutor::Kubernetes
            | wire::ScalingExecutor::Webhook) => Self::Foreign(word_for(&SCALING_EXECUTORS, other)),
        }
    }

    /// What a person is told of it, if anything.
    fn text(self, group: &str) -> Option<String> {
        match self {
            Self::Waits | Self::Follows => None,
            Self::Off => Some(format!(
                "scale: the group `{group}` is not scaled, so nothing is started for it: \
                 `hive scale set {group} --enable` switches it on"
            )),
            Self::Foreign(executor) => Some(format!(
                "scale: the executor of the group `{group}` is `{executor}`, so nothing is started \
                 for it: `hive scale set {group} --executor process` leaves it to `hive dev`"
            )),
        }
    }
}

/// A local worker.
#[derive(Debug)]
struct Worker {
    number: u32,
    /// Its id in the group, if its command takes it.
    id: String,
    started: Instant,
    /// What it was told so far.
    told: watch::Sender<Word>,
}

/// What a worker is told; each is said after all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    /// Nothing.
    #[default]
    Work,
    /// SIGTERM: to end when it likes.
    End,
    /// SIGTERM once more: its supervisor kills it.
    Now,
    /// SIGKILL to its supervisor.
    Kill,
}

impl Worker {
    fn is_ending(&self) -> bool {
        *self.told.borrow() != Word::Work
    }

    fn tell(&self, word: Word) {
        self.told.send_if_modified(|told| {
            let is_news = *told < word;
            *told = word.max(*told);
            is_news
        });
    }
}

/// A worker that ended.
#[derive(Debug)]
struct End {
    number: u32,
    status: io::Result<ExitStatus>,
}

/// Keeps the workers of one group.
struct Keeper {
    scale: Scale,
    settings: Vec<(&'static str, String)>,
    spawner: Spawner,
    /// Makes of a line of the shell a command that does not outlive us.
    supervised: fn(&OsStr) -> io::Result<Command>,
    members: Members,
    told: watch::Receiver<Option<wire::GroupScaling>>,
    order: watch::Receiver<Order>,
    /// In the order of their start.
    workers: Vec<Worker>,
    ended: mpsc::Sender<End>,
    ends: mpsc::Receiver<End>,
    pauses: Pauses,
    surplus_since: Option<Instant>,
    /// When workers died lately.
    lost: Vec<Instant>,
    attitude: Attitude,
    /// The last wish that a person was told of.
    desired: Option<u32>,
}

impl Keeper {
    /// Follows the wish until everything is to stop, and ends all workers then.
    async fn run(mut self) {
        loop {
            let wake = self.act().await;
            tokio::select! {
                () = ordered(&mut self.order) => break,
                changed = self.told.changed() => if changed.is_err() {
                    break;
                },
                Some(end) = self.ends.recv() => self.note_end(&end),
                () = passed(wake) => {},
            }
        }
        self.end_all().await;
    }

    /// Does what the last wish asks for now; answers when to look again even if nothing happens.
    async fn act(&mut self) -> Option<Instant> {
        let last = self.told.borrow_and_update().clone();
        let attitude = last.as_ref().map_or(Attitude::Waits, Attitude::of);
        if attitude != self.attitude {
            self.attitude = attitude;
            if let Some(text) = attitude.text(&self.scale.group) {
                note(&text);
            }
        }
        let Some(wish) = last.filter(|_| attitude == Attitude::Follows) else {
            self.surplus_since = None;
            return None;
        };
        let desired = wish.desired_consumers();
        if self.desired != Some(desired) {
            let before = self.desired.replace(desired).unwrap_or(0);
            let (group, reason) = (&self.scale.group, harmless(&wish.reason));
            note(&format!("scale: {group} {before} -> {desired} ({reason})"));
        }
        let now = Instant::now();
        self.lost.retain(|end| now - *end < LOST_FOR);
        let ending = self.workers.iter().filter(|worker| worker.is_ending());
        let facts = Facts {
            desired,
            current: wish.current_consumers,
            draining: wish.draining_consumers,
            max: wish.max_consumers,
            there: count(self.workers.len()),
            ending: count(ending.count()),
            lost: count(self.lost.len()),
        };
        let Change { start, surplus } = change(&facts);
        let mut wake = None;
        for _ in 0..start {
            wake = self.pauses.until(now);
            if wake.is_some() {
                break;
            }
            self.start().await;
            // Where it could not be started, the next one waits.
            wake = self.pauses.until(now);
        }
        if surplus == 0 {
            self.surplus_since = None;
            return wake;
        }
        let due = *self.surplus_since.get_or_insert(now) + SURPLUS_AFTER;
        let again = if now < due {
            due
        } else if self.dismiss(surplus).await {
            self.surplus_since = None;
            return wake;
        } else {
            Instant::now() + ASK_AGAIN
        };
        Some(wake.map_or(again, |wake| wake.min(again)))
    }

    /// Tells so many workers to end, those first that have the least to lose. Answers whether it
    /// did: without knowing what they hold, none is told.
    async fn dismiss(&self, surplus: u32) -> bool {
        let group = &self.scale.group;
        let mut order = self.order.clone();
        let held = tokio::select! {
            held = self.members.held(group) => held,
            () = ordered(&mut order) => None,
        };
        let Some(held) = held else {
            return false;
        };
        let left = self.workers.iter().filter(|one| !one.is_ending());
        let left: Vec<&Worker> = left.collect();
        let ids: Vec<&str> = left.iter().map(|one| one.id.as_str()).collect();
        let places = farewells(&ids, &held).into_iter();
        for place in places.take(usize::try_from(surplus).unwrap_or(usize::MAX)) {
            let Some(worker) = left.get(place) else {
                continue;
            };
            let number = worker.number;
            note(&format!(
                "scale: {group}/{number} is not wanted any more and gets SIGTERM"
            ));
            worker.tell(Word::End);
        }
        true
    }

    /// Starts one worker, under the lowest number that is free.
    async fn start(&mut self) {
        let now = Instant::now();
        let is_taken = |number: &u32| self.workers.iter().any(|one| one.number == *number);
        let number = (1..=u32::MAX)
            .find(|number| !is_taken(number))
            .unwrap_or(u32::MAX);
        let name = format!("{}/{number}", self.scale.group);
        let id = id_of(&self.scale.group, number, rand::random());
        let mut process = match self.spawn(&id).await {
            Ok(process) => process,
            Err(error) => {
                if let Some(pause) = self.pauses.note(now, Duration::ZERO) {
                    note(&format!(
                        "scale: {name} cannot be started: {error}; again in {pause:?}"
                    ));
                }
                return;
            },
        };
        if let Some(stdout) = process.stdout.take() {
            in_background(pass_on(name.clone(), stdout));
        }
        if let Some(stderr) = process.stderr.take() {
            in_background(pass_on(name.clone(), stderr));
        }
        let pid = process.id().map(|pid| format!(" (pid {pid})"));
        note(&format!("scale: {name} started{}", pid.unwrap_or_default()));
        let (told, heard) = watch::channel(Word::Work);
        in_background(live(process, number, heard, self.ended.clone()));
        self.workers.push(Worker {
            number,
            id,
            started: now,
            told,
        });
    }

    async fn spawn(&self, id: &str) -> io::Result<Process> {
        let mut command = (self.supervised)(self.scale.command.as_ref())?;
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.env(ID_VARIABLE, id);
        // A terminal sends Ctrl-C to its foreground group; only we shall get it.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawner.spawn(command).await
    }

    /// Notes that a worker is gone. One that failed, or that is missed, makes the next start wait.
    fn note_end(&mut self, end: &End) {
        let Some(place) = self.workers.iter().position(|one| one.number == end.number) else {
            return;
        };
        let worker = self.workers.remove(place);
        let now = Instant::now();
        let name = format!("{}/{}", self.scale.group, end.number);
        let is_missed = count(self.workers.len()) < self.desired.unwrap_or(0);
        let is_well = end.status.as_ref().is_ok_and(ExitStatus::success);
        // One that was drained left the group before it ended; any other may be a member still.
        let drains = (self.told.borrow().as_ref()).is_some_and(|wish| wish.draining_consumers > 0);
        if !(is_well && drains) {
            self.lost.push(now);
        }
        if worker.is_ending() || (is_well && !is_missed) {
            note(&format!("scale: {name} ended"));
            return;
        }
        let lived = now - worker.started;
        if let Some(pause) = self.pauses.note(now, lived) {
            let how = match &end.status {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            let after = short_seconds(lived.as_secs_f64());
            note(&format!(
                "scale: {name} ended by itself ({how}) after {after}; the next waits {pause:?}"
            ));
        }
    }

    /// Ends all workers, gently while there is time.
    async fn end_all(&mut self) {
        for worker in &self.workers {
            worker.tell(Word::End);
        }
        let end = Instant::now() + STOP_WITHIN;
        while !self.workers.is_empty() {
            tokio::select! {
                Some(end) = self.ends.recv() => self.note_end(&end),
                () = hurried(&mut self.order) => break,
                () = sleep_until(end) => {
                    let (left, group) = (self.workers.len(), &self.scale.group);
                    note(&format!("scale: {left} of {group} did not end within {STOP_WITHIN:?}"));
                    break;
                },
            }
        }
        for word in [Word::Now, Word::Kill] {
            for worker in &self.workers {
                worker.tell(word);
            }
            let end = Instant::now() + KILLED_WITHIN;
            while !self.workers.is_empty() {
                tokio::select! {
                    Some(end) = self.ends.recv() => self.note_end(&end),
                    () = sleep_until(end) => break,
                }
            }
        }
    }
}

/// Waits for the end of a worker, and tells it what it is to be told.
async fn live(
    mut process: Process,
    number: u32,
    mut heard: watch::Receiver<Word>,
    ended: mpsc::Sender<End>,
) {
    /// Two signals of one kind that come together are one.
    const APART: Duration = Duration::from_millis(100);
    let mut said = Word::Work;
    let status = loop {
        let wanted = *heard.borrow_and_update();
        if said < wanted {
            said = match said {
                Word::Work => Word::End,
                Word::End => Word::Now,
                Word::Now | Word::Kill => Word::Kill,
            };
            say(&mut process, said);
            if let Ok(status) = timeout(APART, process.wait()).await {
                break status;
            }
            continue;
        }
        tokio::select! {
            status = process.wait() => break status,
            changed = heard.changed() => if changed.is_err() {
                // Its keeper is gone without a word; so is the reason to run.
                say(&mut process, Word::Kill);
                break process.wait().await;
            },
        }
    };
    drop(ended.send(End { number, status }).await);
}

/// Sends a process the signal for a word.
fn say(process: &mut Process, word: Word) {
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
    // One that ended is not reaped yet: the number is still its own.
    let result = match (word, pid.and_then(Pid::from_raw)) {
        (Word::Work, _) | (_, None) => Ok(()),
        (Word::End | Word::Now, Some(pid)) => {
            kill_process(pid, Signal::TERM).map_err(io::Error::from)
        },
        (Word::Kill, Some(_)) => process.start_kill(),
    };
    if let Err(error) = result {
        note(&format!("scale: a worker cannot be told to stop: {error}"));
    }
}

/// Passes the lines of a worker on; a longer one than is bearable comes in parts.
async fn pass_on(name: String, log: impl AsyncRead + Unpin) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut log)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {},
        }
        let text = String::from_utf8_lossy(&line);
        worker_line(&name, &harmless(text.trim_end()));
    }
}

/// The id of a worker. Each start has a new one: what an old one held is none of its business.
fn id_of(group: &str, number: u32, random: u16) -> String {
    let group: String = group.chars().take(GROUP_CHARACTERS_MAX).collect();
    format!("{group}-{number}-{random:04x}")
}

/// Waits for a moment, or for ever when there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
