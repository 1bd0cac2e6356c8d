//! Whether the migrated tables stand still: the log is read from the position behind the fence to its end.
//!
//! Who reads it is not who applies it, so a change is found also where no run is alive. Other databases of the server, its
//! accounts and our own row may be written to: only the migrated tables count.

use std::sync::Arc;

use super::super::{Inner, MySource};
use crate::change::{Budget, ChangeEvent};
use crate::error::{Context, Result};
use crate::source::fence::Behind;
use crate::source::{ChangeStream, Source, StreamItem};

/// Bytes of changes on their way; one is enough to know.
const BUDGET: u64 = 8 << 20;

/// The first change of a migrated table behind the fence, in words.
pub(super) async fn first_change(source: &MySource, behind: &Behind) -> Result<Option<String>> {
    look(source, behind).await.context("reading the source's log on behind the fence")
}

async fn look(source: &MySource, behind: &Behind) -> Result<Option<String>> {
    let head = source.head().await?.position;
    if behind.position.reaches(&head) {
        return Ok(None);
    }
    // Under another name, and so another server id: the run's reader is not to be ended.
    let Inner { info, name, .. } = &*source.inner;
    let reader = MySource::new(info.clone(), &format!("{name}_fence"));
    let mut stream = reader.stream(&behind.position, &behind.tables, &Budget::new(BUDGET)).await?;
    let mut at = None;
    let found = loop {
        match stream.next().await? {
            StreamItem::Idle(position) if position.reaches(&head) => break None,
            StreamItem::Idle(_) => {}
            StreamItem::Events(chunk) => {
                let mut found = None;
                let mut over = false;
                for event in &chunk.events {
                    match event {
                        ChangeEvent::Begin(begin) => at = Some(begin.commit_start.clone()),
                        ChangeEvent::Row(change) => found = Some(Arc::clone(&change.table)),
                        ChangeEvent::Truncate(truncate) => found = truncate.tables.first().cloned(),
                        ChangeEvent::Commit(commit) => over |= commit.end.reaches(&head),
                        _ => {}
                    }
                    if found.is_some() {
                        break;
                    }
                }
                if let Some(table) = found {
                    let at = at.map_or_else(String::new, |at| format!(" at {at}"));
                    break Some(format!("{} changed{at}, after the fence", table.name));
                }
                if over {
                    break None;
                }
            }
        }
    };
    stream.close().await?;
    Ok(found)
}
