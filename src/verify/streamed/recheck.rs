//! Rows read again by their keys: those that disagreed, and those that changed since the last comparison.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::Rng as _;

use super::sink::called;
use super::{Pair, SURE, Work};
use crate::error::Result;
use crate::target::state::Touched;
use crate::verify::TableReport;
use crate::verify::judge::{Again, Candidate, Found, Identity, Looks, compare, rounds};

/// Keys asked for in one statement.
const AT_ONCE: usize = 1_000;
/// Between two rounds that nothing else tells apart: so long that what changes to and fro is not always met alike.
const APART: (u64, u64) = (10, 200);

/// What both ends showed of a row, and for how many rounds.
type Steady = HashMap<i64, (Option<i64>, Option<i64>, u32)>;

impl Pair {
    /// Judges every candidate: source, then (once the target has applied what the source had) target, then source again.
    pub(super) async fn recheck(
        &mut self,
        work: &Work<'_>,
        candidates: &[Candidate],
        report: &mut TableReport,
    ) -> Result<()> {
        rounds(&mut Recheck { pair: self, work, steady: Steady::new() }, candidates, report).await
    }
}

struct Recheck<'a> {
    pair: &'a mut Pair,
    work: &'a Work<'a>,
    steady: Steady,
}

impl Again for Recheck<'_> {
    async fn look(&mut self, open: Vec<Candidate>, report: &mut TableReport) -> Result<Vec<Candidate>> {
        let Recheck { pair, work, steady } = self;
        let look = work.look;
        let state = &look.ends.state;
        // From here on the target keeps the keys of what it changes.
        let kept = state.begin_tracking().await?;
        let wanted: Vec<(i64, &[String])> =
            open.iter().map(|candidate| (candidate.order, candidate.key.as_slice())).collect();
        let mut before = pair.source.read_some(&work.at_source, &work.form, &wanted).await?;
        work.catch_up().await?;
        let here = pair.target.read_some(&work.at_target, &work.form, &wanted).await?;
        pair.search(work, &wanted, &mut before, &here).await?;
        let mut after = pair.source.read_some(&work.at_source, &work.form, &wanted).await?;
        pair.search(work, &wanted, &mut after, &here).await?;
        let mut looks = Looks { before, here, after, touched: HashSet::new() };
        let followed = look.behind.lock().expect("no holder panics").is_none();
        if followed {
            looks.touched = match kept {
                Some(generation) => {
                    work.catch_up().await?;
                    match state.touched_since(generation, &work.plan.shaped.name).await? {
                        Touched::Keys(keys) => keys.iter().map(|key| called(work.form.order(key))).collect(),
                        Touched::Any => unsure(&looks, steady, &open).await,
                    }
                }
                None => unsure(&looks, steady, &open).await,
            };
        }
        Ok(looks.judge(work.form.keyed(), |candidate| called(candidate.order), open, look.options.named_rows, report))
    }
}

impl Pair {
    /// Looks through the source's whole table for rows that the target has and the source was not found to have: a policy
    /// for values may have made another key at the target than the source can be asked for.
    async fn search(
        &mut self,
        work: &Work<'_>,
        wanted: &[(i64, &[String])],
        found: &mut Found,
        here: &Found,
    ) -> Result<()> {
        let lacking = |order: &i64| here.contains_key(&called(*order)) && !found.contains_key(&called(*order));
        let lacking: Vec<(i64, &[String])> = wanted.iter().filter(|(order, _)| lacking(order)).copied().collect();
        if !lacking.is_empty() && work.form.converts() && work.at_source.by_key.is_some() {
            found.extend(self.source.search(&work.at_source, &work.form, &lacking).await?);
        }
        Ok(())
    }

    /// Compares the rows under these keys, which stand still.
    pub(in crate::verify) async fn compare_keys(
        &mut self,
        look: &super::Look<'_>,
        plan: &std::sync::Arc<crate::transform::TablePlan>,
        keys: &[Vec<String>],
        report: &mut TableReport,
    ) -> Result<()> {
        let work = self.work(look, plan).await?;
        let keys: Vec<(i64, &[String])> = keys.iter().map(|key| (work.form.order(key), key.as_slice())).collect();
        for some in keys.chunks(AT_ONCE) {
            let Pair { source, target, .. } = self;
            let (mut at_source, at_target) = tokio::try_join!(
                source.read_some(&work.at_source, &work.form, some),
                target.read_some(&work.at_target, &work.form, some),
            )?;
            self.search(&work, some, &mut at_source, &at_target).await?;
            compare(at_source, at_target, look.options.named_rows, report);
        }
        Ok(())
    }
}

/// The rows of which it is not sure yet that they were not written between the two looks.
async fn unsure(looks: &Looks, steady: &mut Steady, open: &[Candidate]) -> HashSet<Identity> {
    let mut unsure = HashSet::new();
    for candidate in open {
        let key = called(candidate.order);
        let hash = |found: &Found| found.get(&key).map(|entry| entry.hash.wrapping_add(entry.count));
        let (source, target) = (hash(&looks.after), hash(&looks.here));
        let seen = steady.entry(candidate.order).or_insert((source, target, 0));
        *seen = if (seen.0, seen.1) == (source, target) { (source, target, seen.2 + 1) } else { (source, target, 1) };
        if seen.2 < SURE {
            unsure.insert(key);
        }
    }
    if !unsure.is_empty() {
        let pause = rand::rng().random_range(APART.0..APART.1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    unsure
}
