//! Stores of objects, each behind a network that can fail: one that speaks like S3 (moto), one like Azure's (azurite) and one like
//! Google's (google/storage.py).

use super::kafka::{free_port, run};
use super::process::Process;
use super::proxy::Proxy;
use super::scripts::{json_of, python};
use super::{Scratch, cache, eventually, source};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The secret key of the account `lake`: in S3 as it is and at first as good as any other, in Azure in base64.
const SECRET: &str = "dGhlIHNlY3JldCBrZXkgb2YgdGhlIGxha2U=";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Azure,
    Google,
}

pub struct Store {
    _process: Process,
    pub kind: Kind,
    address: String,
    /// Of a service account, for Google.
    credentials: PathBuf,
    /// What stands between the server and the store.
    pub network: Proxy,
}

impl Store {
    pub fn start(scratch: &Scratch, kind: Kind) -> Store {
        let port = free_port().to_string();
        let credentials = scratch.path("account.json");
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
            Kind::Google => {
                let mut command = Command::new(cache().join("moto/bin/python"));
                command.arg("-B").arg(source("support/google/storage.py")).arg(&port).arg(&credentials);
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
        Store { _process: process, kind, network: Proxy::start(address.clone()), address, credentials }
    }

    /// A directory as `lake.url`.
    pub fn url(&self, bucket: &str, dir: &str) -> String {
        match self.kind {
            Kind::S3 => format!("s3://{bucket}/{dir}"),
            Kind::Azure => format!("az://{bucket}/{dir}"),
            Kind::Google => format!("gs://{bucket}/{dir}"),
        }
    }

    fn endpoint(&self) -> String {
        match self.kind {
            Kind::S3 | Kind::Google => format!("http://{}", self.network.address),
            Kind::Azure => format!("http://{}/lake", self.network.address),
        }
    }

    /// How the server finds the store.
    pub fn config(&self) -> String {
        let keys = match self.kind {
            Kind::Google => format!("cloud_credentials_file = {:?}", self.credentials),
            Kind::S3 | Kind::Azure => {
                format!("cloud_region = \"eu-central-1\"\ncloud_access_key = \"lake\"\ncloud_secret_key = {SECRET:?}")
            }
        };
        format!(
            "[lake]\ncloud_endpoint = \"{}\"\n{keys}\ncloud_allow_http = true\ncloud_request_time_max = \"5s\"\n",
            self.endpoint()
        )
    }

    /// The same for commands, as the vendor's own tools read it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        if self.kind == Kind::Google {
            let file = self.credentials.display().to_string();
            return vec![
                ("GOOGLE_BASE_URL", self.endpoint()),
                ("GOOGLE_APPLICATION_CREDENTIALS", file),
                ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
            ];
        }
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", "lake".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// The same for pyiceberg, which goes to the store by itself.
    pub fn for_pyiceberg(&self) -> Value {
        if self.kind == Kind::Google {
            return json!({
                "gcs.service.host": format!("http://{}", self.address),
                "gcs.oauth2.token": "reader",
                "gcs.oauth2.token-expires-at": "4102444800000",
            });
        }
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
        run(self.reader().args(["nobody", if nobody { "0" } else { "1" }]));
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

    /// What nobody but the server may read.
    pub fn secret(&self) -> String {
        match self.kind {
            Kind::S3 | Kind::Azure => SECRET.to_owned(),
            Kind::Google => {
                let account: Value = serde_json::from_slice(&std::fs::read(&self.credentials).unwrap()).unwrap();
                account["private_key"].as_str().unwrap().lines().nth(1).unwrap().to_owned()
            }
        }
    }

    /// What pyarrow finds in the Parquet files below a directory, which it lists and reads from the store by itself: rows,
    /// places in the log, sums of integers, and rows by the innermost level of directories.
    pub fn read(&self, directory: &str) -> Value {
        json_of(self.reader().args(["read", directory]))
    }

    fn reader(&self) -> Command {
        let mut command = python("clients/objects.py");
        let kind = match self.kind {
            Kind::S3 => "s3",
            Kind::Azure => "azure",
            Kind::Google => "google",
        };
        command.arg(kind).arg(&self.address).env("KEY", SECRET);
        command
    }
}
