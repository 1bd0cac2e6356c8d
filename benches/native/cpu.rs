//! CPU time of a whole Postgres server: the postmaster, its living children, and those it has waited for.

use std::path::Path;
use std::time::Duration;

/// CPU time used so far.
#[derive(Debug, Clone, Copy)]
pub struct Cpu(pub Duration);

/// Linux counts in these; `getconf CLK_TCK` is 100 on every machine this runs on.
const TICK: Duration = Duration::from_millis(10);

impl Cpu {
    /// Of the server whose data is in `data`.
    pub fn of_server(data: &Path) -> Cpu {
        let pid_file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
        let postmaster: u32 = pid_file.lines().next().unwrap().trim().parse().unwrap();
        let mut ticks = stat(postmaster).map_or(0, |stat| stat.own + stat.waited_for);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if let Some(stat) = stat(pid).filter(|stat| stat.parent == postmaster) {
                ticks += stat.own;
            }
        }
        Cpu(TICK * u32::try_from(ticks).unwrap())
    }

    /// Used since `earlier`.
    pub fn since(self, earlier: Cpu) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

struct Stat {
    parent: u32,
    own: u64,
    waited_for: u64,
}

/// `proc(5)`, /proc/pid/stat: fields 4 (ppid), 14–15 (utime, stime), 16–17 (cutime, cstime).
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &text[text.rfind(')')? + 2..];
    let fields: Vec<u64> = after_name.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect();
    Some(Stat { parent: fields[1] as u32, own: fields[11] + fields[12], waited_for: fields[13] + fields[14] })
}

/// CPU time of all children this process has waited for.
pub fn children() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = &text[text.rfind(')').unwrap() + 2..];
    let fields: Vec<u64> = after_name.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect();
    TICK * u32::try_from(fields[13] + fields[14]).unwrap()
}
