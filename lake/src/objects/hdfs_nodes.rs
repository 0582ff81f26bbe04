//! The way to the name nodes of an HDFS: one, or those of a name service, of which one serves and others stand by.
//!
//! The library goes on to the next name node when one refuses, is on standby or ends its connection. With one that does not answer at
//! all, as when its machine lost power, it stays for ever. So when a call's time is over, the next calls are made through a
//! new client, which begins with any of the name nodes.

use std::path::Path;
use std::time::Duration;

use hdfs_native::{Client, ClientBuilder, HdfsError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::config::HdfsConfig;
use crate::error::{LakeError, Result};

/// Longest wait for one answer of a name node.
const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// The files of a Hadoop configuration that are read.
const CONF_FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];

/// Attempts of one call. A single name node that is gone would block it for three minutes by Hadoop's default; those of a service are
/// asked in turn for some ten seconds, which is what a failover takes.
const ATTEMPTS: (&str, &str) = ("dfs.client.failover.max.attempts", "3");
const ATTEMPTS_OF_SERVICE: (&str, &str) = ("dfs.client.failover.max.attempts", "15");
const SLEEP_MS_MAX: (&str, &str) = ("dfs.client.failover.sleep.max.millis", "2000");

/// Where the tickets lie that a keytab gave: in memory, one place for all clients.
const TICKETS: &str = "MEMORY:millpond";
/// Hadoop's setting of how clients say who they are.
const AUTHENTICATION: &str = "hadoop.security.authentication";

/// The name nodes. Holds: the client that is asked, and what makes another one. Only [`ask`](Self::ask) changes it. Nothing here
/// survives a crash.
#[derive(Debug)]
pub struct NameNodes {
    server: String,
    config: HdfsConfig,
    runtime: Handle,
    asked: Mutex<Asked>,
    call_time_max: Duration,
}

/// The client that is asked.
#[derive(Clone, Debug)]
struct Asked {
    client: Client,
    since: Instant,
}

impl NameNodes {
    /// The name nodes behind `hdfs://host:port` or `hdfs://service`. Nothing is asked yet.
    ///
    /// # Errors
    /// `Config` for a URL or a Hadoop configuration that cannot be read.
    pub fn new(server: &str, config: &HdfsConfig, runtime: &Handle) -> Result<Self> {
        if let Some(dir) = &config.conf_dir
            && !CONF_FILES.iter().any(|file| Path::new(dir).join(file).is_file())
        {
            let files = CONF_FILES.join(" nor ");
            return Err(LakeError::config(format!("lake.hdfs_conf_dir {dir}: neither {files} is there")));
        }
        if config.keytab.is_some() && config.principal.is_none() {
            let message = "lake.hdfs_keytab: set lake.hdfs_principal too, to the name whose keys these are";
            return Err(LakeError::config(message));
        }
        let client = client(server, config, (runtime, false))
            .map_err(|e| LakeError::config(format!("lake.url {server}: {e}: {}", advice(server))))?;
        Ok(Self {
            server: server.to_owned(),
            config: config.clone(),
            runtime: runtime.clone(),
            asked: Mutex::new(Asked { client, since: Instant::now() }),
            call_time_max: CALL_TIME_MAX,
        })
    }

    /// Who is to be asked now.
    pub fn client(&self) -> Client {
        self.asked.lock().client.clone()
    }

    /// An answer of the name node within the time limit.
    ///
    /// # Errors
    /// As HDFS says them; a timeout when it says nothing.
    pub fn ask<T>(
        &self,
        call: impl Future<Output = hdfs_native::Result<T>>,
    ) -> impl Future<Output = hdfs_native::Result<T>> {
        let answer = within(self.call_time_max, call);
        async move {
            let began = Instant::now();
            let answer = answer.await;
            if matches!(&answer, Err(HdfsError::IOError(error)) if error.kind() == std::io::ErrorKind::TimedOut) {
                self.turn_from(began);
            }
            answer
        }
    }

    /// Turns from who was asked since before `began`.
    fn turn_from(&self, began: Instant) {
        let mut asked = self.asked.lock();
        if asked.since > began {
            return;
        }
        match client(&self.server, &self.config, (&self.runtime, true)) {
            Ok(client) => {
                tracing::debug!(server = self.server, "a name node does not answer, any of them is asked next");
                *asked = Asked { client, since: Instant::now() };
            }
            Err(error) => tracing::warn!(%error, "the Hadoop configuration cannot be read any more"),
        }
    }
}

/// A call within a time limit. It lies on the heap: the library's futures take up to 33 KiB, and each future around one would be larger
/// than it, down to those of tests, whose threads' stacks they filled.
///
/// # Errors
/// As HDFS says them; a timeout when it says nothing.
pub fn within<T>(
    limit: Duration,
    call: impl Future<Output = hdfs_native::Result<T>>,
) -> impl Future<Output = hdfs_native::Result<T>> {
    let call = Box::pin(call);
    async move {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("no answer within {limit:?}");
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message).into())
            }
        }
    }
}

