//! A real HDFS: a name node and two data nodes of Apache Hadoop 3.5, each a process of its own, so that each can be killed. With a
//! realm it takes nobody without Kerberos.

use super::kafka::{free_port, run};
use super::kerberos::{self, Realm};
use super::process::Process;
use super::{Scratch, cache, eventually};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const DATA_NODES: usize = 2;

pub struct Hdfs {
    folder: PathBuf,
    name_node: Process,
    data_nodes: Vec<Process>,
    starts: u32,
    address: String,
    realm: Option<Realm>,
}

impl Hdfs {
    pub fn start(scratch: &Scratch) -> Hdfs {
        Hdfs::start_in(scratch, None)
    }

    /// One that wants Kerberos, in a realm of its own, and encrypts all that goes over the network.
    pub fn secure(scratch: &Scratch) -> Hdfs {
        let realm = Realm::start(&scratch.path("hdfs"));
        Hdfs::start_in(scratch, Some(realm))
    }

    fn start_in(scratch: &Scratch, realm: Option<Realm>) -> Hdfs {
        let folder = scratch.path("hdfs");
        let address = format!("127.0.0.1:{}", free_port());
        let http = format!("127.0.0.1:{}", free_port());
        // in both files, as each overrides defaults of its own
        let secure = realm.as_ref().map(Realm::properties).unwrap_or_default();
        for node in 0..=DATA_NODES {
            scratch.write(&format!("hdfs/conf-{node}/core-site.xml"), &core_site(&address, &folder, &secure));
            scratch.write(
                &format!("hdfs/conf-{node}/hdfs-site.xml"),
                &hdfs_site((&address, &http), (&folder, node), &secure),
            );
        }
        run(hadoop(&folder, 0, "server.namenode.NameNode").args(["-format", "-force", "-nonInteractive"]));
        let name_node = Process::start(hadoop(&folder, 0, "server.namenode.NameNode"), &folder.join("name-1"));
        let data_nodes = (1..=DATA_NODES).map(|node| data_node(&folder, node, 1)).collect();
        let mut hdfs = Hdfs { folder, name_node, data_nodes, starts: 1, address, realm };
        hdfs.wait_for_data_nodes(DATA_NODES);
        hdfs
    }

    /// Whose tickets are taken.
    pub fn realm(&self) -> &Realm {
        self.realm.as_ref().unwrap()
    }

    /// A directory with the configuration that clients are given.
    pub fn conf_dir(&self) -> PathBuf {
        self.folder.join("conf-0")
    }

    /// A directory as `lake.url`.
    pub fn url(&self, dir: &str) -> String {
        format!("hdfs://{}/{dir}", self.address)
    }

    pub fn kill_data_node(&mut self, node: usize) {
        self.data_nodes[node].kill9();
    }

    /// It answers nothing any more, and its connections stay.
    pub fn pause_data_node(&mut self, node: usize) {
        self.data_nodes[node].signal(libc::SIGSTOP);
    }

    pub fn resume_data_node(&mut self, node: usize) {
        self.data_nodes[node].signal(libc::SIGCONT);
    }

    pub fn start_data_node(&mut self, node: usize) {
        self.starts += 1;
        self.data_nodes[node] = data_node(&self.folder, node + 1, self.starts);
    }

    pub fn kill_name_node(&mut self) {
        self.name_node.kill9();
    }

    pub fn start_name_node(&mut self) {
        self.starts += 1;
        let stem = self.folder.join(format!("name-{}", self.starts));
        self.name_node = Process::start(hadoop(&self.folder, 0, "server.namenode.NameNode"), &stem);
        self.wait_for_data_nodes(DATA_NODES);
    }

    /// Waits until so many data nodes serve and the name node takes changes.
    pub fn wait_for_data_nodes(&mut self, count: usize) {
        let folder = self.folder.clone();
        let name_node = &mut self.name_node;
        eventually("HDFS serves", Duration::from_secs(300), || {
            if let Some(status) = name_node.exited() {
                panic!("the name node ended: {status}\n{}", name_node.tail());
            }
            let said = hadoop(&folder, 0, "tools.DFSAdmin").args(["-report", "-live"]).output().unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let safe = said.contains("Safe mode is ON");
            if said.contains(&format!("Live datanodes ({count})")) && !safe { Ok(()) } else { Err(said) }
        });
    }

