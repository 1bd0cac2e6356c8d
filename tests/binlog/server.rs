//! A server whose binlog files are read.

use std::path::PathBuf;
use std::process::{Command, Stdio};

pub use cutwater::mysql::Flavour as Engine;

use crate::support::{LocalMySql, MyOptions, my_server};

pub struct Server {
    local: LocalMySql,
}

impl Server {
    /// Starts one with `options` (`--name=value`); `None` if this machine has none, which is said on stderr.
    pub fn start(engine: Engine, options: &[&str]) -> Option<Server> {
        let settings = options.iter().fold(MyOptions::new(), |settings, option| {
            let (name, value) = option.trim_start_matches("--").split_once('=').unwrap();
            settings.setting(name, value)
        });
        let test = std::thread::current().name().unwrap_or("binlog").to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Server { local: runtime.block_on(my_server(engine, settings, &test))? })
    }

    /// Runs statements in one session of the server's own client and gives back what they print, a line each.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        use std::io::Write;
        let mut client = Command::new("mariadb")
            .args(["--no-defaults", "-uroot", "-N", "-B", "--default-character-set=utf8mb4"])
            .arg(format!("--socket={}", self.local.socket().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client of MariaDB (package mariadb-client)");
        let mut stdin = client.stdin.take().unwrap();
        let script = sql.to_owned();
        let feeder = std::thread::spawn(move || drop(stdin.write_all(script.as_bytes())));
        let out = client.wait_with_output().unwrap();
        feeder.join().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}\n{}", sql.chars().take(2000).collect::<String>());
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The bytes of every binlog file, the oldest first.
    pub fn binlogs(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.local.data_directory())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_stem().is_some_and(|stem| stem == "binlog"))
            .filter(|path| path.extension().is_some_and(|end| end.to_string_lossy().parse::<u32>().is_ok()))
            .collect();
        files.sort();
        files.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }
}
