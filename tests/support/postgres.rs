//! A real PostgreSQL in a folder of its own on a free port, killed and started again at will.

use super::eventually;
use super::kafka::{free_port, run};
use super::process::Process;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub struct Postgres {
    dir: PathBuf,
    port: u16,
    starts: u32,
    process: Option<Process>,
}

impl Postgres {
    pub fn start() -> Postgres {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Not below the scratch folder: PostgreSQL refuses to run as root, and its user may not reach that one.
        let dir = std::env::temp_dir().join(format!("millpond-postgres-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        if let Some((user, group)) = unprivileged() {
            std::os::unix::fs::chown(&dir, Some(user), Some(group)).unwrap();
        }
        let data = dir.join("data");
        run(program("initdb")
            .args(["-U", "millpond", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(&dir));
        let mut postgres = Postgres { dir, port: free_port(), starts: 0, process: None };
        postgres.start_again();
        postgres.psql("postgres", "CREATE DATABASE freelances_db");
        postgres
    }

    pub fn url(&self) -> String {
        format!("postgres://millpond@127.0.0.1:{}/freelances_db", self.port)
    }

    /// SIGKILL to the postmaster; its children end by themselves when they notice.
    pub fn kill9(&mut self) {
        self.process.take().expect("postgres runs").kill9();
    }

    /// Starts it on the same data and port; what is left of the killed one may hold it up for a moment.
    pub fn start_again(&mut self) {
        let dir = self.dir.clone();
        let port = self.port.to_string();
        let started = &mut self.starts;
        let mut process: Option<Process> = None;
        eventually("PostgreSQL starts", Duration::from_secs(60), || {
            if process.as_mut().is_none_or(|process| process.exited().is_some()) {
                *started += 1;
                let mut command = program("postgres");
                command.arg("-D").arg(dir.join("data")).args(["-p", &port, "-h", "127.0.0.1", "-k"]).arg(&dir);
                // A killed server is what these tests are about, a killed machine is not.
                command.args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=40"]);
                process = Some(Process::start(command, &dir.join(format!("postgres-{started}"))));
            }
            let ready = program("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap();
            if ready.success() { Ok(()) } else { Err("not ready".to_owned()) }
        });
        self.process = process;
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        let url = format!("postgres://millpond@127.0.0.1:{}/{database}", self.port);
        run(program("psql").args(["-X", "-A", "-t", "-F", "|", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]))
    }

    /// The rows of a query, columns with `|` between them.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.psql("freelances_db", sql).lines().map(str::to_owned).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.process.take());
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Debian keeps the server's programs out of the path.
fn program(name: &str) -> Command {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name))).collect())
        .unwrap_or_default();
    found.retain(|path| path.exists());
    found.sort();
    let mut command = Command::new(found.pop().unwrap_or_else(|| Path::new(name).to_path_buf()));
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

/// User and group for the server when this is root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |args: &[&str]| run(Command::new("id").args(args)).trim().parse::<u32>().unwrap();
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}
