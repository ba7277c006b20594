//! Where runs are worked on: a run is loaded, takes events, and its step is committed.
//!
//! A step is worked out in memory and written by one script under the version that it was worked
//! out from; where there is nothing to write, the version is asked for. Whoever loses that race
//! reads anew and works it out again, so any router may work on any run. What a step owes to shards
//! stands in the partition's outbox when the step is written; whoever wrote it carries it out at
//! once and takes it off, else the outbox's owner does.
//!
//! While a step is under way its run is in nobody's memory but the step's: a caller that goes away
//! in the middle leaves a run that is read anew, never one that differs from what is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use hive_domain::{
    time::Timestamp,
    workflow::{
        Effect, Event, Illegal, Limits, Run, RunStatus, TaskDefinition, TaskIndex,
        condition::Condition,
        run::{DISPATCHES_MAX, Entry, Refused},
    },
};
use hive_protocol::fault::{Fault, Reason};
use hive_runtime::tasks::{BACKGROUND, Tasks};
use hive_store::{
    Store, StoreError,
    runs::{Commit, Committed, Created, Inputs, NewRun, Partition, Step, TaskResult, Written},
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::{
    history, metrics,
    names::RunName,
    outbox::{Order, Owed},
    placing::{Facts, Placing},
    provisioning::Provisioning,
    settings::Workflows,
    stored::{self, Loaded, RECORD_BYTES, Target, Undecodable},
};

/// Tasks of all runs that are kept in memory, so that the next step need not read them again.
const TASKS_KEPT: u64 = 1_000_000;
/// A run that is kept costs as much as so many tasks, however few it has.
const RUN_WEIGHT: u64 = 20;
/// How often a step is worked out again because the run has changed meanwhile.
const TRIES: u32 = 20;

/// Why a step was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// There is no such run.
    #[error("there is no such run")]
    Gone,
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored does not decode.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// Others changed the run all the while.
    #[error("the run changes faster than this step can be written")]
    Contended,
}

impl From<StepError> for Fault {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Gone => Self::new(Reason::RunNotFound, error.to_string()),
            StepError::Store(error) => error.into(),
            StepError::Undecodable(error) => Self::new(
                Reason::Corrupt,
                "what is stored of the run does not decode; the log of the router names it",
            )
            .with_detail(error.to_string()),
            StepError::Contended => Self::new(Reason::Unreachable, error.to_string()),
        }
    }
}

type Slot = Arc<AsyncMutex<Option<Box<Loaded>>>>;

/// A run that is kept, and what it costs.
#[derive(Debug)]
struct Kept {
    slot: Slot,
    weight: u64,
    /// The larger the later it was used.
    used: u64,
}

/// The runs that are kept.
#[derive(Debug, Default)]
struct Shelf {
    runs: BTreeMap<RunName, Kept>,
    /// What they cost together.
    weight: u64,
}

/// All runs that this router works on.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) placing: Placing,
    pub(crate) provisioning: Arc<Provisioning>,
    pub(crate) settings: Workflows,
    pub(crate) tasks: Tasks,
    shelf: Mutex<Shelf>,
    uses: AtomicU64,
    changed: Mutex<BTreeMap<RunName, Arc<Notify>>>,
    /// Namespaces that are known to have workflows.
    noted: Mutex<BTreeSet<String>>,
    /// Rings when one more has.
    pub(crate) new_namespace: Notify,
}

/// A step that is being worked out.
pub(crate) struct Draft<'a> {
    loaded: &'a mut Loaded,
    facts: &'a Facts,
    now: Timestamp,
    owed: Vec<Owed>,
    history: Vec<Bytes>,
    results: BTreeMap<TaskIndex, Bytes>,
    contents: Vec<(TaskIndex, Bytes)>,
    answers: Vec<(TaskIndex, Bytes)>,
    to_evaluate: Vec<TaskIndex>,
    has_new_plan: bool,
    /// How the run ended, where this step ends it: counted once that is written.
    ended: Option<RunStatus>,
}

