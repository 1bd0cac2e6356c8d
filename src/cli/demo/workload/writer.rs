//! Connections that write at a steady rate, through every failure, and keep the record.
//!
//! A write that fails before its COMMIT is sent has not happened. One whose COMMIT failed may have: its row in the
//! journal is looked up once its old session is certainly gone, where the database then lives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Workload;
use super::record::{Effects, Record};
use super::session::{Broken, Engine, Session};
use super::transaction::{Choices, Identity};
use crate::error::{Context, Error, Kind, Result};

/// How long a refused write waits before it tries again.
const RETRY: Duration = Duration::from_millis(5);
/// How long a stopping writer tries to learn what became of a COMMIT.
const RESOLVE: Duration = Duration::from_secs(30);

/// How it writes.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Sessions that write at the same time.
    pub connections: u32,
    /// Transactions per second over all connections.
    pub rate: f64,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { connections: 4, rate: 400.0, seed: 1 }
    }
}

/// Writes until it is stopped.
pub struct Writer {
    endpoint: watch::Sender<Arc<str>>,
    stop: CancellationToken,
    connections: JoinSet<Result<Record>>,
    shared: Arc<Shared>,
    workload: Workload,
}

/// What the writer has seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Writes whose commit was acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused or lost their session, before their COMMIT or at it.
    pub failed: u64,
    /// Of those, COMMITs whose outcome had to be looked up.
    pub looked_up: u64,
    /// The longest time without an acknowledged write.
    pub longest_gap: Duration,
    /// From the last acknowledged write at the old database to the first at the new one.
    pub downtime: Option<Duration>,
}

#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    looked_up: AtomicU64,
    clock: Mutex<Clock>,
}

#[derive(Default)]
struct Clock {
    last: Option<(Arc<str>, Instant)>,
    longest_gap: Duration,
    downtime: Option<Duration>,
}

