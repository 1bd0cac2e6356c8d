//! The real binary, with its config in a folder of its own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A migration's config file, and where its processes write.
pub struct Cutwater {
    folder: tempfile::TempDir,
    started: AtomicU32,
    environment: Vec<(String, String)>,
}

/// A process that was started.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    what: String,
}

/// A process that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
    what: String,
}

impl Cutwater {
    /// A migration with the defaults. It is called `shop`, or as the source's database where several tests share a
    /// server: slots are the whole server's, and two migrations of one name would be in each other's way.
    pub fn new(source_url: &str, target_url: &str) -> Cutwater {
        let database = source_url.rsplit('/').next().and_then(|rest| rest.split('?').next());
        let name = database.filter(|database| database.starts_with("test_")).unwrap_or("shop");
        Cutwater::with_config(&format!(
            "[migration]\nname = \"{name}\"\n\n[source]\nurl = \"{source_url}\"\n\n[target]\nurl = \"{target_url}\"\n"
        ))
    }

    /// A migration with this config file.
    pub fn with_config(toml: &str) -> Cutwater {
        let folder = tempfile::Builder::new().prefix("cutwater-test-").tempdir().unwrap();
        fs::write(folder.path().join("cutwater.toml"), toml).unwrap();
        Cutwater { folder, started: AtomicU32::new(0), environment: Vec::new() }
    }

    /// Adds lines to the end of the config file.
    #[must_use]
    pub fn and(self, toml: &str) -> Cutwater {
        let path = self.config_path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text + "\n" + toml).unwrap();
        self
    }

    /// Sets a variable for every process started from here.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Cutwater {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The config file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("cutwater.toml")
    }

    /// The processes' current folder.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Starts `cutwater <args> -c cutwater.toml`.
    pub fn start(&self, args: &[&str]) -> Running {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let stdout = self.folder.path().join(format!("{number}.out"));
        let stderr = self.folder.path().join(format!("{number}.err"));
        let child = Command::new(env!("CARGO_BIN_EXE_cutwater"))
            .args(args)
            .arg("-c")
            .arg(self.config_path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Running { child, stdout, stderr, what: format!("cutwater {}", args.join(" ")) }
    }

    /// What `cutwater status --json` says.
    pub async fn status(&self) -> serde_json::Value {
        self.run(&["status", "--json"], Duration::from_secs(60)).await.json()
    }

    /// Waits until what it says holds; two minutes at most.
    pub async fn wait_for_status(&self, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let facts = self.status().await;
            if holds(&facts) {
                return facts;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "in vain: {facts:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs `cutwater <args> -c cutwater.toml` to its end; panics when that takes longer than the deadline.
    pub async fn run(&self, args: &[&str], deadline: Duration) -> Finished {
        self.start(args).wait(deadline).await
    }
}

impl Running {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C.
    pub fn sigint(&self) {
        self.signal(Signal::INT);
    }

    /// As `systemctl stop` does.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Freezes it, as a moved virtual machine is.
    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; kills it and panics with what it wrote when that takes longer than the deadline.
    pub async fn wait(mut self, deadline: Duration) -> Finished {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > deadline {
                self.kill9();
                panic!(
                    "{} ran longer than {deadline:?}\nstdout:\n{}\nstderr:\n{}",
                    self.what,
                    self.stdout(),
                    self.stderr()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr(), what: self.what.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}: stdout\n{}\n--- stderr\n{}", self.what, self.stdout(), self.stderr());
        }
    }
}

impl Finished {
    /// Panics with everything it wrote unless it ended with this code.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Finished {
        assert_eq!(
            self.code,
            Some(code),
            "exit code of {}\nstdout:\n{}\nstderr:\n{}",
            self.what,
            self.stdout,
            self.stderr
        );
        self
    }

    /// `--json` output.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout))
    }
}
