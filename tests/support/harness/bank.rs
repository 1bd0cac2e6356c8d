//! A reader at the target that adds up the money, all the time.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::engine::{Engine, Session};

/// Money only moves between accounts at the source, one transaction a transfer. Whoever sees another sum at the target
/// sees half a transaction, one that was lost, or one that came twice.
pub struct Bank<T> {
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
    engine: PhantomData<T>,
}

#[derive(Default)]
struct Seen {
    reads: u64,
    /// Sums of the accounts' versions: each is a state of its own.
    states: HashSet<i64>,
    wrong: Option<String>,
}

impl<T: Engine> Bank<T> {
    /// Begins to read. The accounts must have been copied.
    pub fn open(url: &str, expected: i64) -> Bank<T> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = tokio::spawn(read::<T>(url.to_owned(), expected, Arc::clone(&seen)));
        Bank { seen, reader, engine: PhantomData }
    }

    /// Different states that were seen so far.
    pub fn states(&self) -> usize {
        self.seen.lock().unwrap().states.len()
    }

    /// Panics if the sum ever was another, or if nothing was to be seen.
    pub fn close(self) -> (u64, usize) {
        self.reader.abort();
        let seen = self.seen.lock().unwrap();
        if let Some(wrong) = &seen.wrong {
            panic!("{wrong}");
        }
        assert!(seen.states.len() > 1, "the reader saw {} states in {} reads", seen.states.len(), seen.reads);
        (seen.reads, seen.states.len())
    }
}

async fn read<T: Engine>(url: String, expected: i64, seen: Arc<Mutex<Seen>>) {
    loop {
        // The server may be away: that is what is being played.
        if let Ok(mut session) = T::connect(&url).await {
            let sum = |column: &str| T::whole_number(&format!("sum({column})"));
            let sql = format!("SELECT {}, {} FROM accounts", sum("balance"), sum("version"));
            while let Ok(sums) = session.numbers(&sql).await {
                let mut seen = seen.lock().unwrap();
                seen.reads += 1;
                seen.states.insert(sums[1]);
                if sums[0] != expected && seen.wrong.is_none() {
                    seen.wrong =
                        Some(format!("the bank held {} instead of {expected} at read {}", sums[0], seen.reads));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
