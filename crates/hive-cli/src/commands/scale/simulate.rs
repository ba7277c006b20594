//! `hive scale simulate`: what each strategy makes of a load, before a group depends on it.
//!
//! Nothing is asked of a hive: the decisions are those of the domain, over a model of the group.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use hive_domain::scaling::simulate::{Load, Row, Scaler, Shape, World, compare};
use serde::Serialize;

use crate::{
    exit::{Exit, Failure},
    output::{Output, Show},
    values::{duration, short_seconds},
};

/// Largest file of a recorded load: 31 days, a line a second, fit.
const LOAD_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// How to go about it, for `--help`.
pub(super) const EXAMPLES: &str = "\
A recorded load has a line per second: the second (any whole number), a comma, how many messages
arrived in it. Seconds without messages may be left out; a first line of titles is passed over.
Examples:
  hive scale simulate --shape burst
  hive scale simulate --shape ramp,sawtooth --strategy hybrid,keda --seeds 5
  hive scale simulate --load arrivals.csv --service-time 20s --max 12 --scale-down-window 2m";

fn shape() -> impl TypedValueParser<Value = Shape> {
    let words = PossibleValuesParser::new(Shape::ALL.map(Shape::as_str));
    words.try_map(|word| word.parse::<Shape>())
}

fn scaler() -> impl TypedValueParser<Value = Scaler> {
    let words = PossibleValuesParser::new(Scaler::ALL.map(Scaler::as_str));
    words.try_map(|word| word.parse::<Scaler>())
}

/// Which load, which strategies, and the group; what is not named is as the shape has it.
#[derive(Args, Debug)]
pub(crate) struct SimulateArgs {
    /// Shapes of the load, with commas between.
    #[arg(long, value_delimiter = ',', value_parser = shape(), default_value = "burst")]
    shape: Vec<Shape>,
    /// A recorded load, in place of a shape.
    #[arg(long, value_name = "FILE", conflicts_with = "shape")]
    load: Option<PathBuf>,
    /// What scales, with commas between [default: all of them].
    #[arg(long, value_delimiter = ',', value_parser = scaler())]
    strategy: Vec<Scaler>,
    /// How many loads of each shape; the figures are their means.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Fewest consumers.
    #[arg(long, value_name = "COUNT")]
    min: Option<u32>,
    /// Most consumers.
    #[arg(long, value_name = "COUNT")]
    max: Option<u32>,
    /// Waiting messages per consumer beyond which more are wanted.
    #[arg(long)]
    lag_threshold: Option<u32>,
    /// Within which time a backlog is to be worked off.
    #[arg(long, value_parser = duration)]
    drain_target: Option<Duration>,
    /// Fewer are wanted once that held for so long.
    #[arg(long, value_parser = duration)]
    scale_down_window: Option<Duration>,
    /// How long a worker takes from its start until it works.
    #[arg(long, value_parser = duration)]
    startup_time: Option<Duration>,
    /// How long a message takes, in the mean.
    #[arg(long, value_parser = duration)]
    service_time: Option<Duration>,
    /// Messages that a worker works on at once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: Option<u32>,
}

/// What one strategy makes of a load.
#[derive(Debug, Serialize)]
struct View {
    load: String,
    scaled_by: &'static str,
    messages: u64,
    mean_wait_ms: u64,
    p95_wait_ms: u64,
    p99_wait_ms: u64,
    consumer_seconds: u64,
    changes: u32,
    peak: u32,
    interrupted: u64,
    left: u64,
}

impl View {
    fn of(load: &str, row: &Row) -> Self {
        let outcome = &row.outcome;
        Self {
            load: load.to_owned(),
            scaled_by: row.scaler.as_str(),
            messages: outcome.messages,
            mean_wait_ms: outcome.mean_wait_ms,
            p95_wait_ms: outcome.p95_wait_ms,
            p99_wait_ms: outcome.p99_wait_ms,
            consumer_seconds: outcome.consumer_seconds,
            changes: outcome.changes,
            peak: outcome.peak,
            interrupted: outcome.interrupted,
            left: outcome.left,
        }
    }
}

impl Show for View {
    const COLUMNS: &'static [&'static str] = &[
        "LOAD",
        "SCALED BY",
        "MESSAGES",
        "MEAN WAIT",
        "P95",
        "P99",
        "CONSUMER-HOURS",
        "CHANGES",
        "PEAK",
        "INTERRUPTED",
        "LEFT",
    ];

    fn cells(&self) -> Vec<String> {
        let wait = |millis| short_seconds(Duration::from_millis(millis).as_secs_f64());
        let hours = Duration::from_secs(self.consumer_seconds).as_secs_f64() / 3_600.0;
        vec![
            self.load.clone(),
            self.scaled_by.to_owned(),
            self.messages.to_string(),
            wait(self.mean_wait_ms),
            wait(self.p95_wait_ms),
            wait(self.p99_wait_ms),
            format!("{hours:.2}"),
            self.changes.to_string(),
            self.peak.to_string(),
            self.interrupted.to_string(),
            self.left.to_string(),
        ]
    }
}

