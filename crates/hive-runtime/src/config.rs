//! Configuration: one table of typed keys per daemon, resolved over flag, environment and file.
//!
//! A daemon declares its own sections by [`Settings`]; the sections that all daemons share are in
//! [`common`]. Reading happens once at start, everything wrong is reported at once, and what comes
//! out holds only values that cannot be wrong. Types of a key are checked here rather than by
//! serde, which stops at the first mistake.

pub mod common;
pub mod key;
pub mod problems;
mod render;
pub mod value;
pub mod values;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use common::{Admin, Log, LogFormat, Redis, Secret, Server};
pub use key::{Key, Literal, Rule, Spec};
pub use problems::{Problem, Problems};
pub use render::{check_reference, reference};
pub use values::{Inputs, Source, Values};

/// The sections of one daemon.
pub trait Settings: Sized + Send + Sync + 'static {
    /// Every key of these sections, grouped by section, in the order in which they are shown.
    const KEYS: &'static [&'static Spec];

    /// Reads the keys and checks the rules that span several of them. Rules of a single key hold
    /// already: a value that broke its rule was reported and reads as its default.
    fn read(values: &Values, problems: &mut Problems) -> Self;
}

/// A daemon without sections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSettings;

impl Settings for NoSettings {
    const KEYS: &'static [&'static Spec] = &[];

    fn read(_values: &Values, _problems: &mut Problems) -> Self {
        Self
    }
}

/// The whole configuration of a daemon.
#[derive(Debug, Clone)]
pub struct Config<S> {
    /// `[server]`: the port for agents, operators and other daemons.
    pub server: Server,
    /// `[admin]`: the port for probes and scrapers.
    pub admin: Admin,
    /// `[redis]`: where all state is.
    pub redis: Redis,
    /// `[log]`: what is logged and how.
    pub log: Log,
    /// The daemon's own sections.
    pub own: S,
    /// Every key with its value and its source, for display.
    pub values: Values,
}

impl<S: Settings> Config<S> {
    /// Reads the configuration of a daemon that listens on `listen` by default.
    ///
    /// # Errors
    /// Everything that is wrong with it. The values are there even so, for display.
    pub fn resolve(listen: &'static str, inputs: &Inputs) -> Result<Self, Box<(Problems, Values)>> {
        let mut problems = Problems::default();
        let values = Values::resolve(&specs::<S>(listen), inputs, &mut problems);
        let config = Self {
            server: Server::read(&values, &mut problems),
            admin: Admin::read(&values, &mut problems),
            redis: Redis::read(&values, &mut problems),
            log: Log::read(&values, &mut problems),
            own: S::read(&values, &mut problems),
            values,
        };
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Box::new((problems, config.values)))
        }
    }
}

/// Every key of a daemon with the settings `S` that listens on `listen` by default.
#[must_use]
pub fn specs<S: Settings>(listen: &'static str) -> Vec<Spec> {
    let mut specs: Vec<Spec> = common::KEYS
        .iter()
        .chain(S::KEYS)
        .map(|spec| **spec)
        .collect();
    for spec in &mut specs {
        if spec.path == common::LISTEN.path() {
            spec.default = Literal::Text(listen);
        }
    }
    specs
}

/// Whether nobody but this machine reaches `address`.
fn is_private(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