impl Draft<'_> {
    /// The run as it is after what was applied.
    pub(crate) const fn run(&self) -> &Run {
        &self.loaded.run
    }

    /// Where an attempt is sent: the open one of the task, or the last one.
    pub(crate) fn target(&self, task: TaskIndex) -> Option<&Target> {
        self.loaded.target(task)
    }

    /// Applies an event. One that is not legal changes nothing. What may start because of it is
    /// dispatched when the step is complete.
    pub(crate) fn apply(&mut self, event: Event) -> Result<(), Illegal> {
        let effects = self.loaded.run.apply_one_of(event, self.now)?;
        self.absorb(effects);
        Ok(())
    }

    /// Dispatches what may start, as much as one step may.
    fn dispatch(&mut self) {
        // Legal always: it asks for nothing.
        if let Ok(effects) = self.loaded.run.apply(Event::Continue, self.now) {
            self.absorb(effects);
        }
    }

    /// From the next attempt on the message of a task says this.
    pub(crate) fn put_content(&mut self, task: TaskIndex, content: Bytes) {
        self.contents.push((task, content));
    }

    /// Adds tasks with what their messages say; all of them or none.
    pub(crate) fn add_tasks(
        &mut self,
        added: Vec<(TaskDefinition, Bytes)>,
        limits: &Limits,
    ) -> Result<(), Refused> {
        let (definitions, contents): (Vec<_>, Vec<_>) = added.into_iter().unzip();
        let ids: Vec<String> = definitions.iter().map(|task| task.id.clone()).collect();
        let effects = self.loaded.run.add_tasks(definitions, limits, self.now)?;
        for (id, content) in ids.into_iter().zip(contents) {
            if let Some(task) = self.loaded.run.find(&id) {
                self.contents.push((task, content));
            }
        }
        self.has_new_plan = true;
        self.absorb(effects);
        Ok(())
    }

    /// Keeps the result of a task that has one by its state; else it has none from now on, also
    /// where an attempt before had one.
    pub(crate) fn put_result(&mut self, task: TaskIndex, result: Bytes) {
        let has_result = self
            .loaded
            .run
            .task(task)
            .is_some_and(|state| state.has_result);
        let kept = if has_result { result } else { Bytes::new() };
        self.results.insert(task, kept);
    }

    /// Keeps the question or the answer of a task.
    pub(crate) fn put_answer(&mut self, task: TaskIndex, answer: Bytes) {
        self.answers.push((task, answer));
    }

    /// Notes something in the history that changes nothing.
    pub(crate) fn record(&mut self, task: TaskIndex, what: Entry) {
        let record = history::record(&self.loaded.run, Some(task), what);
        self.history.push(record);
    }

    /// Sends an attempt that no group served so far to one, where there is one by now.
    pub(crate) fn place(&mut self, task: TaskIndex, attempt: u32) -> bool {
        let definition = self.loaded.run.definition();
        let place = usize::try_from(task).unwrap_or(usize::MAX);
        let Some(asked) = definition.tasks.get(place) else {
            return false;
        };
        let Ok((target, _)) = self.facts.place(definition, asked) else {
            return false;
        };
        if self.apply(Event::Placed { task, attempt }).is_err() {
            return false;
        }
        self.loaded.targets.insert(task, target);
        true
    }

    fn absorb(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dispatch { task, attempt } => {
                    self.loaded.targets.remove(&task);
                    self.place(task, attempt);
                    self.owed.push(Owed::Dispatch { task, attempt });
                },
                // Its outbox entry finds an attempt that is not open.
                Effect::Void { .. } => {},
                Effect::Resolve {
                    task,
                    attempt,
                    resolution,
                } => self.owed.push(Owed::Resolve {
                    task,
                    attempt,
                    resolution,
                }),
                Effect::Evaluate { task } => self.to_evaluate.push(task),
                Effect::DropResult { task } => {
                    self.results.insert(task, Bytes::new());
                },
                Effect::Record { task, what } => {
                    self.history
                        .push(history::record(&self.loaded.run, task, what));
                },
                Effect::Finished { status } => self.ended = Some(status),
            }
        }
    }

    /// Whether there is anything to write besides the states of the run.
    fn has_something(&self) -> bool {
        !self.owed.is_empty()
            || !self.history.is_empty()
            || !self.results.is_empty()
            || !self.contents.is_empty()
            || !self.answers.is_empty()
            || self.has_new_plan
    }
}

