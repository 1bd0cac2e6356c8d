//! The gates that are questions to a MySQL or MariaDB server: one function each.

use super::{Look, Verdict};
use crate::error::{Error, Kind, Result};
use crate::mysql::connect;
use crate::source::AnySource;
use crate::source::mysql::fence::MyFence;
use crate::target::AnyTarget;

async fn fence(look: &Look<'_>) -> Result<MyFence> {
    match &look.parts.ends.source {
        AnySource::MySql(source) => MyFence::open(source, &look.parts.config).await,
        AnySource::Postgres(_) => Err(Error::new(Kind::Internal, "this gate is for a MySQL source")),
    }
}

/// There is a way to fence the source that our rights allow, and nothing that would leak through it.
pub(super) async fn fence_possible(look: &Look<'_>) -> Result<Verdict> {
    let possible = fence(look).await?.possible(&look.parts.tables(), &look.parts.patterns).await?;
    Ok(match possible {
        Ok(words) => Verdict::open(words),
        Err(obstacles) => {
            let fixes: Vec<String> = obstacles.iter().map(|obstacle| obstacle.fix.clone()).collect();
            let details = obstacles.into_iter().map(|obstacle| obstacle.what).collect();
            Verdict::Closed { details, fix: fixes.join("   and   ") }
        }
    })
}

/// Nobody has a transaction open for long that has written, or a statement running that the fence would wait behind.
pub(super) async fn long_transactions(look: &Look<'_>) -> Result<Verdict> {
    let blockers = fence(look).await?.long().await?;
    let fix = blockers.first().map(|blocker| blocker.fix()).unwrap_or_default();
    let mut details: Vec<String> = blockers.iter().map(ToString::to_string).collect();
    if !details.is_empty() {
        details.push("the fence would wait behind it, or end it, and all writes with it".into());
    }
    Ok(Verdict::of(details, "long transactions 0", fix))
}

/// The target takes writes.
pub(super) async fn target_writable(look: &Look<'_>) -> Result<Verdict> {
    let AnyTarget::MySql(target) = &look.parts.ends.target else {
        return Err(Error::new(Kind::Internal, "this gate is for a MySQL target"));
    };
    if matches!(&look.parts.ends.source, AnySource::MySql(source) if source.info().host == target.info().host) {
        let fix = "a database that stays on its server is renamed, not cut over";
        return Ok(Verdict::closed("source and target are one server: its fence would stop both", fix));
    }
    let session = connect(target.info(), &format!("cutwater_{}_gates", look.parts.name())).await?;
    if session.server().is_read_only() {
        let fix = "on the target   SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF;   or point [target] url elsewhere";
        return Ok(Verdict::closed("the target is read-only", fix));
    }
    Ok(Verdict::open("target writable"))
}
