//! `hive work` dies, and its program with it, before anybody else gets the message.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use hive_client::{Target, wire};
use hive_testkit::{program::Program, redis::RedisServer, wait};

use crate::{
    load::{named, publish_plain},
    world::{PATIENCE, World, settings},
};

const GROUP: &str = "programs";
/// Notes its own process and its child's; complains of any other that still lives. The first
/// attempt never ends by itself.
const SCRIPT: &str = r#"
for other in "$NOTES"/*.pid; do
  [ -e "$other" ] || continue
  # A zombie runs no more: whoever took it in has not buried it yet.
  state=$(ps -o stat= -p "$(cat "$other")")
  case "$state" in '' | Z*) ;; *) echo "$other $state" >> "$NOTES/overlap" ;; esac
done
sleep 300 &
echo "$!" > "$NOTES/$HIVE_CONSUMER_ID.child.pid.new"
echo "$$" > "$NOTES/$HIVE_CONSUMER_ID.pid.new"
mv "$NOTES/$HIVE_CONSUMER_ID.child.pid.new" "$NOTES/$HIVE_CONSUMER_ID.child.pid"
mv "$NOTES/$HIVE_CONSUMER_ID.pid.new" "$NOTES/$HIVE_CONSUMER_ID.pid"
if [ "$HIVE_ATTEMPT" = 1 ]; then wait; fi
kill "$!"
"#;

fn worker(id: &str, url: &str, notes: &Path) -> Result<Program> {
    let arguments = [
        "work", "--group", GROUP, "--id", id, "--url", url, "--exec", SCRIPT,
    ];
    let notes = notes.to_string_lossy();
    Program::start("hive", &arguments, [("NOTES", notes.as_ref())])
}

async fn members(world: &World, count: usize) -> Result<()> {
    wait::try_until(PATIENCE, "the workers to join", || async {
        let request = wire::ListConsumersRequest {
            group: GROUP.into(),
        };
        let found = world
            .client(0)?
            .list_consumers(request)
            .await?
            .consumers
            .len();
        ensure!(found == count, "{found} of {count}");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_a_killed_worker_is_gone_before_its_message_comes_again() -> Result<()> {
    let world = World::start(RedisServer::builder(), 1, 0).await?;
    // Without a grace the message comes again as soon as the system can.
    world
        .group(GROUP, settings(Duration::from_secs(5), Duration::ZERO))
        .await?;
    let notes = tempfile::tempdir()?;
    let url = world.url(0);
    let mut first = worker("first", &url, notes.path())?;
    members(&world, 1).await?;
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    publish_plain(
        &world.client(0)?,
        &world.log,
        target,
        named(["m".to_owned()]),
    )
    .await;
    let began = || std::future::ready(notes.path().join("first.pid").exists());
    wait::try_until(PATIENCE, "the program to begin", began).await?;
    let _second = worker("second", &url, notes.path())?;
    members(&world, 2).await?;
    first.kill9()?;
    world.drained(&[GROUP], PATIENCE).await?;
    let figures = world.figures(GROUP).await?;
    assert_eq!((figures.acked_total, figures.redelivered_total), (1, 1));
    assert!(notes.path().join("second.pid").exists());
    let overlap = fs::read_to_string(notes.path().join("overlap")).unwrap_or_default();
    assert_eq!(overlap, "", "these still ran beside the second copy");
    Ok(())
}
