//! Logs by `tracing` to standard error, and the hook by which a panic ends the process.
//!
//! Standard output stays free for what a command is asked to print.

use std::io::{self, IsTerminal as _};
use std::panic;
use std::process;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};
use crate::exit::Exit;

/// Changes what is logged while the daemon runs. Cheap to clone.
#[derive(Clone)]
pub struct LogFilter(Arc<SetFilter>);

type SetFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl LogFilter {
    /// Sets the filter.
    ///
    /// # Errors
    /// Why `filter` does not parse.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        (self.0)(filter)
    }

    /// Checks filters and changes nothing, for a chassis inside a test.
    pub(crate) fn detached() -> Self {
        Self(Arc::new(|filter| parse(filter).map(drop)))
    }
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogFilter")
    }
}

/// The filter that `text` describes.
///
/// # Errors
/// Why it describes none, to be read behind the text.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    // tracing-subscriber 0.3.23 slices inside characters of several bytes, which panics.
    if !text.is_ascii() {
        return Err("must be ASCII".to_owned());
    }
    EnvFilter::try_new(text).map_err(|error| format!("must be a filter of levels: {error}"))
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    parse_filter(filter).map_err(|rule| format!("log filter `{filter}` {rule}"))
}

/// Starts the log of the process.
///
/// # Errors
/// When a log was started before, or the filter does not parse.
pub(crate) fn install(log: &Log) -> Result<LogFilter, String> {
    let (filter, handle) = reload::Layer::new(parse(&log.filter)?);
    let is_json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let layer = if is_json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
            .boxed()
    } else {
        fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(LogFilter(Arc::new(move |filter| {
        handle
            .reload(parse(filter)?)
            .map_err(|error| error.to_string())
    })))
}

/// From here on a panic in any thread is logged and ends the process with exit code 70: half a
/// daemon is worse than none, and whoever restarts it starts a whole one.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "no caller is left to return to"
)]
pub(crate) fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(
            message,
            place,
            thread = thread.name().unwrap_or("unnamed"),
            backtrace = %backtrace,
            "panic"
        );
        process::exit(Exit::Panic.code().into());
    }));
}