impl Writer {
    /// Begins to write to `url`, which holds a freshly installed `workload`.
    pub fn start(url: &str, workload: Workload, options: WriterOptions) -> Writer {
        let (endpoint, _) = watch::channel(Arc::from(url));
        let (stop, shared) = (CancellationToken::new(), Arc::new(Shared::default()));
        let mut connections = JoinSet::new();
        for number in 1..=options.connections {
            let identity = Identity { number: number as i32, of: options.connections as i32 };
            let rng = StdRng::seed_from_u64(options.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
            let connection = Connection {
                choices: Choices::new(identity, workload, rng),
                record: Record::new(workload),
                endpoint: endpoint.subscribe(),
                stop: stop.clone(),
                shared: shared.clone(),
                origin: Engine::of(url),
                session: None,
                sequence: 0,
                unknown: None,
            };
            let pause = Duration::from_secs_f64(f64::from(options.connections) / options.rate.max(0.1));
            connections.spawn(connection.work(pause));
        }
        Writer { endpoint, stop, connections, shared, workload }
    }

    /// Tells it where the database lives now. Until then it keeps trying where it was.
    pub fn switch_to(&self, url: &str) {
        self.endpoint.send_replace(Arc::from(url));
    }

    /// What it has seen so far.
    pub fn figures(&self) -> Figures {
        let clock = self.shared.clock.lock().expect("no holder panics");
        Figures {
            acknowledged: self.shared.acknowledged.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            looked_up: self.shared.looked_up.load(Ordering::Relaxed),
            longest_gap: clock.longest_gap,
            downtime: clock.downtime,
        }
    }

    /// Stops after the writes in hand, and returns the record with the final figures.
    ///
    /// # Errors
    /// When the outcome of a COMMIT cannot be learnt, because the database does not answer.
    pub async fn stop(mut self) -> Result<(Record, Figures)> {
        self.stop.cancel();
        let mut record = Record::new(self.workload);
        while let Some(ended) = self.connections.join_next().await {
            record.merge(ended.map_err(|error| Error::new(Kind::Internal, error.to_string()))??);
        }
        Ok((record, self.figures()))
    }
}

struct Connection {
    choices: Choices,
    record: Record,
    endpoint: watch::Receiver<Arc<str>>,
    stop: CancellationToken,
    shared: Arc<Shared>,
    origin: Engine,
    session: Option<(Arc<str>, Session)>,
    sequence: i64,
    unknown: Option<Unknown>,
}

/// A COMMIT without an answer.
struct Unknown {
    sequence: i64,
    effects: Effects,
    endpoint: Arc<str>,
    session: String,
}

enum Failure {
    /// Before COMMIT was sent: it has not happened.
    Before(Broken),
    /// At COMMIT: nobody knows.
    At(Effects),
}

impl Connection {
    async fn work(mut self, pause: Duration) -> Result<Record> {
        let stop = self.stop.clone();
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            while let Err(error) = self.attempt().await {
                tracing::debug!(%error, writer = self.choices.identity.number, "a write failed");
                self.shared.failed.fetch_add(1, Ordering::Relaxed);
                if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                    break;
                }
            }
        }
        let give_up = Instant::now() + RESOLVE;
        while self.unknown.is_some() {
            if let Err(error) = self.session().await {
                if Instant::now() > give_up {
                    return Err(error.context("looking up what became of a write"));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(self.record)
    }

    /// One write where the database now lives.
    async fn attempt(&mut self) -> Result<()> {
        let (endpoint, mut session) = self.session().await?;
        self.sequence += 1;
        let sequence = self.sequence;
        match transact(&mut self.choices, &mut session, &self.record, sequence).await {
            Ok(effects) => {
                self.shared.acknowledged(&endpoint);
                self.keep(sequence, effects);
                self.session = Some((endpoint, session));
                Ok(())
            }
            Err(Failure::Before(broken)) => {
                // An error message leaves the session usable after a rollback; anything else has ended it.
                if broken.answered && session.control("ROLLBACK").await.is_ok() {
                    self.session = Some((endpoint, session));
                }
                Err(broken.into())
            }
            Err(Failure::At(effects)) => {
                self.shared.looked_up.fetch_add(1, Ordering::Relaxed);
                self.unknown = Some(Unknown { sequence, effects, endpoint, session: session.name() });
                Err(Error::new(Kind::Connection, "no answer to a COMMIT"))
            }
        }
    }

    fn keep(&mut self, sequence: i64, effects: Effects) {
        self.choices.committed(&effects);
        self.record.acknowledge(self.choices.identity.number, sequence, effects);
    }

    /// A session at the current endpoint; what was unknown is known when it returns.
    async fn session(&mut self) -> Result<(Arc<str>, Session)> {
        let endpoint = self.endpoint.borrow_and_update().clone();
        let mut session = match self.session.take() {
            Some((at, session)) if at == endpoint && !session.is_closed() => session,
            _ => Session::connect(&endpoint, self.origin).await?,
        };
        if let Some(unknown) = self.unknown.take() {
            match look_up(&unknown, self.choices.identity.number, &endpoint, &mut session).await {
                Ok(true) => self.keep(unknown.sequence, unknown.effects),
                Ok(false) => {}
                Err(error) => {
                    self.unknown = Some(unknown);
                    return Err(error);
                }
            }
        }
        Ok((endpoint, session))
    }
}

async fn transact(
    choices: &mut Choices,
    session: &mut Session,
    record: &Record,
    sequence: i64,
) -> Result<Effects, Failure> {
    session.control("BEGIN").await.map_err(Failure::Before)?;
    let effects = choices.write(session, record, sequence).await.map_err(Failure::Before)?;
    match session.commit().await {
        Ok(()) => Ok(effects),
        Err(broken) if broken.answered => Err(Failure::Before(broken)),
        Err(_) => Err(Failure::At(effects)),
    }
}

/// Whether the write is in the journal. Waits first until its old session is gone, which might still be committing.
async fn look_up(unknown: &Unknown, writer: i32, endpoint: &str, session: &mut Session) -> Result<bool> {
    if *unknown.endpoint == *endpoint && session.is_there(&unknown.session).await? {
        return Err(Error::new(Kind::Transient, "the session of an unanswered COMMIT is still there"));
    }
    let sequence = unknown.sequence;
    let query = format!("SELECT count(*) FROM journal WHERE writer = {writer} AND sequence = {sequence}");
    Ok(session.numbers(&query).await.context("looking a write up in the journal")?[0] > 0)
}

impl Shared {
    fn acknowledged(&self, endpoint: &Arc<str>) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut clock = self.clock.lock().expect("no holder panics");
        if let Some((before, at)) = &clock.last {
            let gap = now - *at;
            if before != endpoint && clock.downtime.is_none() {
                clock.downtime = Some(gap);
            }
            clock.longest_gap = clock.longest_gap.max(gap);
        }
        clock.last = Some((endpoint.clone(), now));
    }
}
