//! Removes records: the old, those that make room, those that a person purges. Archives them first
//! where an archive is configured.

use std::{io::Write as _, path::Path};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hive_domain::dead_letter::status::Status;
use hive_store::{
    StoreError,
    letters::{Changed, Content, Found, Index, Letter, Letters, Order},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    desk::Desk,
    metrics::{self, Removed},
};

/// Records of one step.
const SLICE: usize = 100;
/// Steps of one round over old records.
const STEPS_MAX: u32 = 50;
/// Bytes of bodies that one file of an archive begins with at most.
const ARCHIVE_BYTES: usize = 32 << 20;

/// Removes some records that are not in the queue, the oldest first; false where all are.
pub(crate) async fn make_room(desk: &Desk, letters: &Letters) -> Result<bool, StoreError> {
    let mut places = Vec::new();
    for status in [Status::Archived, Status::Replayed] {
        let index = Index::Status(status);
        let page = desk
            .store
            .letter_ids(letters, &index, (Order::Oldest, None), (0, 0), SLICE)
            .await?;
        places.extend(page);
    }
    places.sort_by(|a, b| (a.dead_ms, &a.id).cmp(&(b.dead_ms, &b.id)));
    places.truncate(SLICE);
    let ids: Vec<String> = places.into_iter().map(|place| place.id).collect();
    let read = desk.store.read_letters(letters, &ids).await?;
    let found: Vec<Letter> = read.into_iter().filter_map(Found::there).collect();
    let removed = remove(desk, letters, found, Removed::ForRoom).await?;
    Ok(removed > 0)
}

/// Removes what is older than records are kept.
pub(crate) async fn old(desk: &Desk, letters: &Letters) -> Result<(), StoreError> {
    let until = desk
        .now()
        .as_millis()
        .saturating_sub(desk.settings.max_age_ms);
    for _ in 0..STEPS_MAX {
        let page = desk
            .store
            .letter_ids(
                letters,
                &Index::All,
                (Order::Oldest, None),
                (0, until),
                SLICE,
            )
            .await?;
        let ids: Vec<String> = page.into_iter().map(|place| place.id).collect();
        let read = desk.store.read_letters(letters, &ids).await?;
        // A replay under way ends first.
        let free = |letter: &Letter| letter.status != Status::Replaying;
        let found: Vec<Letter> = read
            .into_iter()
            .filter_map(Found::there)
            .filter(free)
            .collect();
        let live = found.iter().filter(|one| one.status.is_live()).count();
        if live > 0 {
            let namespace = &**letters.namespace();
            tracing::warn!(namespace, live, "dead_letters_removed_that_nobody_replayed");
        }
        if found.is_empty() || remove(desk, letters, found, Removed::Old).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Archives records, then removes them; answers how many are gone. One that changes meanwhile
/// stays, and may be in the archive twice in the end.
pub(crate) async fn remove(
    desk: &Desk,
    letters: &Letters,
    found: Vec<Letter>,
    why: Removed,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    let Some(dir) = &desk.settings.archive_dir else {
        for letter in found {
            gone += forget(desk, letters, &letter).await?;
        }
        metrics::removed(why, gone);
        return Ok(gone);
    };
    let mut left = found.into_iter().peekable();
    while left.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0_usize);
        while bytes < ARCHIVE_BYTES
            && let Some(letter) = left.next()
        {
            if let Some(content) = desk.store.letter_content(letters, &letter.id).await? {
                bytes = bytes.saturating_add(content.body.len());
                batch.push((letter, content));
            }
        }
        if let Err(error) = archive(dir, letters.namespace(), &batch) {
            let dir = dir.display();
            tracing::error!(%dir, %error, "dead_letters_not_archived");
            metrics::archive_failed();
            break;
        }
        for (letter, _) in batch {
            gone += forget(desk, letters, &letter).await?;
        }
    }
    metrics::removed(why, gone);
    Ok(gone)
}

async fn forget(desk: &Desk, letters: &Letters, letter: &Letter) -> Result<u64, StoreError> {
    let changed = desk.store.remove_letter(letters, letter).await?;
    Ok(u64::from(matches!(changed, Changed::Done(_))))
}

/// A line of an archive.
#[derive(Serialize)]
struct Line<'a> {
    dlq_id: &'a str,
    status: &'a str,
    facts: &'a hive_store::letters::Facts,
    state: &'a hive_store::letters::State,
    history: &'a [hive_store::letters::Change],
    /// Header and envelope, as they died.
    body_base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_base64: Option<String>,
}

/// Writes records into a file of their own, which is there whole or not at all.
fn archive(dir: &Path, namespace: &str, letters: &[(Letter, Content)]) -> std::io::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    let name = format!("{namespace}-{}.jsonl.gz", Uuid::now_v7());
    let part = dir.join(format!(".{name}.part"));
    let mut file = GzEncoder::new(std::fs::File::create(&part)?, Compression::default());
    for (letter, content) in letters {
        let line = Line {
            dlq_id: &letter.id,
            status: letter.status.as_str(),
            facts: &letter.facts,
            state: &letter.state,
            history: &content.history,
            body_base64: base64(&content.body),
            edited_base64: content.edited.as_ref().map(base64),
        };
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
    }
    file.finish()?.sync_all()?;
    std::fs::rename(&part, dir.join(name))?;
    std::fs::File::open(dir)?.sync_all()
}

fn base64(bytes: &Bytes) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
