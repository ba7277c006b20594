//! Reads what the kernel knows of this process, at each scrape.
//!
//! Where `/proc` is missing the values stay zero: they inform, nothing depends on them.

use std::fs;
use std::sync::{LazyLock, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::chassis::{CPU, OPEN_FILES, RESIDENT, START_TIME, UPTIME};
use super::{Gauge, Rows};

static STARTED: OnceLock<Instant> = OnceLock::new();
static CPU_TIME: LazyLock<Rows<1>> = LazyLock::new(|| Rows::shown(&[CPU]));

/// Notes now as the start of the process.
pub(super) fn record_start() {
    STARTED.get_or_init(Instant::now);
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Gauge::new(&START_TIME, &[]).set(since_epoch.as_secs_f64());
}

/// Brings the gauges of the process up to date.
pub(super) fn record() {
    if let Some(started) = STARTED.get() {
        Gauge::new(&UPTIME, &[]).set(started.elapsed().as_secs_f64());
    }
    if let Some(seconds) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(cpu)
    {
        CPU_TIME.set(&[], [Some(seconds)]);
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/statm")
        .ok()
        .as_deref()
        .and_then(resident)
    {
        Gauge::new(&RESIDENT, &[]).set(bytes);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        let count = u32::try_from(files.count()).unwrap_or(u32::MAX);
        Gauge::new(&OPEN_FILES, &[]).set(f64::from(count));
    }
}

/// Seconds of processor time: fields 14 and 15 of proc_pid_stat(5), counted behind the name, which
/// stands in parentheses and may hold spaces.
fn cpu(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some((user + kernel) / f64::from(ticks))
}

/// Bytes in RAM: field 2 of proc_pid_statm(5), which counts pages.
fn resident(statm: &str) -> Option<f64> {
    let pages: f64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = u32::try_from(rustix::param::page_size()).ok()?;
    Some(pages * f64::from(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 300 200 0 0 20 0 1 0 5 6 7";
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        let seconds = cpu(stat).unwrap();
        assert!(
            (seconds - 500.0 / f64::from(ticks)).abs() < f64::EPSILON,
            "{seconds}"
        );
    }

    #[test]
    fn a_line_that_is_cut_short_gives_nothing() {
        assert_eq!(cpu("7 (a) S 1"), None);
        assert_eq!(resident("12"), None);
    }
}