impl Desk {
    pub(crate) fn new(store: Store, settings: Workflows, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            placing: Placing::new(store.clone()),
            provisioning: Arc::new(Provisioning::new()),
            store,
            settings,
            tasks,
            shelf: Mutex::default(),
            uses: AtomicU64::new(0),
            changed: Mutex::default(),
            noted: Mutex::default(),
            new_namespace: Notify::new(),
        })
    }

    /// Notes that a namespace has workflows, before its first run is stored: whoever looks after
    /// it must find it.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub(crate) async fn note(&self, namespace: &str) -> Result<(), StoreError> {
        self.store.note_workflows(namespace).await?;
        if self.noted.lock().insert(namespace.to_owned()) {
            self.new_namespace.notify_one();
        }
        Ok(())
    }

    /// Now, by the clock of Redis.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.store.now_ms())
    }

    /// Works out a step, writes it, and carries out what it owes; `act` is asked again where the
    /// run has changed meanwhile. Where it answers an error nothing is written.
    pub(crate) async fn step<T, E>(
        self: &Arc<Self>,
        name: &RunName,
        mut act: impl FnMut(&mut Draft<'_>) -> Result<T, E> + Send,
    ) -> Result<Result<T, E>, StepError>
    where
        T: Send,
        E: Send,
    {
        let slot = self.slot(name);
        let mut held = slot.lock().await;
        let mut tries = 0;
        let (answer, mut loaded) = loop {
            let (loaded, is_kept) = match held.take() {
                Some(loaded) => (loaded, true),
                None => (self.load(name).await?, false),
            };
            let version = loaded.version;
            let tried = self.try_step(name, loaded, &mut act).await?;
            // What is written is checked by that. This was decided by what is kept alone, and
            // another router may have gone on with the run: an outcome that is legal there must
            // not be lost here.
            let is_unchecked = is_kept && matches!(tried, Tried::Refused(..) | Tried::Nothing(..));
            let tried = if is_unchecked && self.version(name).await? != version {
                Tried::Conflict
            } else {
                tried
            };
            match tried {
                Tried::Refused(error, loaded) => {
                    *held = loaded;
                    return Ok(Err(error));
                },
                Tried::Nothing(answer, loaded) | Tried::Written(answer, loaded) => {
                    break (answer, loaded);
                },
                Tried::Conflict => {
                    metrics::step_conflict();
                    tries += 1;
                    if tries >= TRIES {
                        return Err(StepError::Contended);
                    }
                },
            }
        };
        // What one step left over: no more than a script may do at once.
        while loaded.run.has_more() {
            let mut go_on = |_: &mut Draft<'_>| Ok::<(), Illegal>(());
            match self.try_step(name, loaded, &mut go_on).await {
                Ok(Tried::Nothing((), next) | Tried::Written((), next)) => loaded = next,
                // Somebody else goes on with it, or the next look at the run does.
                Ok(Tried::Conflict | Tried::Refused(..)) | Err(_) => return Ok(Ok(answer)),
            }
        }
        self.weigh(name, &loaded);
        *held = Some(loaded);
        Ok(Ok(answer))
    }

    async fn try_step<T, E>(
        self: &Arc<Self>,
        name: &RunName,
        mut loaded: Box<Loaded>,
        act: &mut (impl FnMut(&mut Draft<'_>) -> Result<T, E> + Send),
    ) -> Result<Tried<T, E>, StepError> {
        let facts = self.placing.facts(&name.namespace).await?;
        let partition = name.partition(&self.store).ok_or(StepError::Gone)?;
        let before = loaded.run.head().clone();
        let mut draft = draft(&mut loaded, &facts, self.now());
        let answer = match act(&mut draft) {
            Ok(answer) => answer,
            Err(error) => {
                let is_untouched = !draft.has_something();
                let is_untouched = is_untouched && loaded.run.take_changed().is_empty();
                return Ok(Tried::Refused(error, is_untouched.then_some(loaded)));
            },
        };
        self.complete(&partition, &name.run_id, &mut draft).await?;
        let has_something = draft.has_something();
        let Draft {
            owed,
            history,
            results,
            contents,
            answers,
            has_new_plan,
            ended,
            ..
        } = draft;
        let changed = loaded.run.take_changed();
        let is_same_head = before == *loaded.run.head();
        let step = Step {
            head: stored::head_fields(&loaded.run),
            states: changed
                .iter()
                .filter_map(|task| Some((*task, stored::encode(loaded.run.task(*task)?))))
                .collect(),
            notes: changed
                .iter()
                .map(|task| (*task, loaded.note(*task)))
                .collect(),
            results: results.into_iter().collect(),
            outbox: owed.iter().map(|owed| owed.encode(&name.run_id)).collect(),
            history,
            plan: has_new_plan.then(|| stored::json(loaded.run.definition())),
            contents,
            answers,
            due_ms: loaded.run.deadline().map(Timestamp::as_millis),
        };
        if changed.is_empty() && is_same_head && !has_something {
            return Ok(Tried::Nothing(answer, loaded));
        }
        let commit = Commit {
            run_id: &name.run_id,
            version: loaded.version,
            record_bytes: RECORD_BYTES,
            status: (before.status.as_str(), loaded.run.status().as_str()),
            has_ended: loaded.run.status().is_final(),
            durable: self.settings.durable,
        };
        match self.store.commit_run(&partition, commit, &step, 0).await? {
            Committed::Gone => Err(StepError::Gone),
            Committed::Conflict(_) => Ok(Tried::Conflict),
            Committed::Done { version, written } => {
                loaded.version = version;
                metrics::step_written();
                self.written(name, &mut loaded, (owed, ended), written);
                Ok(Tried::Written(answer, loaded))
            },
        }
    }

    /// Carries out what a step owes, beside whoever wrote it, and counts what it ended.
    fn written(
        self: &Arc<Self>,
        name: &RunName,
        loaded: &mut Loaded,
        (owed, ended): (Vec<Owed>, Option<RunStatus>),
        written: Written,
    ) {
        if let Some(status) = ended {
            metrics::run_ended(status);
        }
        if !written.newest.is_empty() {
            loaded.newest = written.newest;
        }
        let orders: Vec<Order> = owed
            .into_iter()
            .zip(written.owed)
            .filter_map(|(owed, entry)| Order::new(loaded, owed, entry, self.now()))
            .collect();
        if !orders.is_empty() {
            let (desk, name) = (Arc::clone(self), name.clone());
            self.tasks.spawn(BACKGROUND, "carry out", async move {
                desk.carry_out(&name, orders).await;
            });
        }
        if let Some(changed) = self.changed.lock().get(name) {
            changed.notify_waiters();
        }
    }

    /// Dispatches what a step lets start, and answers the conditions that are asked for on the way.
    /// `results_of` is the run whose results are stored.
    async fn complete(
        &self,
        partition: &Partition,
        results_of: &str,
        draft: &mut Draft<'_>,
    ) -> Result<(), StoreError> {
        loop {
            if draft.owed.len() < DISPATCHES_MAX {
                draft.dispatch();
            }
            if draft.to_evaluate.is_empty() {
                return Ok(());
            }
            for task in std::mem::take(&mut draft.to_evaluate) {
                let inputs = self.inputs(partition, results_of, draft, task).await?;
                let place = usize::try_from(task).unwrap_or(usize::MAX);
                let definition = draft.run().definition().tasks.get(place);
                let text = definition.map(|task| task.condition.clone());
                let condition = Condition::parse(&text.unwrap_or_default());
                let holds = condition.and_then(|condition| condition.holds(&inputs));
                // One that is not asked for any more was decided by another event of this step.
                if let Err(illegal) = draft.apply(Event::Evaluated { task, holds }) {
                    metrics::illegal_event(&illegal);
                }
            }
        }
    }

    /// Results of the dependencies of a task as conditions see them; what is no JSON, or too large
    /// to ride along with a task, is null.
    async fn inputs(
        &self,
        partition: &Partition,
        results_of: &str,
        draft: &Draft<'_>,
        task: TaskIndex,
    ) -> Result<BTreeMap<String, Value>, StoreError> {
        let dependencies = draft.run().graph().dependencies(task).to_vec();
        let asked = [Inputs {
            task,
            dependencies: dependencies.clone(),
        }];
        let found = self.store.task_inputs(partition, results_of, &asked);
        let stored = found.await?.pop().map(|found| found.results);
        let stored = stored.unwrap_or_default().into_iter();
        let results = dependencies
            .iter()
            .zip(stored)
            .filter_map(|(need, stored)| {
                let stored = match stored {
                    TaskResult::Bytes(bytes) => Some(bytes),
                    TaskResult::None | TaskResult::Omitted => None,
                };
                // What comes with this step is not stored yet.
                let result = draft.results.get(need).cloned().or(stored);
                let value = result.and_then(|result| serde_json::from_slice(&result).ok());
                let id = draft.run().id(*need)?.to_owned();
                Some((id, value.unwrap_or(Value::Null)))
            });
        Ok(results.collect())
    }

    /// Stores a new run with its first step; the run is one that was started just now. `new` says
    /// the rest.
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: &RunName,
        run: (Run, Vec<Effect>),
        mut new: NewRun,
    ) -> Result<Created, StepError> {
        let facts = self.placing.facts(&name.namespace).await?;
        let partition = name.partition(&self.store).ok_or(StepError::Gone)?;
        let (run, effects) = run;
        let mut loaded = Box::new(Loaded {
            run,
            version: 1,
            created_ms: 0,
            targets: BTreeMap::new(),
            newest: String::new(),
        });
        let mut draft = draft(&mut loaded, &facts, self.now());
        draft.absorb(effects);
        let results_of = match new.copies.as_str() {
            "" => &*name.run_id,
            copies => copies,
        };
        self.complete(&partition, results_of, &mut draft).await?;
        let Draft {
            owed,
            history,
            ended,
            ..
        } = draft;
        let _all_are_new = loaded.run.take_changed();
        let tasks = (0..).take(loaded.run.tasks().len());
        new.run_id = name.run_id.to_string();
        new.plan = stored::json(loaded.run.definition());
        new.states = loaded
            .run
            .tasks()
            .iter()
            .flat_map(|state| stored::encode(state).to_vec())
            .collect();
        loaded.run.status().as_str().clone_into(&mut new.status);
        new.has_ended = loaded.run.status().is_final();
        new.first = Step {
            head: [
                stored::head_fields(&loaded.run),
                vec![(
                    stored::META.to_owned(),
                    stored::json(&stored::Meta::of(loaded.run.definition())),
                )],
            ]
            .concat(),
            notes: tasks
                .map(|task| (task, loaded.note(task)))
                .filter(|(_, note)| !note.is_empty())
                .collect(),
            outbox: owed.iter().map(|owed| owed.encode(&name.run_id)).collect(),
            history,
            due_ms: loaded.run.deadline().map(Timestamp::as_millis),
            ..Step::default()
        };
        let created = self
            .store
            .create_run(&partition, &new, self.settings.durable, 0)
            .await?;
        if created == Created::Exists(name.run_id.to_string()) {
            // This very run: the first answer was lost. What it owes is found in its outbox.
            if let Some(status) = ended {
                metrics::run_ended(status);
            }
            return Ok(Created::Stored {
                at_ms: 0,
                written: Written::default(),
            });
        }
        if let Created::Stored { at_ms, written } = &created {
            loaded.created_ms = *at_ms;
            self.written(name, &mut loaded, (owed, ended), written.clone());
            let has_more = loaded.run.has_more();
            self.weigh(name, &loaded);
            *self.slot(name).lock().await = Some(loaded);
            if has_more {
                let go_on = |_: &mut Draft<'_>| Ok::<(), Illegal>(());
                // The run is stored: what is left over is found by its next look.
                let _later = self.step(name, go_on).await;
            }
        }
        Ok(created)
    }

    /// Shows a run as it is stored now.
    pub(crate) async fn look<T>(
        &self,
        name: &RunName,
        show: impl FnOnce(&Loaded) -> T,
    ) -> Result<T, StepError> {
        let slot = self.slot(name);
        let mut held = slot.lock().await;
        let partition = name.partition(&self.store).ok_or(StepError::Gone)?;
        let version = self.store.run_version(&partition, &name.run_id).await?;
        let Some(version) = version else {
            self.forget(name);
            return Err(StepError::Gone);
        };
        let loaded = match held.take() {
            Some(loaded) if loaded.version == version => loaded,
            Some(_) | None => self.load(name).await?,
        };
        self.weigh(name, &loaded);
        let shown = show(&loaded);
        *held = Some(loaded);
        Ok(shown)
    }

    /// Version of the stored state of a run.
    pub(crate) async fn version(&self, name: &RunName) -> Result<u64, StepError> {
        let partition = name.partition(&self.store).ok_or(StepError::Gone)?;
        let version = self.store.run_version(&partition, &name.run_id).await?;
        version.ok_or(StepError::Gone)
    }

    async fn load(&self, name: &RunName) -> Result<Box<Loaded>, StepError> {
        let partition = name.partition(&self.store).ok_or(StepError::Gone)?;
        let stored = self.store.read_run(&partition, &name.run_id, true).await?;
        let Some(stored) = stored else {
            self.forget(name);
            return Err(StepError::Gone);
        };
        Ok(Box::new(Loaded::read(stored)?))
    }

    fn slot(&self, name: &RunName) -> Slot {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut shelf = self.shelf.lock();
        if let Some(found) = shelf.runs.get_mut(name) {
            found.used = used;
            return Arc::clone(&found.slot);
        }
        let slot = Slot::default();
        let new = Kept {
            slot: Arc::clone(&slot),
            weight: RUN_WEIGHT,
            used,
        };
        shelf.weight = shelf.weight.saturating_add(RUN_WEIGHT);
        shelf.runs.insert(name.clone(), new);
        slot
    }

    /// Notes what a run costs, and lets go of those not used for longest when all cost too much.
    fn weigh(&self, name: &RunName, loaded: &Loaded) {
        let tasks = u64::try_from(loaded.run.tasks().len()).unwrap_or(u64::MAX);
        let weight = tasks.saturating_add(RUN_WEIGHT);
        let mut shelf = self.shelf.lock();
        let Some(found) = shelf.runs.get_mut(name) else {
            return;
        };
        let before = std::mem::replace(&mut found.weight, weight);
        shelf.weight = shelf.weight.saturating_sub(before).saturating_add(weight);
        if shelf.weight > TASKS_KEPT {
            let mut uses: Vec<u64> = shelf.runs.values().map(|one| one.used).collect();
            uses.sort_unstable();
            let middle = uses.get(uses.len() / 2).copied().unwrap_or_default();
            // One that somebody holds goes on by itself: its next step reads it anew.
            shelf.runs.retain(|_, one| one.used >= middle);
            shelf.weight = shelf.runs.values().map(|one| one.weight).sum();
        }
    }

    /// Lets go of all runs: what is stored may be older than what is kept.
    pub(crate) fn forget_all(&self) {
        *self.shelf.lock() = Shelf::default();
        self.noted.lock().clear();
    }

    /// Lets go of a run.
    pub(crate) fn forget(&self, name: &RunName) {
        let mut shelf = self.shelf.lock();
        if let Some(gone) = shelf.runs.remove(name) {
            shelf.weight = shelf.weight.saturating_sub(gone.weight);
        }
    }

    /// Wakes whoever waits for the next step of a run that this router writes.
    pub(crate) fn wakes(&self, name: &RunName) -> Arc<Notify> {
        let mut changed = self.changed.lock();
        changed.retain(|_, one| Arc::strong_count(one) > 1);
        Arc::clone(changed.entry(name.clone()).or_default())
    }
}

/// What became of one attempt at a step.
enum Tried<T, E> {
    /// Written.
    Written(T, Box<Loaded>),
    /// There was nothing to write.
    Nothing(T, Box<Loaded>),
    /// Not legal; the run as it is stored, unless it was changed before.
    Refused(E, Option<Box<Loaded>>),
    /// The run has changed meanwhile.
    Conflict,
}

pub(crate) fn draft<'a>(loaded: &'a mut Loaded, facts: &'a Facts, now: Timestamp) -> Draft<'a> {
    Draft {
        loaded,
        facts,
        now,
        owed: Vec::new(),
        history: Vec::new(),
        results: BTreeMap::new(),
        contents: Vec::new(),
        answers: Vec::new(),
        to_evaluate: Vec::new(),
        has_new_plan: false,
        ended: None,
    }
}
