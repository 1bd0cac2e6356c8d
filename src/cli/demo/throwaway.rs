//! A server process of one's own, whatever it is a server of.
//!
//! In: a prefix for the folder's name, and the accounts to run as when we are root. Out: a folder, a port on 127.0.0.1, a
//! process and its log. All of it ends and goes when the [`Throwaway`] is dropped, and also when this process is killed
//! with -9: a watchdog (`watchdog.sh`) holds the other end of a pipe. What can go wrong: the server does not start; the
//! error then holds the end of its own log.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, Error, Kind, Result};

/// A path longer than this leaves no room for a socket's name (`sun_path` is 108 bytes).
const LONGEST_SOCKET_FOLDER: usize = 80;

/// See the module's doc.
pub struct Throwaway {
    owner: Option<Owner>,
    port: u16,
    process: Option<Child>,
    /// What ends it at once when it is dropped.
    farewell: Signal,
    watchdog: Watchdog,
    // Declared last: dropped after the process has ended.
    folder: tempfile::TempDir,
}

/// Who the server runs as, when we are root: database servers refuse to be it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

struct Watchdog {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Throwaway {
    /// An empty folder and its watchdog. As root, the server will run as the first of `accounts` that exists; `farewell`
    /// is the signal that ends it at once.
    pub fn new(prefix: &str, accounts: &[&str], farewell: Signal) -> Result<Throwaway> {
        let owner = Owner::unprivileged(accounts)?;
        let folder = new_folder(prefix)?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(folder.path(), Some(owner.uid), Some(owner.gid))?;
        }
        let watchdog = Watchdog::start(folder.path())?;
        Ok(Throwaway { owner, port: 0, process: None, farewell, watchdog, folder })
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds everything the server has.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `data` in the folder. The watchdog knows the server by it: one of its arguments is this path, or `--datadir=` and
    /// this path.
    pub fn data_directory(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Everything the server has logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Gives a file or folder to the account that the server runs as.
    pub fn give(&self, path: &Path) -> Result<()> {
        match self.owner {
            Some(owner) => Ok(std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?),
            None => Ok(()),
        }
    }

    /// A command that runs as the server does.
    pub fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        // Its own process group: a Ctrl-C at the terminal is for us, and we stop the server when we are done with it.
        command.process_group(0).current_dir(self.folder.path()).env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    /// Chooses a port and launches. Another process may take the port between our look and the server's: then the next
    /// one.
    pub fn launch_on_a_free_port(&mut self, launch: impl Fn(&mut Throwaway) -> Result<()>) -> Result<()> {
        let mut tries = 0;
        loop {
            self.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            tries += 1;
            match launch(self) {
                Err(_) if tries < 5 && self.log().contains("Address already in use") => {
                    fs::write(self.log_path(), "")?;
                }
                result => return result,
            }
        }
    }

    /// Runs the server, its output into the log, and waits until it is `ready`; asked with what it has logged since.
    pub fn launch(
        &mut self,
        mut command: Command,
        within: Duration,
        ready: impl Fn(&Throwaway, &str) -> bool,
    ) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        self.give(&self.log_path())?;
        let begins = log.metadata()?.len() as usize;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().with_context(|| format!("running {}", command.get_program().display()))?);
        let deadline = Instant::now() + within;
        loop {
            if ready(self, self.log().get(begins..).unwrap_or_default()) {
                return Ok(());
            }
            if !self.is_running() || Instant::now() > deadline {
                let _ = self.end(Signal::KILL, Duration::from_secs(5));
                let why = format!("the server did not start; its log ends with\n{}", self.tail());
                return Err(Error::new(Kind::Io, why));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server's process, if it was launched and not ended by us.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Whether the server's process is there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Sends a signal and waits for the process's end; after `within` it is killed.
    pub fn end(&mut self, signal: Signal, within: Duration) -> Result<()> {
        let Some(mut child) = self.process.take() else { return Ok(()) };
        // A failure means that it has already ended, which try_wait then says.
        let _ = kill_process(Pid::from_child(&child), signal);
        let deadline = Instant::now() + within;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn tail(&self) -> String {
        const KEPT: u64 = 4_000;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(KEPT)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Copies the data directory, with owners and permissions, while the server is down.
    pub fn keep_a_copy(&self) -> Result<tempfile::TempDir> {
        let copy = tempfile::tempdir()?;
        copy_all(&self.data_directory(), &copy.path().join("data"))?;
        Ok(copy)
    }

    /// Puts a copy in the place of the data directory, while the server is down.
    pub fn restore(&self, copy: &tempfile::TempDir) -> Result<()> {
        fs::remove_dir_all(self.data_directory())?;
        copy_all(&copy.path().join("data"), &self.data_directory())
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output().context("running cp")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(Kind::Io, String::from_utf8_lossy(&output.stderr).trim().to_owned()).context("copying a server"))
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the watchdog tries again.
        let _ = self.end(self.farewell, Duration::from_secs(10));
        self.watchdog.end();
    }
}

impl Watchdog {
    fn start(folder: &Path) -> Result<Watchdog> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", include_str!("watchdog.sh"), "cutwater-watchdog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("running /bin/sh")?;
        let mut pipe = process.stdin.take().expect("stdin was asked to be a pipe");
        writeln!(pipe, "{}", folder.display())?;
        Ok(Watchdog { process, pipe: Some(pipe) })
    }

    /// Closes the pipe and waits until the folder is gone.
    fn end(&mut self) {
        drop(self.pipe.take());
        let _ = self.process.wait();
    }
}

impl Owner {
    /// `None` when we are not root and so run the server as ourselves.
    fn unprivileged(accounts: &[&str]) -> Result<Option<Owner>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let find = |wanted: &str| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
                (name == wanted).then_some(Owner { uid, gid })
            })
        };
        match accounts.iter().find_map(|name| find(name)) {
            Some(owner) => Ok(Some(owner)),
            None => {
                let why = format!("the server refuses to run as root, and there is no user {}", accounts.join(" or "));
                Err(Error::new(Kind::Io, why).fix("run as an ordinary user"))
            }
        }
    }
}

/// A folder under the temporary directory, or under /tmp where that one's name is too long for a socket.
fn new_folder(prefix: &str) -> Result<tempfile::TempDir> {
    let mut place = std::env::temp_dir();
    if place.as_os_str().len() > LONGEST_SOCKET_FOLDER || place.to_str().is_none() {
        place = PathBuf::from("/tmp");
    }
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(&place)
        .with_context(|| format!("making a folder in {}", place.display()))
}
