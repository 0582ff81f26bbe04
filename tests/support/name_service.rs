//! A real HDFS behind a name service: two name nodes that share their journal, of which a person says who serves, and one data
//! node, each a process of its own.

use super::hdfs::{hadoop, site};
use super::kafka::{free_port, run};
use super::process::Process;
use super::{Scratch, eventually};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The service's name.
pub const SERVICE: &str = "mill";
/// Places of the configurations: those of the name nodes are their numbers.
const DATA_NODE: usize = 2;
const CLIENT: usize = 3;

pub struct NameService {
    folder: PathBuf,
    addresses: [String; 2],
    name_nodes: [Process; 2],
    data_node: Process,
    starts: u32,
}

impl NameService {
    /// The first name node serves.
    pub fn start(scratch: &Scratch) -> NameService {
        let folder = scratch.path("hdfs");
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let pages = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        for node in [0, 1, DATA_NODE, CLIENT] {
            let core = [("fs.defaultFS", format!("hdfs://{SERVICE}")), ("hadoop.tmp.dir", at(&folder, "tmp"))];
            scratch.write(&format!("hdfs/conf-{node}/core-site.xml"), &site(&borrowed(&core)));
            let mut properties = service(&addresses);
            properties.extend(of_node(&folder, &pages, node));
            scratch.write(&format!("hdfs/conf-{node}/hdfs-site.xml"), &site(&borrowed(&properties)));
        }
        run(hadoop(&folder, 0, NAME_NODE).args(["-format", "-force", "-nonInteractive"]));
        // a new standby begins with a copy
        run(std::process::Command::new("cp").arg("-r").arg(folder.join("name-0")).arg(folder.join("name-1")));
        let name_nodes = [0, 1].map(|node| Process::start(hadoop(&folder, node, NAME_NODE), &stem(&folder, node, 1)));
        let data_node = Process::start(hadoop(&folder, DATA_NODE, DATA_NODE_CLASS), &folder.join("data-1"));
        let service = NameService { folder, addresses, name_nodes, data_node, starts: 1 };
        service.make_active(0);
        service
    }

    /// Where a name node answers.
    pub fn address(&self, node: usize) -> &str {
        &self.addresses[node]
    }

    /// A directory with the configuration of clients who reach the name nodes at these addresses.
    pub fn conf_dir(&self, scratch: &Scratch, addresses: [&str; 2]) -> PathBuf {
        let properties = service(&addresses.map(str::to_owned));
        scratch.write("client/hdfs-site.xml", &site(&borrowed(&properties))).parent().unwrap().to_owned()
    }

    pub fn kill(&mut self, node: usize) {
        self.name_nodes[node].kill9();
    }

    /// It keeps its connections, takes new ones and answers nothing.
    pub fn freeze(&mut self, node: usize) {
        self.name_nodes[node].signal(libc::SIGSTOP);
    }

    /// Starts a name node that was killed. It stands by.
    pub fn start_again(&mut self, node: usize) {
        self.starts += 1;
        self.name_nodes[node] =
            Process::start(hadoop(&self.folder, node, NAME_NODE), &stem(&self.folder, node, self.starts));
    }

    /// Makes a standby serve, whatever became of the other.
    pub fn make_active(&self, node: usize) {
        eventually("a name node serves", Duration::from_secs(300), || {
            let mut command = hadoop(&self.folder, CLIENT, "tools.DFSHAAdmin");
            let said = command.args(["-transitionToActive", "--forceactive", &name(node)]).output().unwrap();
            if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into_owned()) }
        });
    }

    /// The paths of all files below a directory, as Hadoop's own shell lists them.
    pub fn files(&self, dir: &str) -> Vec<String> {
        let mut shell = super::hdfs::java(&self.folder, CLIENT);
        let said = run(shell.args(["org.apache.hadoop.fs.FsShell", "-ls", "-R", "-C", dir]));
        said.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect()
    }

    /// Fails when one of them has ended by itself.
    pub fn assert_alive(&mut self) {
        let ended = self.data_node.exited();
        assert!(ended.is_none(), "the data node ended: {ended:?}\n{}", self.data_node.tail());
    }
}

const NAME_NODE: &str = "server.namenode.NameNode";
const DATA_NODE_CLASS: &str = "server.datanode.DataNode";

fn name(node: usize) -> String {
    format!("nn{node}")
}

fn stem(folder: &Path, node: usize, start: u32) -> PathBuf {
    folder.join(format!("{}-{start}", name(node)))
}

fn at(folder: &Path, dir: &str) -> String {
    folder.join(dir).display().to_string()
}

/// What everybody knows of the service.
fn service(addresses: &[String; 2]) -> Vec<(String, String)> {
    let provider = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider";
    let mut properties = vec![
        ("dfs.nameservices".to_owned(), SERVICE.to_owned()),
        (format!("dfs.ha.namenodes.{SERVICE}"), "nn0,nn1".to_owned()),
        (format!("dfs.client.failover.proxy.provider.{SERVICE}"), provider.to_owned()),
    ];
    let of = |(node, address): (usize, &String)| {
        (format!("dfs.namenode.rpc-address.{SERVICE}.{}", name(node)), address.clone())
    };
    properties.extend(addresses.iter().enumerate().map(of));
    properties
}

fn of_node(folder: &Path, pages: &[String; 2], node: usize) -> Vec<(String, String)> {
    let of = |(node, address): (usize, &String)| {
        (format!("dfs.namenode.http-address.{SERVICE}.{}", name(node)), address.clone())
    };
    let mut properties: Vec<(String, String)> = pages.iter().enumerate().map(of).collect();
    let dir = |name: String| format!("file://{}", at(folder, &name));
    for (key, value) in [
        ("dfs.namenode.shared.edits.dir", dir("shared".to_owned())),
        ("dfs.namenode.name.dir", dir(format!("name-{node}"))),
        ("dfs.datanode.data.dir", dir("data".to_owned())),
        // the tests see to it that who served before is dead
        ("dfs.ha.fencing.methods", "shell(/bin/true)".to_owned()),
        ("dfs.ha.tail-edits.period", "1".to_owned()),
        ("dfs.datanode.address", "127.0.0.1:0".to_owned()),
        ("dfs.datanode.http.address", "127.0.0.1:0".to_owned()),
        ("dfs.datanode.ipc.address", "127.0.0.1:0".to_owned()),
        ("dfs.replication", "1".to_owned()),
        ("dfs.heartbeat.interval", "1".to_owned()),
        ("dfs.namenode.heartbeat.recheck-interval", "1000".to_owned()),
        ("dfs.namenode.safemode.extension", "0".to_owned()),
        ("dfs.blockreport.initialDelay", "0".to_owned()),
    ] {
        properties.push((key.to_owned(), value));
    }
    if node < 2 {
        // both are at addresses of this machine
        properties.push(("dfs.ha.namenode.id".to_owned(), name(node)));
    }
    properties
}

fn borrowed<K: AsRef<str>>(properties: &[(K, String)]) -> Vec<(&str, &str)> {
    properties.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect()
}
