//! `cutwater status`: where the migration is, whether it is well, and what the reader must do.
//!
//! In: the state in the target and the head of the source, asked here and now, so that the answer is right whether or
//! not `run` is alive. Out: [`StatusFacts`], as JSON or through [`render`] as text. An end that cannot be reached is a
//! fact, not an error.

mod blocks;
mod facts;
mod gather;
mod partitions;
mod render;

use std::io::{IsTerminal, Write};
use std::time::Duration;

pub use facts::StatusFacts;
pub use gather::gather;
pub use render::render;

use super::args::StatusArgs;
use super::{Context, Ended, output};
use crate::error::Result;

pub(super) async fn run(context: &Context, args: &StatusArgs) -> Result<Ended> {
    let config = context.config()?;
    let terminal = std::io::stdout().is_terminal();
    loop {
        let facts = gather(&config).await?;
        let json = context.global.json;
        if args.watch && terminal && !json {
            // Home, draw, clear the rest: no flicker.
            let text = render(&facts).replace('\n', "\x1b[K\n");
            output::print(&format!("\x1b[H{text}\x1b[J"));
            let _ = std::io::stdout().flush();
        } else if json {
            output::print_json(&facts)?;
        } else {
            output::print(&render(&facts));
        }
        if !args.watch {
            return Ok(Ended::Done);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
