//! Runs one program for one message, behind the supervisor, and says how it ended.
//!
//! The payload goes to its stdin, what came out of its stdout is the result, the tail of its stderr
//! the reason of a failure, and more of that tail its stack. All of them are bounded, and a program
//! that reads or writes slowly, or not at all, holds up nobody but itself.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    children::{Spawner, supervised_command},
    commands::work::{GRACE_VARIABLE, ID_VARIABLE},
    output::{note, pass_through},
};

/// Most bytes of stdout that become the result: the limit of a result on the wire.
pub(super) const RESULT_BYTES_MAX: usize = 1 << 20;

/// Most bytes of stderr that become the reason: the limit of a reason on the wire.
const REASON_BYTES_MAX: usize = 1024;

/// Most bytes of stderr that become the stack: the limit of a stack on the wire.
const STACK_BYTES_MAX: usize = 4096;

/// How long the output may stay open after the program ended: something it started may hold it.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// Exit code with which a program gives its message back: `EX_TEMPFAIL`.
const RELEASE_CODE: i32 = 75;

/// Exit code with which a program refuses its message for good: `EX_DATAERR`.
const REJECT_CODE: i32 = 65;

/// Exit code with which a program asks for input: behind those that `sysexits.h` has.
const ASK_CODE: i32 = 79;

/// Failure category of a program that took too long.
const CATEGORY_TIMEOUT: &str = "timeout";

/// Failure category of a program that failed: what it wrote tells more than we know.
const CATEGORY_FAILED: &str = "";

/// What runs for each message, and how long it may.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// The line that `sh -c` runs.
    pub(super) line: OsString,
    /// How long it may run; none for as long as it likes.
    pub(super) timeout: Option<Duration>,
    /// Whether its stderr is kept off ours.
    pub(super) is_quiet: bool,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done; this came out.
    Done(Bytes),
    /// It asks for input before it can go on.
    Asks {
        /// What came out.
        question: String,
    },
    /// Not now: give the message back, uncounted.
    Later,
    /// Never: the message can not be handled.
    Refused {
        /// Why, in its own words.
        reason: String,
        /// The end of what it wrote about that.
        stack: String,
    },
    /// It did not work this time.
    Failed {
        /// Why, in its own words.
        reason: String,
        /// What kind of failure.
        category: &'static str,
        /// The end of what it wrote about that.
        stack: String,
    },
    /// It was told to stop, because the message is not ours any more.
    Stopped,
}

/// Why a program was stopped by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    TooLong,
    Unwanted,
}

