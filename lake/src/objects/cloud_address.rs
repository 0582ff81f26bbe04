//! From a URL, the settings and the environment to a client of an object store.
//!
//! ```text
//! s3://BUCKET/PREFIX       s3a:// too                     AWS_… variables
//! gs://BUCKET/PREFIX                                      GOOGLE_… variables
//! az://CONTAINER/PREFIX    azure:// adl:// abfs[s]:// too  AZURE_… variables; abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX
//! ```
//!
//! What the settings say is taken before what the environment says. Without keys in either, each vendor's own ways are
//! tried: the roles of an instance, a container or a web identity. A request is tried again within the bounds of the
//! settings, here and nowhere else; what still fails is tried again by whoever has the work to do, as the sealer.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use crate::config::CloudConfig;
use crate::error::{LakeError, Result};

/// Longest pause between two tries of one request.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CONNECT_TIME: &str = "5s";
/// Where Azure keeps an account's files, as Hadoop names it.
const AZURE_FILES: &str = "dfs.core.windows.net";

/// The variable by which Google's client may be allowed to speak without TLS.
const GOOGLE_ALLOW_HTTP: &str = "GOOGLE_ALLOW_HTTP";

/// A store, not asked anything yet.
pub struct Found {
    /// What reads and writes whole objects.
    pub store: Arc<dyn ObjectStore>,
    /// What uploads in parts.
    pub parts: Arc<dyn MultipartStore>,
    /// What all paths begin with; may be empty.
    pub prefix: Path,
    /// As a URL without a slash at its end.
    pub url: String,
    /// The URL that Hive and Spark know.
    pub hadoop_url: String,
}

/// Whether the scheme is one of an object store.
pub fn is_cloud(scheme: &str) -> bool {
    vendor(scheme).is_some() || (cfg!(test) && scheme == DIRECTORY)
}

/// Of tests: a directory that is taken for an object store.
const DIRECTORY: &str = "objects";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    Aws,
    Google,
    Azure,
}

fn vendor(scheme: &str) -> Option<Vendor> {
    Some(match scheme {
        "s3" | "s3a" => Vendor::Aws,
        "gs" => Vendor::Google,
        "az" | "azure" | "adl" | "abfs" | "abfss" => Vendor::Azure,
        _ => return None,
    })
}

/// The store at `url`.
///
/// # Errors
/// `Config` for a URL or settings that name no store, for credentials that cannot be read.
pub fn find(url: &str, config: &CloudConfig) -> Result<Found> {
    #[cfg(test)]
    if let Some(dir) = url.strip_prefix(&format!("{DIRECTORY}://")) {
        return Ok(tests::directory(dir));
    }
    let Parts { scheme, host, prefix } = split(url)?;
    let server = format!("{scheme}://{host}");
    let below = |server: &str| match prefix.as_ref() {
        "" => server.to_owned(),
        prefix => format!("{server}/{prefix}"),
    };
    let wrong = |e: object_store::Error| {
        LakeError::config(format!("lake.url {url}: {e}: check the URL, lake.cloud_… and the variables of the store"))
    };
    let (store, parts, hadoop): (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>, String) = match vendor(scheme) {
        Some(Vendor::Aws) => {
            let store = Arc::new(aws(&server, config).build().map_err(wrong)?);
            (store.clone(), store, format!("s3a://{host}"))
        }
        Some(Vendor::Google) => {
            let store = Arc::new(google(&server, config).build().map_err(wrong)?);
            (store.clone(), store, server.clone())
        }
        Some(Vendor::Azure) => {
            let builder = azure(&server, config);
            let account = builder.get_config_value(&AzureConfigKey::AccountName).unwrap_or_default();
            let hadoop = match host.contains('@') {
                true => format!("abfss://{host}"),
                false => format!("abfss://{host}@{account}.{AZURE_FILES}"),
            };
            let store = Arc::new(builder.build().map_err(wrong)?);
            (store.clone(), store, hadoop)
        }
        None => return Err(LakeError::config(format!("lake.url {url}: {scheme}:// is not served by this version"))),
    };
    Ok(Found { store, parts, url: below(&server), hadoop_url: below(&hadoop), prefix })
}

fn aws(server: &str, config: &CloudConfig) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env().with_url(server).with_retry(retry(config));
    for (key, value) in client(config) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    let given = [
        // the second name is taken before the first
        (AmazonS3ConfigKey::S3Endpoint, &config.endpoint),
        (AmazonS3ConfigKey::Region, &config.region),
        (AmazonS3ConfigKey::AccessKeyId, &config.access_key),
        (AmazonS3ConfigKey::SecretAccessKey, &config.secret_key.as_ref().map(|key| key.0.clone())),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    match config.path_style {
        true => builder,
        false => builder.with_virtual_hosted_style_request(true),
    }
}

fn google(server: &str, config: &CloudConfig) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_url(server).with_retry(retry(config));
    // by itself Google's client speaks to whatever an endpoint names
    if std::env::var_os(GOOGLE_ALLOW_HTTP).is_none() {
        builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "false");
    }
    for (key, value) in client(config) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    match &config.credentials_file {
        Some(file) => builder.with_config(credentials_key(file), file),
        None => builder,
    }
}

/// What a file of credentials is: a person's own, as `gcloud auth application-default login` writes it, or else a service account,
/// which goes before one that the environment names.
fn credentials_key(file: &str) -> GoogleConfigKey {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let kind = serde_json::from_str::<serde_json::Value>(&text).ok().map(|found| found["type"].clone());
    match kind.as_ref().and_then(serde_json::Value::as_str) {
        Some("authorized_user") => GoogleConfigKey::ApplicationCredentials,
        _ => GoogleConfigKey::ServiceAccount,
    }
}

