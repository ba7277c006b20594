//! `hive bench`: messages per second, latency, cost, and how far from the ceiling.
//!
//! Each round measures the whole path (publish, deliver, acknowledge) through a real gateway, and
//! right after it the raw ceiling on the same Redis ([`hive_store::ceiling`]): machines drift, so
//! only ratios within a round count, and the median of the rounds is told. A message counts when
//! the gateway has confirmed its acknowledgement; one that is missing fails the bench.
//!
//! Latency is measured open-loop: bursts have their moments in advance, and a message's time counts
//! from there, however late it was sent.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::{Exit, Failure},
    output::{Format, note, progress, table},
};

mod cost;
mod gateway;
mod pace;
mod private;
mod workflow;

use cost::Cost;
use private::Private;

/// Rates at which latency is measured, in messages per second.
const RATES: [u32; 3] = [1_000, 5_000, 10_000];

/// How often an agent joins to measure the time of a join.
const JOINS: u32 = 100;

/// What to measure instead of messages.
#[derive(Subcommand, Debug)]
enum What {
    /// Measure workflows: tasks per second by shape, and the time from step to step.
    Workflow(workflow::WorkflowBenchArgs),
}

/// Rounds, messages and load.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Messages per round.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..))]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    payload_bytes: u32,
    /// Publishing connections.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    producers: u32,
    /// Agents.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    consumers: u32,
    /// How long latency is measured at each rate.
    #[arg(long, value_parser = crate::values::duration, default_value = "5s")]
    latency_time: Duration,
    /// One small round, to see that nothing is lost; its figures mean little.
    #[arg(long)]
    short: bool,
    /// With --url: the Redis behind that gateway, for the ceiling.
    #[arg(long, value_name = "URL", requires = "url")]
    redis_url: Option<String>,
    /// Folder for the private Redis [default: a temporary one].
    #[arg(long, value_name = "FOLDER", conflicts_with = "redis_url")]
    data_dir: Option<PathBuf>,
}

/// What is measured, after `--short` has been taken into account.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    rounds: u32,
    messages: u64,
    payload_bytes: usize,
    producers: u32,
    consumers: u32,
    latency_time: Duration,
    joins: u32,
}

/// One run of messages, through the gateway or raw.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    messages_per_second: f64,
    redis_us_per_message: Option<f64>,
    gateway_us_per_message: Option<f64>,
    client_us_per_message: f64,
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    hive: Run,
    raw: Option<Run>,
    ratio: Option<f64>,
    redis_cpu_ratio: Option<f64>,
}

/// Latencies at one rate, in milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    messages_per_second: u32,
    hive: Quantiles,
    raw: Option<Quantiles>,
}

/// Quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Report {
    messages_per_round: u64,
    payload_bytes: usize,
    producers: u32,
    consumers: u32,
    published: u64,
    acked: u64,
    missing: u64,
    median_messages_per_second: f64,
    median_ratio: Option<f64>,
    median_redis_cpu_ratio: Option<f64>,
    join_ms: Quantiles,
    rounds: Vec<Round>,
    latencies: Vec<Latency>,
}

/// Measures, prints, and fails when a message is missing.
///
/// # Errors
/// When no gateway answers, no Redis is found, or a message is missing.
pub(crate) async fn run(args: BenchArgs, common: &Common) -> anyhow::Result<Exit> {
    if let Some(What::Workflow(args)) = args.what {
        return workflow::run(args, common).await;
    }
    let load = args.load();
    let (private, urls) = if common.url.is_empty() {
        let private = Private::start(args.data_dir.as_deref()).await?;
        let url = private.url();
        (Some(private), vec![url])
    } else {
        (None, common.url.clone())
    };
    let redis_url = private
        .as_ref()
        .map(Private::redis_url)
        .or_else(|| args.redis_url.clone());
    let pid = private.as_ref().and_then(Private::gateway_pid);
    let bench = Bench {
        load,
        urls,
        common: common.clone(),
        redis_url,
        gateway_pid: pid,
    };
    let measured = bench.measure().await;
    if let Some(private) = private {
        private.stop().await;
    }
    let report = measured?;
    match common.output {
        Format::Table => common.out().text(&report.text())?,
        Format::Json | Format::Jsonl => common.out().item(&report)?,
    }
    if report.missing > 0 {
        let message = format!(
            "{} of {} messages are missing",
            report.missing, report.published
        );
        return Err(Failure::new(Exit::Failed, message).into());
    }
    Ok(Exit::Done)
}

