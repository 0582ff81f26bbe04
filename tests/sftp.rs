//! Files on a real OpenSSH server: the host key is looked at, each row comes once although Millpond is killed in the middle
//! of the load, what was loaded is known again, and a watched folder takes what comes and what grows.

use crate::support::kafka::{free_port, run};
use crate::support::process::Process;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, eventually};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ROWS: usize = 6_000;

/// An sshd of the test's own: its keys, its port, nothing but SFTP.
struct Ssh {
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
    starts: u32,
}

impl Ssh {
    fn new(scratch: &Scratch) -> Ssh {
        let folder = scratch.path("ssh");
        std::fs::create_dir_all(folder.join("in")).unwrap();
        for key in ["host", "user", "stranger"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            run(&mut keygen);
        }
        std::fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
        let mut ssh = Ssh { folder, port: free_port(), process: None, starts: 0 };
        ssh.start();
        ssh
    }

    fn start(&mut self) {
        // where sshd puts away its privileges when root starts it
        let _ = std::fs::create_dir_all("/run/sshd");
        let at = |name: &str| self.folder.join(name).display().to_string();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPubkeyAuthentication yes\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\nLogLevel VERBOSE\n",
            self.port,
            at("host"),
            at("authorized"),
        );
        std::fs::write(self.folder.join("sshd_config"), config).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(self.folder.join("sshd_config"));
        self.starts += 1;
        let mut process = Process::start(sshd, &self.folder.join(format!("sshd-{}", self.starts)));
        let port = self.port;
        eventually("sshd listens", Duration::from_secs(20), || {
            assert!(process.exited().is_none(), "{}", process.tail());
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string())
        });
        self.process = Some(process);
    }

    fn fingerprint(&self, key: &str) -> String {
        let mut keygen = Command::new("ssh-keygen");
        keygen.arg("-lf").arg(self.folder.join(key).with_extension("pub"));
        run(&mut keygen).split_whitespace().nth(1).unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join("in").join(name)
    }

    fn url(&self, pattern: &str) -> String {
        let mut id = Command::new("id");
        id.arg("-un");
        let user = run(&mut id);
        format!("sftp://{}@127.0.0.1:{}{}", user.trim(), self.port, self.path(pattern).display())
    }
}

fn csv(path: &Path, ids: std::ops::Range<usize>) {
    let mut text = "id,genre\n".to_owned();
    ids.for_each(|id| writeln!(text, "{id},\"jazz, {}\"", id % 7).unwrap());
    // under a hidden name first, as programs do that care
    let half = path.with_extension("part");
    std::fs::write(&half, text).unwrap();
    std::fs::rename(half, path).unwrap();
}

fn config(ssh: &Ssh, scratch: &Scratch, login: &str, when: &str) -> PathBuf {
    let text = format!(
        r#"
topics = [{{ name = "tracks", partitions = 3 }}]
[[streams]]
name = "tracks"
topic = "tracks"
event_time = "ts"
columns = [
    {{ name = "id", type = "BIGINT", required = true }},
    {{ name = "genre", type = "VARCHAR" }},
    {{ name = "ts", type = "TIMESTAMP", required = true }},
]
[[sources]]
name = "files"
topic = "tracks"
path = {url:?}
{login}
{when}
batch_records = 100
delay = "20ms"
retries = 3
columns = [{{ name = "id", type = "BIGINT", required = true }}, {{ name = "genre" }}]
key = "id"
time_field = "ts"
"#,
        url = ssh.url("*.csv"),
    );
    scratch.write("sftp.toml", &text)
}

fn status(server: &Server) -> Value {
    server.http.get("/v1/sources/files")
}

fn load(server: &Server) -> (bool, String, Value) {
    let mut command = millpond();
    command.args(["load", "files", "--json", "--http", server.http.address()]);
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned(), report)
}

