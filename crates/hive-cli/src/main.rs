//! The `hive` command: runs daemons, works as an agent, operates groups, measures.
//!
//! This file reads the command line and turns the outcome into an exit code; each command stands in
//! a file of its own under `commands`. Only `output` prints.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{
    commands::{
        bench::BenchArgs, consumer::ConsumerCommand, dev::DevArgs, dlq::DlqCommand,
        doctor::DoctorArgs, fetch::FetchArgs, group::GroupCommand, peek::PeekArgs,
        place::PlaceCommand, publish::PublishArgs, rebalance::RebalanceArgs, scale::ScaleCommand,
        serve::ServeArgs, settle::SettleArgs, stream::StreamCommand, supervise::SuperviseArgs,
        tracked::MessageCommand, work::WorkArgs, workflow::WorkflowCommand,
    },
    connection::Common,
    exit::{EXIT_CODES, Exit, exit_of, is_closed_pipe},
    output::note,
};

mod asking;
mod children;
mod commands;
mod connection;
mod exit;
mod local_redis;
mod message;
mod output;
mod values;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Agent Hive: hands work to fleets of agents and gets it done.
#[derive(Parser, Debug)]
#[command(name = "hive", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
enum Command {
    /// Run everything in this terminal, on a private Redis.
    Dev(DevArgs),
    /// Run one daemon.
    Serve(ServeArgs),
    /// Be an agent: run a command for each message of a group.
    Work(WorkArgs),
    /// Send messages to a group or a stream.
    Publish(PublishArgs),
    /// Follow and cancel messages that were published with --track.
    #[command(subcommand)]
    Message(MessageCommand),
    /// Create, show and steer consumer groups.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Submit workflows, show and steer their runs.
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Show what failed for good, find out why, send it back.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Show how many agents groups want and why, and how they are scaled.
    #[command(subcommand)]
    Scale(ScaleCommand),
    /// Even out what agents hold and have not begun.
    Rebalance(RebalanceArgs),
    /// Say which group an agent joins or a task goes to, and why.
    #[command(subcommand)]
    Place(PlaceCommand),
    /// Show and remove members of a group.
    #[command(subcommand)]
    Consumer(ConsumerCommand),
    /// Create, show and delete streams, and set their limits.
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Look at the unsettled messages of a group.
    Peek(PeekArgs),
    /// Lease messages by hand.
    Fetch(FetchArgs),
    /// Settle leased messages by hand.
    Settle(SettleArgs),
    /// Look at everything and say what to do about it.
    Doctor(DoctorArgs),
    /// Measure throughput and latency beside the raw ceiling of the same Redis.
    Bench(BenchArgs),
    /// Run a program that must not outlive its parent.
    #[command(name = "__supervise", hide = true)]
    Supervise(SuperviseArgs),
    /// Become a program that must not outlive its parent.
    #[command(name = "__enter", hide = true)]
    Enter(SuperviseArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // A daemon brings its own runtime and its own exit codes.
    if let Command::Serve(args) = cli.command {
        return commands::serve::run(args);
    }
    let outcome = if let Command::Enter(args) = &cli.command {
        commands::supervise::enter(args)
    } else {
        in_runtime(cli.command, &cli.common)
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) if is_closed_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            note(&format!("hive: {error:#}"));
            exit_of(&error).into()
        },
    }
}

/// Shows help or what is wrong with the command line. Wrong usage is 64, as in `sysexits.h`.
fn usage(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    let is_asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if is_asked && shown.is_ok() {
        Exit::Done.into()
    } else {
        Exit::Usage.into()
    }
}

/// Runs a command in a runtime of one thread: all but the load generator wait more than they work.
fn in_runtime(command: Command, common: &Common) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(dispatch(command, common));
    // A read of stdin cannot be cancelled; nobody shall wait for one.
    runtime.shutdown_background();
    outcome
}

/// Hands over to the command.
async fn dispatch(command: Command, common: &Common) -> anyhow::Result<Exit> {
    match command {
        Command::Dev(args) => commands::dev::run(args, common).await,
        Command::Work(args) => commands::work::run(args, common).await,
        Command::Publish(args) => commands::publish::run(args, common).await,
        Command::Message(command) => commands::tracked::run(command, common).await,
        Command::Doctor(args) => commands::doctor::run(args, common).await,
        Command::Bench(args) => commands::bench::run(args, common).await,
        Command::Group(command) => commands::group::run(command, common).await,
        Command::Workflow(command) => commands::workflow::run(command, common).await,
        Command::Dlq(command) => commands::dlq::run(command, common).await,
        Command::Scale(command) => commands::scale::run(command, common).await,
        Command::Rebalance(args) => commands::rebalance::run(args, common).await,
        Command::Place(command) => commands::place::run(command, common).await,
        Command::Consumer(command) => commands::consumer::run(command, common).await,
        Command::Stream(command) => commands::stream::run(command, common).await,
        Command::Peek(args) => commands::peek::run(args, common).await,
        Command::Fetch(args) => commands::fetch::run(args, common).await,
        Command::Settle(args) => commands::settle::run(args, common).await,
        Command::Supervise(args) => commands::supervise::supervise(&args).await,
        Command::Serve(_) | Command::Enter(_) => Ok(Exit::Usage),
    }
}