/// Where and what to measure.
#[derive(Clone, Debug)]
struct Bench {
    load: Load,
    urls: Vec<String>,
    common: Common,
    redis_url: Option<String>,
    gateway_pid: Option<u32>,
}

impl Bench {
    /// All rounds, then the latencies, then the joins.
    async fn measure(&self) -> anyhow::Result<Report> {
        let client = self.common.client_of(self.urls.clone())?;
        // As long as names of groups usually are: it stands in every key.
        let number = uuid::Uuid::new_v4().as_fields().0;
        let group = format!("bench-{number:08x}");
        gateway::create_group(&client, &group)
            .await
            .map_err(refused)?;
        let measured = self.measure_in(&group).await;
        gateway::delete_group(&client, &group).await;
        measured
    }

    async fn measure_in(&self, group: &str) -> anyhow::Result<Report> {
        let load = &self.load;
        let bar = progress(u64::from(load.rounds), "rounds");
        let (mut rounds, mut published, mut acked) = (Vec::new(), 0, 0);
        for _ in 0..load.rounds {
            let (round, settled) = self.round(group).await?;
            rounds.push(round);
            published += load.messages;
            acked += settled;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut latencies = Vec::new();
        for rate in RATES {
            note(&format!("latency at {rate} messages/s"));
            let (latency, sent, settled) = self.latency(group, rate).await?;
            latencies.push(latency);
            published += sent;
            acked += settled;
        }
        let joins = self.joins(group).await?;
        let rates = rounds.iter().map(|round| round.hive.messages_per_second);
        Ok(Report {
            messages_per_round: load.messages,
            payload_bytes: load.payload_bytes,
            producers: load.producers,
            consumers: load.consumers,
            published,
            acked,
            missing: published.saturating_sub(acked),
            median_messages_per_second: median(rates).unwrap_or(0.0),
            median_ratio: median(rounds.iter().filter_map(|round| round.ratio)),
            median_redis_cpu_ratio: median(rounds.iter().filter_map(|it| it.redis_cpu_ratio)),
            join_ms: joins,
            rounds,
            latencies,
        })
    }

    /// The path through the gateway, and the ceiling right after it.
    async fn round(&self, group: &str) -> anyhow::Result<(Round, u64)> {
        let load = &self.load;
        let before = self.cost().await?;
        let client = self.common.client_of(self.urls.clone())?;
        let (elapsed, acked) = gateway::throughput(&client, group, load).await?;
        let hive = run_of(load.messages, elapsed, self.cost().await?.since(&before));
        let mut raw = None;
        if let Some(url) = &self.redis_url {
            let before = self.cost().await?;
            let elapsed =
                hive_store::ceiling::throughput(url, load.messages, load.payload_bytes).await?;
            let mut cost = self.cost().await?.since(&before);
            cost.gateway = None;
            raw = Some(run_of(load.messages, elapsed, cost));
        }
        let ratio = raw.map(|raw| hive.messages_per_second / raw.messages_per_second);
        let raw_cpu = raw.and_then(|raw| raw.redis_us_per_message);
        let redis_cpu_ratio = hive
            .redis_us_per_message
            .zip(raw_cpu)
            .map(|(hive, raw)| hive / raw);
        Ok((
            Round {
                hive,
                raw,
                ratio,
                redis_cpu_ratio,
            },
            acked,
        ))
    }

    /// Latencies at one rate, through the gateway and raw.
    async fn latency(&self, group: &str, rate: u32) -> anyhow::Result<(Latency, u64, u64)> {
        let load = &self.load;
        let client = self.common.client_of(self.urls.clone())?;
        let bursts = pace::bursts(rate, load.latency_time)?;
        let (sent, times) = gateway::latencies(&client, group, load, bursts).await?;
        let acked = u64::try_from(times.len()).unwrap_or(u64::MAX);
        let hive = quantiles(&times)?;
        let mut raw = None;
        if let Some(url) = &self.redis_url {
            let bursts = pace::bursts(rate, load.latency_time)?;
            let times = hive_store::ceiling::latencies(url, load.payload_bytes, bursts).await?;
            raw = Some(quantiles(&times)?);
        }
        Ok((
            Latency {
                messages_per_second: rate,
                hive,
                raw,
            },
            sent,
            acked,
        ))
    }

    /// How long a join takes, from the first frame to `Joined`.
    async fn joins(&self, group: &str) -> anyhow::Result<Quantiles> {
        let client = self.common.client_of(self.urls.clone())?;
        let mut times = Vec::new();
        for number in 0..self.load.joins {
            times.push(gateway::join_time(&client, group, number).await?);
        }
        quantiles(&times)
    }

    async fn cost(&self) -> anyhow::Result<Cost> {
        Cost::now(self.redis_url.as_deref(), self.gateway_pid).await
    }
}

impl BenchArgs {
    fn load(&self) -> Load {
        let load = Load {
            rounds: self.rounds,
            messages: self.messages,
            payload_bytes: usize::try_from(self.payload_bytes).unwrap_or(usize::MAX),
            producers: self.producers,
            consumers: self.consumers,
            latency_time: self.latency_time,
            joins: JOINS,
        };
        if !self.short {
            return load;
        }
        let second = Duration::from_secs(1);
        Load {
            rounds: 1,
            messages: load.messages.min(20_000),
            latency_time: second,
            joins: 10,
            ..load
        }
    }
}

impl Report {
    /// The report for a person.
    fn text(&self) -> String {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let rounds = self.rounds.iter().enumerate().map(|(number, round)| {
            vec![
                (number + 1).to_string(),
                figure(Some(round.hive.messages_per_second), 0),
                figure(round.raw.map(|raw| raw.messages_per_second), 0),
                figure(round.ratio.map(|ratio| ratio * 100.0), 1),
                figure(round.hive.gateway_us_per_message, 2),
                figure(round.hive.redis_us_per_message, 2),
                figure(round.raw.and_then(|raw| raw.redis_us_per_message), 2),
                figure(Some(round.hive.client_us_per_message), 2),
                figure(round.raw.map(|raw| raw.client_us_per_message), 2),
            ]
        });
        let titles = [
            "ROUND",
            "MSG/S",
            "RAW MSG/S",
            "RATIO %",
            "GATEWAY us",
            "REDIS us",
            "RAW REDIS us",
            "CLIENT us",
            "RAW CLIENT us",
        ];
        let rounds = table(&titles, &rounds.collect::<Vec<_>>());
        let latencies = self.latencies.iter().map(|latency| {
            let raw = |pick: fn(&Quantiles) -> f64| figure(latency.raw.as_ref().map(pick), 2);
            vec![
                latency.messages_per_second.to_string(),
                figure(Some(latency.hive.p50), 2),
                figure(Some(latency.hive.p99), 2),
                figure(Some(latency.hive.p999), 2),
                raw(|it| it.p50),
                raw(|it| it.p99),
                raw(|it| it.p999),
            ]
        });
        let titles = [
            "LOAD MSG/S",
            "P50 ms",
            "P99 ms",
            "P99.9 ms",
            "RAW P50",
            "RAW P99",
            "RAW P99.9",
        ];
        let latencies = table(&titles, &latencies.collect::<Vec<_>>());
        let median = format!(
            "median: {:.0} messages/s, {} % of the ceiling, Redis CPU {} times the ceiling's",
            self.median_messages_per_second,
            figure(self.median_ratio.map(|ratio| ratio * 100.0), 1),
            figure(self.median_redis_cpu_ratio, 2),
        );
        let join = &self.join_ms;
        let join = format!("join: p50 {:.2} ms, p99 {:.2} ms", join.p50, join.p99);
        let Self {
            published,
            acked,
            missing,
            ..
        } = self;
        let count = format!("published {published}, acked {acked}, missing {missing}");
        format!("{rounds}\n\n{median}\n\n{latencies}\n\n{join}\n{count}")
    }
}

/// Figures of one run.
fn run_of(messages: u64, elapsed: Duration, cost: Cost) -> Run {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let messages = messages as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / messages;
    Run {
        messages_per_second: messages / elapsed.as_secs_f64(),
        redis_us_per_message: cost.redis.map(micros),
        gateway_us_per_message: cost.gateway.map(micros),
        client_us_per_message: micros(cost.client),
    }
}

/// The value in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values = values.collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Quantiles of latencies, exact to three digits.
fn quantiles(times: &[Duration]) -> anyhow::Result<Quantiles> {
    let mut histogram = Histogram::<u64>::new(3).context("three digits are within its range")?;
    for time in times {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        histogram
            .record(micros)
            .context("a growing histogram takes every value")?;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds far below 2^53")]
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Quantiles {
        p50: ms(0.5),
        p99: ms(0.99),
        p999: ms(0.999),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn quantiles_are_told_in_milliseconds() {
        let times = (1..=1000).map(Duration::from_millis).collect::<Vec<_>>();
        let found = quantiles(&times).unwrap();
        assert!((found.p50 - 500.0).abs() < 1.0 && (found.p99 - 990.0).abs() < 1.0);
    }
}
