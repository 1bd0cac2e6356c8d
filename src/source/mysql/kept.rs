//! The session for small questions, which is kept between them: the head is asked for once a second.

use mysql_async::prelude::Queryable;
use tokio::sync::MutexGuard;

use super::MySource;
use crate::error::Result;
use crate::mysql::Session;

/// A session that is ours alone until it is dropped. It is kept for the next question only if [`Kept::keep`] is called: one
/// whose question failed, or was not waited for, may be in the middle of an answer.
pub(super) struct Kept<'a> {
    place: MutexGuard<'a, Option<Session>>,
    session: Session,
}

impl MySource {
    /// The kept session, or a new one if it has ended.
    pub(super) async fn kept(&self) -> Result<Kept<'_>> {
        let mut place = self.inner.kept.lock().await;
        if let Some(mut session) = place.take()
            && session.conn().ping().await.is_ok()
        {
            return Ok(Kept { place, session });
        }
        Ok(Kept { place, session: self.session().await? })
    }
}

impl Kept<'_> {
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The question was answered.
    pub(super) fn keep(mut self) {
        *self.place = Some(self.session);
    }
}
