//! A real Kerberos realm: the server of Apache Kerby, and what an HDFS and its clients need of it.

use super::kafka::free_port;
use super::process::Process;
use super::{cache, source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Who Millpond is.
pub const PRINCIPAL: &str = "millpond@MILL.TEST";
/// Who all nodes of HDFS are, and who administers it.
const NODES: &str = "hdfs/localhost";
const PAGES: &str = "HTTP/localhost";
const REALM: &str = "MILL.TEST";

pub struct Realm {
    _server: Process,
    folder: PathBuf,
}

impl Realm {
    /// Keeps its files in a folder.
    pub fn start(folder: &Path) -> Realm {
        fs::create_dir_all(folder).unwrap();
        let mut command = Command::new("java");
        command.args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(cache().join("kerberos/jars/*")).arg(source("support/kerberos/Kdc.java"));
        command.arg(folder).arg(free_port().to_string());
        command.args([&format!("hdfs={NODES},{PAGES}"), "millpond=millpond"]);
        let mut server = Process::start(command, &folder.join("kdc"));
        server.wait_for_line(|line| line == "ready", Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"));
        Realm { _server: server, folder: folder.to_owned() }
    }

    /// The keys of Millpond.
    pub fn keytab(&self) -> PathBuf {
        self.folder.join("millpond.keytab")
    }

    /// A cache with a ticket of Millpond's.
    pub fn tickets(&self) -> PathBuf {
        self.folder.join("millpond.cache")
    }

    /// A krb5.conf for clients, whose tickets last so long.
    pub fn conf(&self, lasting: Duration) -> PathBuf {
        let text = fs::read_to_string(self.folder.join("krb5.conf")).unwrap();
        let short = format!("[libdefaults]\n ticket_lifetime = {}s", lasting.as_secs());
        let path = self.folder.join(format!("krb5-{}.conf", lasting.as_secs()));
        fs::write(&path, text.replace("[libdefaults]", &short)).unwrap();
        path
    }

    /// The settings of an HDFS that takes nobody else.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let keytab = self.folder.join("hdfs.keytab").display().to_string();
        let (nodes, pages) = (format!("{NODES}@{REALM}"), format!("{PAGES}@{REALM}"));
        let (yes, privacy) = ("true".to_owned(), "privacy".to_owned());
        vec![
            ("hadoop.security.authentication", "kerberos".to_owned()),
            ("hadoop.security.authorization", yes.clone()),
            ("hadoop.rpc.protection", privacy.clone()),
            ("dfs.data.transfer.protection", privacy),
            ("dfs.block.access.token.enable", yes.clone()),
            // data nodes do not listen where only root may
            ("ignore.secure.ports.for.testing", yes),
            ("dfs.namenode.kerberos.principal", nodes.clone()),
            ("dfs.datanode.kerberos.principal", nodes),
            ("dfs.namenode.keytab.file", keytab.clone()),
            ("dfs.datanode.keytab.file", keytab.clone()),
            ("dfs.web.authentication.kerberos.principal", pages),
            ("dfs.web.authentication.kerberos.keytab", keytab),
        ]
    }
}

/// What a JVM of an HDFS in a folder is told of Kerberos, when it is there.
pub fn of_jvm(folder: &Path) -> Vec<(&'static str, String)> {
    let conf = folder.join("krb5.conf");
    if !conf.exists() {
        return Vec::new();
    }
    vec![
        ("JAVA_TOOL_OPTIONS", format!("-Djava.security.krb5.conf={}", conf.display())),
        ("KRB5CCNAME", folder.join("hdfs.cache").display().to_string()),
    ]
}