/// Simulates and prints a row for each load and strategy.
///
/// # Errors
/// When the flags do not fit, or a recorded load cannot be read.
pub(super) fn run(args: &SimulateArgs, out: Output) -> anyhow::Result<Exit> {
    let scalers = match args.strategy.as_slice() {
        [] => &Scaler::ALL,
        named => named,
    };
    let mut views = Vec::new();
    if let Some(path) = &args.load {
        let load = recorded(path)?;
        let world = args.world(World::default())?;
        let loads: Vec<(u64, Load)> = (1..=args.seeds).map(|seed| (seed, load.clone())).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rows = compare(&world, &loads, scalers);
        views.extend(rows.iter().map(|row| View::of(&name, row)));
    } else {
        for shape in &args.shape {
            let world = args.world(World::of(*shape))?;
            let loads = (1..=args.seeds).map(|seed| (seed, shape.load(seed)));
            let rows = compare(&world, &loads.collect::<Vec<_>>(), scalers);
            views.extend(rows.iter().map(|row| View::of(shape.as_str(), row)));
        }
    }
    out.list(&views)?;
    Ok(Exit::Done)
}

impl SimulateArgs {
    /// `world` with what is named in place.
    fn world(&self, mut world: World) -> Result<World, Failure> {
        let set = |place: &mut u64, given: Option<Duration>| {
            if let Some(given) = given {
                *place = u64::try_from(given.as_millis()).unwrap_or(u64::MAX);
            }
        };
        set(&mut world.policy.drain_target_ms, self.drain_target);
        set(
            &mut world.policy.scale_down_window_ms,
            self.scale_down_window,
        );
        set(&mut world.policy.startup_time_ms, self.startup_time);
        set(&mut world.startup_ms, self.startup_time);
        set(&mut world.service_ms, self.service_time);
        world.limits.min = self.min.unwrap_or(world.limits.min);
        world.limits.max = self.max.unwrap_or(world.limits.max);
        world.limits.lag_threshold = self.lag_threshold.unwrap_or(world.limits.lag_threshold);
        world.concurrency = self.concurrency.unwrap_or(world.concurrency);
        let wrong = |message: String| Err(Failure::new(Exit::Usage, message));
        if world.limits.min > world.limits.max {
            let (min, max) = (world.limits.min, world.limits.max);
            return wrong(format!("--min `{min}` must be at most --max, `{max}`"));
        }
        if world.service_ms == 0 {
            return wrong("--service-time must be more than 0".to_owned());
        }
        match world.policy.validate() {
            Ok(()) => Ok(world),
            Err(faults) => wrong(faults.to_string()),
        }
    }
}

/// Reads a recorded load.
fn recorded(path: &Path) -> anyhow::Result<Load> {
    let shown = path.display();
    let mut text = String::new();
    File::open(path)
        .with_context(|| format!("cannot open `{shown}`"))?
        .take(LOAD_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read `{shown}`"))?;
    if fs::metadata(path)?.len() > LOAD_BYTES_MAX {
        let message = format!("`{shown}` has more than {LOAD_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let rows = rows(&text);
    let rows = rows.map_err(|why| Failure::new(Exit::Usage, format!("`{shown}`: {why}")))?;
    Ok(Load::recorded(&rows))
}

/// Seconds with their messages; a first line of titles is passed over.
fn rows(text: &str) -> Result<Vec<(u64, u32)>, String> {
    let mut rows = Vec::new();
    let lines = text.lines().enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let row = line.split_once(',').and_then(|(second, count)| {
            Some((second.trim().parse().ok()?, count.trim().parse().ok()?))
        });
        match row {
            Some(row) => rows.push(row),
            None if index == 0 => {},
            None => {
                let number = index.saturating_add(1);
                return Err(format!(
                    "line {number}, `{line}`, must be a second, a comma, and a count"
                ));
            },
        }
    }
    if rows.is_empty() {
        return Err("it holds no second".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn read(line: &[&str]) -> Result<SimulateArgs, clap::Error> {
        let words = ["hive"].iter().chain(line);
        Line::try_parse_from(words).map(|line| line.args)
    }

    #[test]
    fn a_recorded_load_is_read_by_its_lines() {
        let read = rows("second,messages\n10, 3\n\n12,1\n").unwrap();
        assert_eq!(read, [(10, 3), (12, 1)]);
        let wrong = rows("1,2\n3;4\n").unwrap_err();
        assert!(wrong.starts_with("line 2, `3;4`,"), "{wrong}");
        assert!(rows("second,messages\n").is_err());
    }

    #[test]
    fn flags_change_the_world_and_are_checked() {
        let args = read(&["--max", "5", "--service-time", "3s", "--startup-time", "1s"]).unwrap();
        let world = args.world(World::default()).unwrap();
        assert_eq!((world.limits.max, world.service_ms), (5, 3_000));
        assert_eq!(
            (world.startup_ms, world.policy.startup_time_ms),
            (1_000, 1_000)
        );
        for wrong in [
            &["--min", "9", "--max", "5"][..],
            &["--service-time", "0"],
            &["--drain-target", "0"],
        ] {
            let args = read(wrong).unwrap();
            assert!(args.world(World::default()).is_err(), "{wrong:?}");
        }
        assert!(read(&["--shape", "flat"]).is_err());
        assert!(read(&["--shape", "burst", "--load", "f"]).is_err());
    }
}
