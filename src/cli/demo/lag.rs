//! The lag, sampled from `cutwater status` as anybody could, and drawn.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::engine::Engine;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(400);

/// Asks for the status again and again while it lives.
pub(super) struct LagSampler {
    latest: watch::Receiver<Value>,
    curve: Arc<Mutex<Vec<f64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl LagSampler {
    pub(super) fn start(engine: Arc<Engine>) -> LagSampler {
        let (sender, latest) = watch::channel(Value::Null);
        let curve = Arc::new(Mutex::new(Vec::new()));
        let samples = curve.clone();
        let task = tokio::spawn(async move {
            loop {
                // Before `run` has made its state there is no answer, and so no sample.
                if let Ok(status) = engine.ask(&["status", "--json"]).await.and_then(|answer| answer.json("status")) {
                    if let Some(seconds) = status["lag_seconds"].as_f64() {
                        samples.lock().expect("no holder panics").push(seconds);
                    }
                    sender.send_replace(status);
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        LagSampler { latest, curve, task }
    }

    /// The newest status, or null.
    pub(super) fn status(&self) -> Value {
        self.latest.borrow().clone()
    }

    /// Every lag seen so far, in seconds.
    pub(super) fn curve(&self) -> Vec<f64> {
        self.curve.lock().expect("no holder panics").clone()
    }
}

impl Drop for LagSampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One line of at most `width` bars, each the worst of its stretch of time; the highest is the worst of all.
pub(super) fn sparkline(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let worst = values.iter().copied().fold(0.0, f64::max);
    let per_bar = values.len().div_ceil(width.max(1)).max(1);
    values
        .chunks(per_bar)
        .map(|stretch| {
            let high = stretch.iter().copied().fold(0.0, f64::max);
            let level = if worst > 0.0 { (high / worst * (BARS.len() - 1) as f64).round() } else { 0.0 };
            BARS[(level as usize).min(BARS.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_survives_the_narrowing() {
        let mut values = vec![0.0; 100];
        values[42] = 3.0;
        let line = sparkline(&values, 10);
        assert_eq!(line, "▁▁▁▁█▁▁▁▁▁");
    }

    #[test]
    fn no_lag_is_a_flat_line() {
        assert_eq!(sparkline(&[0.0, 0.0], 40), "▁▁");
        assert_eq!(sparkline(&[], 40), "");
    }
}