/// Rows, and how many of them are different.
fn counts(server: &Server) -> Value {
    json!(server.http.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM tracks")[0])
}

fn expected(count: usize) -> Value {
    json!([count, count, count * (count - 1) / 2])
}

fn key_of(ssh: &Ssh, host_key: &str) -> String {
    format!("private_key = \"${{file:{}}}\"\nhost_key = {host_key:?}", ssh.folder.join("user").display())
}

fn loaded(server: &Server, rows: usize) {
    eventually("the files are loaded", Duration::from_secs(60), || {
        let status = status(server);
        let there = status["published"].as_u64() == Some(rows as u64) && status["progress"].is_null();
        if there { Ok(()) } else { Err(format!("{status:.600}")) }
    });
}

#[test]
fn a_server_that_is_not_known_is_not_asked() {
    let scratch = Scratch::new("sftp-key");
    let ssh = Ssh::new(&scratch);
    csv(&ssh.path("a.csv"), 0..10);
    let fingerprint = ssh.fingerprint("host");
    let login = format!("private_key = \"${{file:{}}}\"", ssh.folder.join("user").display());
    let options = |login: &str| Options {
        configs: vec![config(&ssh, &scratch, login, "when = \"demand\"")],
        ..Options::default()
    };
    let mut server = Server::start_with(&scratch, options(&login));
    let (good, said, _) = load(&server);
    assert!(!good && said.contains(&format!("set host_key = \"{fingerprint}\"")), "{said}");
    assert!(server.stop().success());

    config(&ssh, &scratch, &key_of(&ssh, &ssh.fingerprint("stranger")), "when = \"demand\"");
    server.start_again();
    let (good, said, _) = load(&server);
    assert!(!good && said.contains("not the declared one") && said.contains(&fingerprint), "{said}");
    assert!(server.stop().success());

    // the key itself in place of its fingerprint, and a user's key that the server does not know
    let host = std::fs::read_to_string(ssh.folder.join("host.pub")).unwrap();
    let login = key_of(&ssh, host.trim())
        .replace(&ssh.folder.join("user").display().to_string(), &ssh.folder.join("stranger").display().to_string());
    config(&ssh, &scratch, &login, "when = \"demand\"");
    server.start_again();
    let (good, said, _) = load(&server);
    assert!(!good && said.contains("does not let"), "{said}");
    assert!(server.stop().success());

    config(&ssh, &scratch, &key_of(&ssh, host.trim()), "when = \"demand\"");
    server.start_again();
    let (good, said, report) = load(&server);
    assert!(good, "{said}");
    assert_eq!((&report["published"], counts(&server)), (&json!(10), expected(10)));
    assert!(server.stop().success());
}

#[test]
fn a_load_over_sftp_that_is_killed_has_each_row_once() {
    let scratch = Scratch::new("sftp");
    let mut ssh = Ssh::new(&scratch);
    csv(&ssh.path("a.csv"), 0..ROWS / 2);
    csv(&ssh.path("b.csv"), ROWS / 2..ROWS);
    let login = key_of(&ssh, &ssh.fingerprint("host"));
    let configs = vec![config(&ssh, &scratch, &login, "when = \"once\"")];
    let mut server = Server::start_with(&scratch, Options { configs, ..Options::default() });
    let mut before = 0;
    for wanted in [500, 2_000, ROWS as u64 / 2 + 700] {
        eventually("the load goes on", Duration::from_secs(60), || {
            let rows = status(&server)["rows"].as_u64().unwrap();
            if rows >= wanted { Ok(()) } else { Err(format!("{rows} rows of {wanted}")) }
        });
        server.kill9();
        server.start_again();
        let rows = status(&server)["rows"].as_u64().unwrap();
        assert!(rows >= before && rows < ROWS as u64, "killed in the middle: {rows}");
        before = rows;
    }
    loaded(&server, ROWS);
    assert_eq!(counts(&server), expected(ROWS));
    let fetched = server.data_dir().join("sources/files");
    assert!(!fetched.exists(), "what was fetched is gone: {fetched:?}");

    // the same content under another name, then a file that grew
    std::fs::rename(ssh.path("a.csv"), ssh.path("c.csv")).unwrap();
    let (good, said, report) = load(&server);
    assert!(good, "{said}");
    assert_eq!((&report["rows"], &report["files_known"]), (&json!(0), &json!(2)), "{report}");
    let mut grown = std::fs::OpenOptions::new().append(true).open(ssh.path("b.csv")).unwrap();
    std::io::Write::write_all(&mut grown, format!("{ROWS},x\n").as_bytes()).unwrap();
    let (good, said, report) = load(&server);
    assert!(good, "{said}");
    assert_eq!((&report["rows"], counts(&server)), (&json!(1), expected(ROWS + 1)), "{report}");

    // the server is away: tried again, told, and good again when it is back
    ssh.process = None;
    let (good, said, report) = load(&server);
    assert!(!good && report["retries"].as_u64() == Some(3), "{said} {report}");
    ssh.start();
    let (good, said, _) = load(&server);
    assert!(good, "{said}");
    assert!(server.stop().success());
}

#[test]
fn a_watched_folder_on_a_server_takes_what_comes() {
    let scratch = Scratch::new("sftp-watch");
    let ssh = Ssh::new(&scratch);
    let login = key_of(&ssh, &ssh.fingerprint("host"));
    let configs = vec![config(&ssh, &scratch, &login, "when = \"watch\"\npoll = \"200ms\"")];
    let mut server = Server::start_with(&scratch, Options { configs, ..Options::default() });
    std::fs::write(ssh.path("half.csv.part"), "id,genre\n7,x\n").unwrap();
    csv(&ssh.path("a.csv"), 0..300);
    loaded(&server, 300);
    csv(&ssh.path("b.csv"), 300..350);
    loaded(&server, 350);
    assert_eq!(counts(&server), expected(350));
    assert!(server.stop().success());
}
