//! The Lua scripts: their sources, their hashes, and a call under construction.
//!
//! EVALSHA by hash, so two versions of a script live side by side in a rolling upgrade. A header
//! test holds each script to its documented keys and arguments.

pub mod seeded;

use std::{borrow::Cow, io::Write as _, sync::LazyLock};

use bytes::Bytes;
use redis::Cmd;

/// A script as it is sent.
#[derive(Debug)]
pub struct Script {
    /// File name without its ending.
    pub name: &'static str,
    /// Lua source with its header.
    pub source: &'static str,
    served: LazyLock<Served>,
}

/// What is sent to Redis: the source, but for a seeded bug of a test.
#[derive(Debug)]
struct Served {
    text: Cow<'static, str>,
    hash: String,
}

impl Served {
    fn new(name: &str, source: &'static str) -> Self {
        let text = seeded::served(name, source);
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

impl Script {
    /// The text to load.
    pub fn text(&self) -> &str {
        &self.served.text
    }

    /// SHA-1 of the text, by which Redis knows it.
    pub fn hash(&self) -> &str {
        &self.served.hash
    }
}

macro_rules! scripts {
    ($($constant:ident $name:literal;)*) => {
        $(
            #[doc = concat!("`scripts/", $name, ".lua`; its header is its documentation.")]
            pub static $constant: Script = Script {
                name: $name,
                source: include_str!(concat!("scripts/", $name, ".lua")),
                served: LazyLock::new(|| {
                    Served::new($name, include_str!(concat!("scripts/", $name, ".lua")))
                }),
            };
        )*
        /// Every script.
        pub static ALL: &[&Script] = &[$(&$constant),*];
    };
}

scripts! {
    ACK "ack";
    BUFFERED_EXPIRE "buffered_expire";
    CLOCK_TICK "clock_tick";
    CONSUMER_FORGET "consumer_forget";
    COUNTERS_MEND "counters_mend";
    DAEMON_BEAT "daemon_beat";
    DATASET_ACCEPT "dataset_accept";
    DEFINITION_CREATE "definition_create";
    DEFINITION_PUT "definition_put";
    DELAYED_SHIFT "delayed_shift";
    DUE_DELAYED "due_delayed";
    DUE_SCHEDULED "due_scheduled";
    EXTEND "extend";
    FETCH "fetch";
    GROUP_CREATE "group_create";
    GROUP_DELETE "group_delete";
    GROUP_RESTORE "group_restore";
    GROUP_STATE "group_state";
    GROUP_TAKE "group_take";
    HANDOVER_ADVANCE "handover_advance";
    HANDOVER_READ "handover_read";
    HANDOVER_TRIM "handover_trim";
    HELD_EXPIRE "held_expire";
    HELD_MOVE "held_move";
    JOIN "join";
    KEY_UNBLOCK "key_unblock";
    LANE_RETIRE "lane_retire";
    LEASE_RESTAMP "lease_restamp";
    LEAVE "leave";
    LETTER_CHANGE "letter_change";
    LETTER_TAKE "letter_take";
    PARKED_CHECK "parked_check";
    PENDING_CHECK "pending_check";
    PENDING_WRITE_OFF "pending_write_off";
    PUBLISH "publish";
    REINDEX "reindex";
    ROW_FORGET "row_forget";
    RUN_COMMIT "run_commit";
    RUN_CREATE "run_create";
    RUN_DELETE "run_delete";
    RUN_INPUTS "run_inputs";
    RUN_READ "run_read";
    SCALING_CLAIM "scaling_claim";
    SCALING_WRITE "scaling_write";
    SCHEDULED_CANCEL "scheduled_cancel";
    SETTLE "settle";
    STREAM_CLOSE "stream_close";
    STREAM_OPEN "stream_open";
    TASK_DISPATCH "task_dispatch";
    TASK_LOOK "task_look";
    TASK_RESOLVE "task_resolve";
    TRIM "trim";
    WAITING_EXPIRE "waiting_expire";
}

/// One value of ARGV: where it lies among the short ones, or bytes that are shared until they are
/// sent.
#[derive(Debug, Clone)]
enum Value {
    Short { start: usize, end: usize },
    Bytes(Bytes),
}

/// A call of a script under construction: keys and arguments in the order of its header.
#[derive(Debug, Clone)]
pub struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<Value>,
    /// Texts and numbers, one behind the other: an argument of its own memory each would cost a
    /// gateway more than the sending.
    short: Vec<u8>,
}

impl Call {
    /// An empty call of a script.
    #[must_use]
    pub fn new(script: &'static Script) -> Self {
        Self {
            script,
            keys: Vec::new(),
            args: Vec::new(),
            short: Vec::new(),
        }
    }

    /// The script.
    #[must_use]
    pub fn script(&self) -> &'static Script {
        self.script
    }

    /// Adds a key.
    pub fn key(&mut self, key: impl Into<String>) -> &mut Self {
        self.keys.push(key.into());
        self
    }

    /// Adds a text argument.
    pub fn text(&mut self, text: impl AsRef<str>) -> &mut Self {
        let start = self.short.len();
        self.short.extend_from_slice(text.as_ref().as_bytes());
        self.end_short(start)
    }

    /// Adds a number argument. Lua numbers are doubles: keep it below 2^53.
    pub fn number(&mut self, number: u64) -> &mut Self {
        let start = self.short.len();
        // Writing into memory cannot fail.
        let _infallible = write!(self.short, "{number}");
        self.end_short(start)
    }

    fn end_short(&mut self, start: usize) -> &mut Self {
        let end = self.short.len();
        self.args.push(Value::Short { start, end });
        self
    }

    /// Adds a count of things that follow.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.number(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Adds a 0 or 1 argument.
    pub fn flag(&mut self, flag: bool) -> &mut Self {
        self.number(u64::from(flag))
    }

    /// Adds a bytes argument without copying it yet.
    pub fn bytes(&mut self, bytes: Bytes) -> &mut Self {
        self.args.push(Value::Bytes(bytes));
        self
    }

    /// Adds all arguments of another call.
    pub fn append_args(&mut self, other: Self) -> &mut Self {
        let before = self.short.len();
        self.short.extend(other.short);
        self.args
            .extend(other.args.into_iter().map(|value| match value {
                Value::Short { start, end } => Value::Short {
                    start: before + start,
                    end: before + end,
                },
                Value::Bytes(bytes) => Value::Bytes(bytes),
            }));
        self
    }

    /// Numbers of keys and arguments, for the test of the headers.
    #[must_use]
    pub fn arity(&self) -> (usize, usize) {
        (self.keys.len(), self.args.len())
    }

    /// The command that runs it by its hash.
    #[must_use]
    pub fn command(&self) -> Cmd {
        let bodies: usize = self
            .args
            .iter()
            .map(|value| match value {
                Value::Short { .. } => 0,
                Value::Bytes(bytes) => bytes.len(),
            })
            .sum();
        let keys: usize = self.keys.iter().map(String::len).sum();
        let size = bodies + self.short.len() + keys + 64;
        let mut command = Cmd::with_capacity(self.keys.len() + self.args.len() + 3, size);
        command
            .arg("EVALSHA")
            .arg(self.script.hash())
            .arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for value in &self.args {
            match value {
                Value::Short { start, end } => {
                    command.arg(self.short.get(*start..*end).unwrap_or_default())
                },
                Value::Bytes(bytes) => command.arg(bytes.as_ref()),
            };
        }
        command
    }
}