impl Program {
    /// Runs the program for one message. `unwanted` stops it: SIGTERM, after 10 s SIGKILL, to its
    /// whole process group. Dropping the future stops it too.
    pub(super) async fn run(
        &self,
        spawner: &Spawner,
        payload: Bytes,
        facts: &[(&'static str, String)],
        unwanted: &CancellationToken,
    ) -> Verdict {
        match self.try_run(spawner, payload, facts, unwanted).await {
            Ok(verdict) => verdict,
            Err(error) => {
                let reason = format!("the program cannot be run: {error}");
                Verdict::Failed {
                    reason,
                    category: CATEGORY_FAILED,
                    stack: String::new(),
                }
            },
        }
    }

    async fn try_run(
        &self,
        spawner: &Spawner,
        payload: Bytes,
        facts: &[(&'static str, String)],
        unwanted: &CancellationToken,
    ) -> io::Result<Verdict> {
        let line = [OsStr::new("-c"), self.line.as_os_str()];
        let mut command = supervised_command(OsStr::new("sh"), None, &line)?;
        command.env_remove(ID_VARIABLE).env_remove(GRACE_VARIABLE);
        command.envs(facts.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = Running {
            child: spawner.spawn(command).await?,
        };
        let stdin = running.child.stdin.take();
        let stdout = running.child.stdout.take();
        let stderr = running.child.stderr.take();

        let (mut head, mut tail) = (Head::default(), Tail::default());
        let mut stop = None;
        let status = {
            let feed = feed(stdin, payload);
            let output = async {
                let reads = (head.read(stdout), tail.read(stderr, self.is_quiet));
                tokio::join!(reads.0, reads.1);
            };
            let (mut feed, mut output) = (std::pin::pin!(feed), std::pin::pin!(output));
            let (mut is_fed, mut is_read) = (false, false);
            let mut end = std::pin::pin!(running.end(self.timeout, unwanted, &mut stop));
            let status = loop {
                tokio::select! {
                    status = &mut end => break status?,
                    () = &mut feed, if !is_fed => is_fed = true,
                    () = &mut output, if !is_read => is_read = true,
                }
            };
            if !is_read && timeout(OUTPUT_GRACE, output).await.is_err() {
                note("a program left its output open behind it; what came later is not read");
            }
            status
        };
        Ok(self.verdict(status, stop, head, &tail))
    }

    /// What an exit code, or what we did to it, means.
    fn verdict(&self, status: ExitStatus, stop: Option<Stop>, head: Head, tail: &Tail) -> Verdict {
        let (said, stack) = (tail.text(REASON_BYTES_MAX), tail.text(STACK_BYTES_MAX));
        let because = |short: String| if said.is_empty() { short } else { said.clone() };
        let code = status.code();
        match (stop, code) {
            (Some(Stop::Unwanted), _) => Verdict::Stopped,
            (Some(Stop::TooLong), _) => {
                let limit = self.timeout.unwrap_or_default();
                let reason = format!("not done within {}", humantime::format_duration(limit));
                let reason = if said.is_empty() {
                    reason
                } else {
                    format!("{reason}: {said}")
                };
                Verdict::Failed {
                    reason,
                    category: CATEGORY_TIMEOUT,
                    stack,
                }
            },
            (None, Some(0)) => {
                if head.is_cut {
                    note(&format!("a result was cut after {RESULT_BYTES_MAX} bytes"));
                }
                Verdict::Done(Bytes::from(head.bytes))
            },
            (None, Some(ASK_CODE)) => Verdict::Asks {
                question: String::from_utf8_lossy(&head.bytes).trim().to_owned(),
            },
            (None, Some(RELEASE_CODE)) => Verdict::Later,
            (None, Some(REJECT_CODE)) => Verdict::Refused {
                reason: because(format!("exit code {REJECT_CODE}")),
                stack,
            },
            (None, Some(code)) => {
                let short = match code {
                    129.. => format!("killed by signal {}", code - 128),
                    _ => format!("exit code {code}"),
                };
                Verdict::Failed {
                    reason: because(short),
                    category: CATEGORY_FAILED,
                    stack,
                }
            },
            (None, None) => {
                let reason = because(format!("its supervisor ended: {status}"));
                Verdict::Failed {
                    reason,
                    category: CATEGORY_FAILED,
                    stack,
                }
            },
        }
    }
}

/// A supervisor with its program. Dropping it stops both.
struct Running {
    child: Child,
}

impl Running {
    /// Waits for the end, and brings it about where it is overdue.
    async fn end(
        &mut self,
        limit: Option<Duration>,
        unwanted: &CancellationToken,
        stop: &mut Option<Stop>,
    ) -> io::Result<ExitStatus> {
        let overdue = async {
            match limit {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        *stop = Some(tokio::select! {
            status = self.child.wait() => return status,
            () = overdue => Stop::TooLong,
            () = unwanted.cancelled() => Stop::Unwanted,
        });
        self.terminate();
        self.child.wait().await
    }

    /// Asks the supervisor to stop the program; it kills it after its own grace.
    fn terminate(&self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            note(&format!("a program cannot be told to stop: {error}"));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After the end there is no process id any more, and nothing is sent.
        self.terminate();
    }
}

/// Writes the payload. A program that does not want to read it is free to.
async fn feed(stdin: Option<ChildStdin>, payload: Bytes) {
    if let Some(mut stdin) = stdin {
        drop(stdin.write_all(&payload).await);
    }
}

/// The first bytes of an output.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Head {
    /// Reads to the end, so that the program never blocks, and keeps what fits.
    async fn read(&mut self, output: Option<impl AsyncRead + Unpin>) {
        let Some(mut output) = output else { return };
        let mut chunk = vec![0; 16 << 10];
        while let Ok(count @ 1..) = output.read(&mut chunk).await {
            self.take(chunk.get(..count).unwrap_or_default());
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        let room = RESULT_BYTES_MAX.saturating_sub(self.bytes.len());
        let kept = chunk.get(..room).unwrap_or(chunk);
        self.bytes.extend_from_slice(kept);
        self.is_cut |= kept.len() < chunk.len();
    }
}

/// The last bytes of an output.
#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    async fn read(&mut self, output: Option<impl AsyncRead + Unpin>, is_quiet: bool) {
        let Some(mut output) = output else { return };
        let mut chunk = vec![0; 4 << 10];
        while let Ok(count @ 1..) = output.read(&mut chunk).await {
            let chunk = chunk.get(..count).unwrap_or_default();
            self.take(chunk);
            if !is_quiet {
                pass_through(chunk);
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.bytes.extend(chunk);
        let surplus = self.bytes.len().saturating_sub(STACK_BYTES_MAX);
        self.bytes.drain(..surplus);
    }

    /// The end of it as text of at most so many bytes, without space around.
    fn text(&self, bytes_max: usize) -> String {
        let skipped = self.bytes.len().saturating_sub(bytes_max);
        let bytes = self.bytes.iter().skip(skipped).copied();
        let bytes = bytes.collect::<Vec<_>>();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        // A replaced byte takes three: cut again, at a character.
        let surplus = text.len().saturating_sub(bytes_max);
        let start = (surplus..=text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.get(start..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn verdict(code: i32, stop: Option<Stop>, stderr: &str) -> Verdict {
        let timeout = Some(Duration::from_secs(5));
        let program = Program {
            line: OsString::from("true"),
            timeout,
            is_quiet: true,
        };
        let mut tail = Tail::default();
        tail.take(stderr.as_bytes());
        let head = Head {
            bytes: b"out".to_vec(),
            is_cut: false,
        };
        program.verdict(ExitStatus::from_raw(code << 8), stop, head, &tail)
    }

    #[test]
    fn exit_codes_mean_what_the_manual_says() {
        let failed = |reason: &str, stack: &str| Verdict::Failed {
            reason: reason.to_owned(),
            category: CATEGORY_FAILED,
            stack: stack.to_owned(),
        };
        assert_eq!(
            verdict(0, None, "noise"),
            Verdict::Done(Bytes::from_static(b"out"))
        );
        assert_eq!(verdict(75, None, ""), Verdict::Later);
        assert_eq!(
            verdict(65, None, "bad\n"),
            Verdict::Refused {
                reason: "bad".to_owned(),
                stack: "bad".to_owned(),
            }
        );
        assert_eq!(verdict(1, None, "no luck"), failed("no luck", "no luck"));
        assert_eq!(verdict(1, None, ""), failed("exit code 1", ""));
        assert_eq!(verdict(137, None, ""), failed("killed by signal 9", ""));
    }

    #[test]
    fn a_timeout_has_a_category_of_its_own() {
        let verdict = verdict(143, Some(Stop::TooLong), "busy");
        let Verdict::Failed {
            reason, category, ..
        } = verdict
        else {
            panic!("a failure")
        };
        assert_eq!(
            (reason.as_str(), category),
            ("not done within 5s: busy", "timeout")
        );
    }

    #[test]
    fn a_program_that_was_told_to_stop_has_no_outcome_even_when_it_says_done() {
        assert_eq!(verdict(0, Some(Stop::Unwanted), ""), Verdict::Stopped);
    }

    #[test]
    fn a_result_keeps_its_head_and_a_reason_its_tail() {
        let mut head = Head::default();
        head.take(&vec![b'a'; RESULT_BYTES_MAX - 1]);
        assert!(!head.is_cut);
        head.take(b"bc");
        assert!(head.is_cut);
        assert_eq!(head.bytes.last(), Some(&b'b'));

        let mut tail = Tail::default();
        tail.take(&vec![b'a'; 5000]);
        tail.take(b"the end");
        for most in [REASON_BYTES_MAX, STACK_BYTES_MAX] {
            assert_eq!(tail.text(most).len(), most);
            assert!(tail.text(most).ends_with("the end"));
        }
    }

    #[test]
    fn a_reason_of_broken_text_stays_within_its_limit() {
        let mut tail = Tail::default();
        tail.take(&[0xff; 5000]);
        assert!(tail.text(REASON_BYTES_MAX).len() <= REASON_BYTES_MAX);
        assert!(tail.text(STACK_BYTES_MAX).len() <= STACK_BYTES_MAX);
    }
}