/// A client that asks the name nodes in the order of the configuration, or in `any` order.
fn client(server: &str, config: &HdfsConfig, (runtime, any): (&Handle, bool)) -> hdfs_native::Result<Client> {
    let attempts = if is_service(server) { ATTEMPTS_OF_SERVICE } else { ATTEMPTS };
    let mut overrides: Vec<(String, String)> =
        [attempts, SLEEP_MS_MAX].iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if any {
        overrides.push((format!("dfs.client.failover.random.order.{}", host(server)), "true".to_owned()));
    }
    if config.principal.is_some() {
        overrides.push((AUTHENTICATION.to_owned(), "kerberos".to_owned()));
    }
    let mut builder = ClientBuilder::new().with_url(server).with_config(overrides).with_io_runtime(runtime.clone());
    if let Some(user) = &config.user {
        builder = builder.with_user(user);
    }
    if let Some(principal) = &config.principal {
        builder = builder.with_kerberos_principal(principal);
    }
    if let Some(keytab) = &config.keytab {
        builder = builder.with_kerberos_keytab(keytab).with_kerberos_cache(TICKETS);
    }
    if let Some(dir) = &config.conf_dir {
        builder = builder.with_config_dir(dir);
    }
    builder.build()
}

fn host(server: &str) -> &str {
    server.strip_prefix("hdfs://").unwrap_or(server)
}

/// Whether it is a name of the Hadoop configuration's, not a machine.
fn is_service(server: &str) -> bool {
    !host(server).contains(':')
}

fn advice(server: &str) -> String {
    match is_service(server) {
        true => format!(
            "a URL without a port names a service: set lake.hdfs_conf_dir or HADOOP_CONF_DIR to where hdfs-site.xml has \
             dfs.ha.namenodes.{}, or give the port",
            host(server)
        ),
        false => "check the URL and HADOOP_CONF_DIR".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers each call of Hadoop's RPC as if it asked for a file that is not there.
    fn nothing_is_there(mut stream: TcpStream) -> std::io::Result<()> {
        let mut greeting = [0; 7];
        stream.read_exact(&mut greeting)?;
        // the context of the connection
        read_frame(&mut stream)?;
        for call in 0..100 {
            read_frame(&mut stream)?;
            // its length, a header of the call's id and "success", an empty message
            stream.write_all(&[0, 0, 0, 6, 4, 0x08, call, 0x10, 0, 0])?;
        }
        Ok(())
    }

    fn read_frame(stream: &mut TcpStream) -> std::io::Result<()> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize])
    }

    fn configuration(dir: &Path, service: &str, addresses: &[String]) -> HdfsConfig {
        let names: Vec<String> = (0..addresses.len()).map(|node| format!("nn{node}")).collect();
        let mut properties = vec![(format!("dfs.ha.namenodes.{service}"), names.join(","))];
        let of = |(name, address): (&String, &String)| {
            (format!("dfs.namenode.rpc-address.{service}.{name}"), address.clone())
        };
        properties.extend(names.iter().zip(addresses).map(of));
        let property = |(name, value): &(String, String)| {
            format!("<property><name>{name}</name><value>{value}</value></property>")
        };
        let text: String = properties.iter().map(property).collect();
        std::fs::write(dir.join("hdfs-site.xml"), format!("<configuration>{text}</configuration>")).unwrap();
        HdfsConfig { conf_dir: Some(dir.display().to_string()), ..HdfsConfig::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_node_that_hangs_does_not_keep_another_from_being_asked() {
        // takes connections and says nothing
        let hung = TcpListener::bind("127.0.0.1:0").unwrap();
        let serves = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [&hung, &serves].map(|listener| listener.local_addr().unwrap().to_string());
        std::thread::spawn(move || {
            for stream in serves.incoming() {
                std::thread::spawn(move || nothing_is_there(stream.unwrap()));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let config = configuration(dir.path(), "mill", &addresses);
        let mut nodes = NameNodes::new("hdfs://mill", &config, &Handle::current()).unwrap();
        nodes.call_time_max = Duration::from_millis(300);
        let ask = async || match nodes.ask(nodes.client().get_file_info("/x")).await {
            Err(HdfsError::FileNotFound(_)) => true,
            Err(error) => {
                assert!(error.to_string().contains("no answer within 300ms"), "{error}");
                false
            }
            Ok(status) => panic!("{status:?}"),
        };
        assert!(!ask().await, "the first of the configuration hangs");
        let mut asked = 1;
        while !ask().await {
            asked += 1;
            assert!(asked < 40, "the other was not asked");
        }
        for _ in 0..20 {
            assert!(ask().await, "it stays with the one that answers");
        }
    }

    #[tokio::test]
    async fn a_keytab_wants_the_name_whose_keys_it_has() {
        let open = |config: &HdfsConfig| NameNodes::new("hdfs://127.0.0.1:1", config, &Handle::current()).map(|_| ());
        let keytab = HdfsConfig { keytab: Some("/x.keytab".to_owned()), ..HdfsConfig::default() };
        assert!(open(&keytab).unwrap_err().message.contains("lake.hdfs_principal"));
        let both = HdfsConfig { principal: Some("millpond@EXAMPLE.COM".to_owned()), ..keytab };
        assert_eq!(open(&both).map_err(|error| error.message), Ok(()));
    }

    #[tokio::test]
    async fn a_configuration_that_does_not_name_the_service_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let open = |config: &HdfsConfig| NameNodes::new("hdfs://mill", config, &Handle::current()).map(|_| ());
        let empty = HdfsConfig { conf_dir: Some(dir.path().display().to_string()), ..HdfsConfig::default() };
        let error = open(&empty).unwrap_err().message;
        assert!(error.contains("lake.hdfs_conf_dir") && error.contains("hdfs-site.xml is there"), "{error}");
        let other = configuration(dir.path(), "other", &["127.0.0.1:1".to_owned()]);
        let error = open(&other).unwrap_err().message;
        assert!(error.contains("dfs.ha.namenodes.mill, or give the port"), "{error}");
        let named = configuration(dir.path(), "mill", &["127.0.0.1:1".to_owned()]);
        assert_eq!(open(&named).map_err(|error| error.message), Ok(()));
    }
}
