//! Stores of objects, each behind a network that can fail: one that speaks like S3 (moto) and one like Azure's (azurite).

use super::kafka::{free_port, run};
use super::process::Process;
use super::proxy::Proxy;
use super::scripts::{json_of, python};
use super::{Scratch, cache, eventually};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// The secret key of the account `lake`: in S3 as it is and at first as good as any other, in Azure in base64.
pub const SECRET: &str = "dGhlIHNlY3JldCBrZXkgb2YgdGhlIGxha2U=";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Azure,
}

pub struct Store {
    _process: Process,
    kind: Kind,
    address: String,
    /// What stands between the server and the store.
    pub network: Proxy,
}

impl Store {
    pub fn start(scratch: &Scratch, kind: Kind) -> Store {
        let port = free_port().to_string();
        let command = match kind {
            Kind::S3 => {
                let mut command = Command::new(cache().join("moto/bin/moto_server"));
                command.args(["-H", "127.0.0.1", "-p", &port]);
                command
            }
            Kind::Azure => {
                let mut command = Command::new("node");
                command.arg(cache().join("azurite/node_modules/azurite/dist/src/blob/main.js"));
                command.args(["--blobHost", "127.0.0.1", "--blobPort", &port, "--inMemoryPersistence"]);
                command.args(["--skipApiVersionCheck", "--disableTelemetry"]);
                command.env("AZURITE_ACCOUNTS", format!("lake:{SECRET}"));
                command
            }
        };
        let address = format!("127.0.0.1:{port}");
        let mut process = Process::start(command, &scratch.path("store"));
        eventually("the store answers", Duration::from_secs(60), || {
            if let Some(status) = process.exited() {
                panic!("the store ended: {status}\n{}", process.tail());
            }
            TcpStream::connect(&address).map(drop).map_err(|e| e.to_string())
        });
        Store { _process: process, kind, network: Proxy::start(address.clone()), address }
    }

    /// A directory as `lake.url`.
    pub fn url(&self, bucket: &str, dir: &str) -> String {
        match self.kind {
            Kind::S3 => format!("s3://{bucket}/{dir}"),
            Kind::Azure => format!("az://{bucket}/{dir}"),
        }
    }

    fn endpoint(&self) -> String {
        match self.kind {
            Kind::S3 => format!("http://{}", self.network.address),
            Kind::Azure => format!("http://{}/lake", self.network.address),
        }
    }

    /// How the server finds the store.
    pub fn config(&self) -> String {
        format!(
            "[lake]\ncloud_endpoint = \"{}\"\ncloud_region = \"eu-central-1\"\ncloud_access_key = \"lake\"\n\
             cloud_secret_key = {SECRET:?}\ncloud_allow_http = true\ncloud_request_time_max = \"5s\"\n",
            self.endpoint()
        )
    }

    /// The same for commands, as S3's own tools read it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", "lake".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// The same for pyiceberg, which goes to the store by itself.
    pub fn for_pyiceberg(&self) -> Value {
        json!({
            "s3.endpoint": format!("http://{}", self.address),
            "s3.access-key-id": "reader",
            "s3.secret-access-key": "reader",
            "s3.region": "eu-central-1",
        })
    }

    pub fn make_bucket(&self, bucket: &str) {
        run(self.reader().args(["make", bucket]));
    }

    /// From here on the store knows nobody, or takes any key again.
    pub fn know_nobody(&self, nobody: bool) {
        run(self.reader().args(["keys-wanted", if nobody { "0" } else { "inf" }]));
    }

    /// The paths of all objects of a bucket, as the store lists them.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let found = json_of(self.reader().args(["keys", bucket]));
        found.as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    /// How many uploads to a bucket are not ended.
    pub fn open_uploads(&self, bucket: &str) -> u64 {
        json_of(self.reader().args(["uploads", bucket])).as_u64().unwrap()
    }

    /// What pyarrow finds in the Parquet files below a directory, which it lists and reads from the store by itself: rows,
    /// places in the log, sums of integers, and rows by the innermost level of directories.
    pub fn read(&self, directory: &str) -> Value {
        json_of(self.reader().args(["read", directory]))
    }

    fn reader(&self) -> Command {
        let mut command = python("clients/objects.py");
        command.arg(if self.kind == Kind::S3 { "s3" } else { "azure" }).arg(&self.address).env("KEY", SECRET);
        command
    }
}