    /// What Hadoop's own shell says to `fs` with these arguments.
    pub fn shell(&self, args: &[&str]) -> String {
        let mut command = java(&self.folder, 0);
        run(command.arg("org.apache.hadoop.fs.FsShell").args(args))
    }

    /// (path below the lake, replication) of every file below a directory.
    pub fn files(&self, dir: &str) -> Vec<(String, u32)> {
        let said = self.shell(&["-ls", "-R", "-C", &format!("/{dir}")]);
        let paths: Vec<&str> = said.lines().filter(|line| line.ends_with(".parquet")).collect();
        if paths.is_empty() {
            return Vec::new();
        }
        let long = self.shell(&["-ls", "-R", &format!("/{dir}")]);
        let replication = |path: &str| {
            let line = long.lines().find(|line| line.ends_with(path)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        paths.into_iter().map(|path| (path.to_owned(), replication(path))).collect()
    }

    /// Waits until each block below a directory has its two copies, as HDFS's own check counts them.
    pub fn wait_for_two_copies(&self, dir: &str) {
        eventually("each block has two copies", Duration::from_secs(90), || {
            let said = hadoop(&self.folder, 0, "tools.DFSck").arg(format!("/{dir}")).output().unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let healthy = words.contains("Average block replication: 2.0") && words.contains("is HEALTHY");
            if healthy { Ok(()) } else { Err(said) }
        });
    }
}

fn data_node(folder: &std::path::Path, node: usize, start: u32) -> Process {
    Process::start(hadoop(folder, node, "server.datanode.DataNode"), &folder.join(format!("data-{node}-{start}")))
}

/// A class of HDFS's with the configuration of a node.
pub fn hadoop(folder: &std::path::Path, node: usize, class: &str) -> Command {
    let mut command = java(folder, node);
    command.arg(format!("org.apache.hadoop.hdfs.{class}"));
    command
}

/// A JVM with Hadoop's classes and the configuration of a node, and with a ticket where Kerberos is wanted.
pub fn java(folder: &std::path::Path, node: usize) -> Command {
    let jars = cache().join("hdfs/jars/*");
    let conf = folder.join(format!("conf-{node}"));
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx160m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
        ])
        .arg("-cp")
        .arg(format!("{}:{}", conf.display(), jars.display()));
    command.envs(kerberos::of_jvm(folder));
    command
}

fn core_site(address: &str, folder: &std::path::Path, secure: Properties<'_>) -> String {
    let (url, tmp) = (format!("hdfs://{address}"), folder.join("tmp").display().to_string());
    let mut properties = vec![("fs.defaultFS", url.as_str()), ("hadoop.tmp.dir", &tmp)];
    properties.extend(secure.iter().map(|(name, value)| (*name, value.as_str())));
    site(&properties)
}

type Properties<'of> = &'of [(&'static str, String)];

fn hdfs_site(
    (address, http): (&str, &str),
    (folder, node): (&std::path::Path, usize),
    secure: Properties<'_>,
) -> String {
    let at = |name: &str| format!("file://{}", folder.join(name).display());
    let (names, data) = (at("name"), at(&format!("data-{node}")));
    let mut properties = vec![
        ("dfs.namenode.rpc-address", address),
        ("dfs.namenode.http-address", http),
        ("dfs.namenode.name.dir", &names),
        ("dfs.datanode.data.dir", &data),
        ("dfs.datanode.address", "127.0.0.1:0"),
        ("dfs.datanode.http.address", "127.0.0.1:0"),
        ("dfs.datanode.ipc.address", "127.0.0.1:0"),
        ("dfs.replication", "2"),
        ("dfs.heartbeat.interval", "1"),
        ("dfs.namenode.heartbeat.recheck-interval", "1000"),
        ("dfs.namenode.safemode.extension", "0"),
        ("dfs.blockreport.initialDelay", "0"),
    ];
    properties.extend(secure.iter().map(|(name, value)| (*name, value.as_str())));
    site(&properties)
}

/// A file of a Hadoop configuration.
pub fn site(properties: &[(&str, &str)]) -> String {
    let mut text = "<configuration>\n".to_owned();
    for (name, value) in properties {
        writeln!(text, "<property><name>{name}</name><value>{value}</value></property>").unwrap();
    }
    text + "</configuration>\n"
}