fn azure(server: &str, config: &CloudConfig) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(server).with_retry(retry(config));
    for (key, value) in client(config) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let given = [
        (AzureConfigKey::Endpoint, &config.endpoint),
        (AzureConfigKey::AccountName, &config.access_key),
        (AzureConfigKey::AccessKey, &config.secret_key.as_ref().map(|key| key.0.clone())),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

fn client(config: &CloudConfig) -> Vec<(ClientConfigKey, String)> {
    let mut options = vec![
        (ClientConfigKey::Timeout, format!("{}ms", config.request_time_ms)),
        (ClientConfigKey::ConnectTimeout, CONNECT_TIME.to_owned()),
    ];
    // without it the variable of the store's own decides
    if config.allow_http {
        options.push((ClientConfigKey::AllowHttp, "true".to_owned()));
    }
    options
}

fn retry(config: &CloudConfig) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: PAUSE_MAX, ..BackoffConfig::default() },
        max_retries: config.retries,
        // no further try begins after that
        retry_timeout: Duration::from_millis(config.request_time_ms),
    }
}

#[derive(Debug, PartialEq)]
struct Parts<'url> {
    scheme: &'url str,
    host: &'url str,
    prefix: Path,
}

/// `scheme://bucket/prefix`, taken as it is: `%` is part of names.
fn split(url: &str) -> Result<Parts<'_>> {
    let wrong = || {
        LakeError::config(format!(
            "lake.url {url}: give a bucket and a directory in it, as in s3://bucket/lake, gs://bucket/lake or \
             az://container/lake"
        ))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
    let dots = prefix.split('/').any(|part| part == "." || part == "..");
    if host.is_empty() || !host.chars().all(plain) || dots || prefix.contains(['?', '#']) {
        return Err(wrong());
    }
    Ok(Parts { scheme, host, prefix: Path::parse(prefix).map_err(|_| wrong())? })
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;

    /// A directory as a store; parts would go elsewhere, and no test's files there are so large.
    pub fn directory(dir: &str) -> Found {
        std::fs::create_dir_all(dir).unwrap();
        Found {
            store: Arc::new(LocalFileSystem::new_with_prefix(dir).unwrap()),
            parts: Arc::new(InMemory::new()),
            prefix: Path::default(),
            url: format!("{DIRECTORY}://{dir}"),
            hadoop_url: format!("{DIRECTORY}://{dir}"),
        }
    }

    #[test]
    fn a_url_is_a_bucket_and_a_prefix() {
        let parts = |url| split(url).map(|parts| (parts.host.to_owned(), parts.prefix.to_string()));
        assert_eq!(parts("s3://bucket/a/b/").unwrap(), ("bucket".to_owned(), "a/b".to_owned()));
        assert_eq!(parts("gs://bucket").unwrap(), ("bucket".to_owned(), String::new()));
        let azure = parts("abfss://files@account.dfs.core.windows.net/lake").unwrap();
        assert_eq!(azure, ("files@account.dfs.core.windows.net".to_owned(), "lake".to_owned()));
        for wrong in ["s3://", "s3:///lake", "s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/a?b", "s3://b:80/a"] {
            assert!(parts(wrong).unwrap_err().message.contains("s3://bucket/lake"), "{wrong}");
        }
    }

    #[test]
    fn a_file_of_credentials_is_taken_for_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        let person = r#"{"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}"#;
        assert_eq!(credentials_key(&file("person", person)), GoogleConfigKey::ApplicationCredentials);
        // an emulator's account without a key, which says where that is
        let emulator = r#"{"gcs_base_url": "http://127.0.0.1:1", "disable_oauth": true, "client_email": "",
                           "private_key": "", "private_key_id": ""}"#;
        let config = CloudConfig { credentials_file: Some(file("emulator", emulator)), ..CloudConfig::default() };
        assert_eq!(find("gs://bucket/lake", &config).map(|found| found.url).unwrap(), "gs://bucket/lake");
        let missing = CloudConfig { credentials_file: Some("/nowhere".to_owned()), ..CloudConfig::default() };
        let error = find("gs://bucket/lake", &missing).err().unwrap().message;
        assert!(error.contains("/nowhere") && error.contains("lake.cloud_"), "{error}");
    }

    #[test]
    fn without_leave_no_store_is_spoken_to_without_tls() {
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        for (allow_http, want) in [(false, "false"), (true, "true")] {
            let config = CloudConfig { endpoint: endpoint.clone(), allow_http, ..CloudConfig::default() };
            let key = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
            assert_eq!(google("gs://bucket", &config).get_config_value(&key).as_deref(), Some(want));
        }
    }

    #[test]
    fn hive_and_spark_get_their_own_schemes() {
        let config = CloudConfig {
            access_key: Some("account".to_owned()),
            secret_key: Some(broker::Secret("c2VjcmV0".to_owned())),
            ..CloudConfig::default()
        };
        let urls = |url| find(url, &config).map(|found| (found.url, found.hadoop_url)).unwrap();
        assert_eq!(urls("s3://bucket/lake/"), ("s3://bucket/lake".to_owned(), "s3a://bucket/lake".to_owned()));
        assert_eq!(urls("s3a://bucket"), ("s3a://bucket".to_owned(), "s3a://bucket".to_owned()));
        let hadoop = "abfss://files@account.dfs.core.windows.net/lake";
        assert_eq!(urls("az://files/lake"), ("az://files/lake".to_owned(), hadoop.to_owned()));
        assert_eq!(urls(hadoop), (hadoop.to_owned(), hadoop.to_owned()));
    }
}
