//! Logins, certificates, rights and quotas as real clients meet them: librdkafka, Kafka's Java client and tools, kafkajs, aiokafka.

use crate::support::kafka::{free_port, java_source, tool};
use crate::support::scripts::{json_of, node, platformatic, python};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everybody's certificate authority, the server's certificate, and one of a client called ann by its organisation.
struct Certificates {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    client: PathBuf,
    client_key: PathBuf,
    /// Key and certificate of the client in one file, as Java takes them.
    client_both: PathBuf,
}

fn certificates(scratch: &Scratch) -> Certificates {
    let key = || KeyPair::generate().unwrap();
    let (ca_key, server_key, client_key) = (key(), key(), key());
    let named = |params: &mut CertificateParams, name: &str| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Mill");
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let mut ca = CertificateParams::new(vec![]).unwrap();
    named(&mut ca, "authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, &ca_key);
    let mut server = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    named(&mut server, "server");
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let mut client = CertificateParams::new(vec![]).unwrap();
    named(&mut client, "ann");
    let client = client.signed_by(&client_key, &issuer).unwrap();
    Certificates {
        ca: scratch.write("ca.pem", &ca_pem),
        certificate: scratch.write("server.pem", &server.pem()),
        key: scratch.write("server.key", &server_key.serialize_pem()),
        client: scratch.write("client.pem", &client.pem()),
        client_key: scratch.write("client.key", &client_key.serialize_pem()),
        client_both: scratch.write("client-both.pem", &(client_key.serialize_pem() + &client.pem())),
    }
}

struct Secured {
    scratch: Scratch,
    files: Certificates,
    server: Server,
    /// The listener for clients with certificates.
    mutual: String,
    /// Settings of Java's tools for `admin`.
    admin: PathBuf,
}

/// SASL_SSL for logins, SSL for certificates, ACLs; `admin` may do everything. Logins hold for so long; 0 is for ever.
fn secured(test: &str, login_ms: u32) -> Secured {
    let scratch = Scratch::new(test);
    let files = certificates(&scratch);
    let mutual = format!("127.0.0.1:{}", free_port());
    let config = format!(
        "[broker]\nprotocol = \"SASL_SSL\"\nlisteners = [{{ name = \"mutual\", bind = \"{mutual}\", protocol = \"SSL\", client_auth = \"required\", client_ca = {:?} }}]\n\
         [security]\ncertificate = {:?}\nkey = {:?}\nauthorizer = true\naudit_log = {:?}\n\
         [kafka]\n\"super.users\" = \"User:admin\"\n\"connections.max.reauth.ms\" = {login_ms}\n[[security.users]]\nname = \"admin\"\npassword = \"${{file:{}}}\"\n",
        files.ca,
        files.certificate,
        files.key,
        scratch.path("audit.log"),
        scratch.write("admin.secret", "admin-secret\n").display(),
    );
    let server = Server::with_config(&scratch, &config);
    let admin = java_settings(&scratch, &files, "admin", "admin-secret", &server.kafka);
    Secured { scratch, files, server, mutual, admin }
}

fn java_settings(scratch: &Scratch, files: &Certificates, user: &str, password: &str, bootstrap: &str) -> PathBuf {
    let text = format!(
        "bootstrap.servers={bootstrap}\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n\
         sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{user}\" password=\"{password}\";\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\n",
        files.ca.display()
    );
    scratch.write(&format!("{user}-{password}.properties"), &text)
}

impl Secured {
    /// One of Kafka's tools as `admin`.
    fn tool(&self, class: &str, args: &[&str]) -> String {
        let admin = self.admin.display().to_string();
        let mut all = vec!["--bootstrap-server", &self.server.kafka, "--command-config", &admin];
        all.extend(args);
        tool(class, &all)
    }

    fn acl(&self, args: &[&str]) -> String {
        self.tool("org.apache.kafka.tools.AclCommand", args)
    }

    fn config(&self, args: &[&str]) -> String {
        self.tool("kafka.admin.ConfigCommand", args)
    }

    fn spec(&self, client: &str, topic: &str, password: &str) -> Value {
        json!({
            "bootstrap": self.server.kafka, "ca": self.files.ca, "mechanism": "SCRAM-SHA-512", "user": "ann",
            "password": password, "topic": topic, "group": format!("group-{client}"),
            "values": (0..20).map(|i| format!("{client}-{i}")).collect::<Vec<_>>(),
        })
    }

    fn with_certificate(&self, client: &str, topic: &str) -> Value {
        json!({
            "bootstrap": self.mutual, "ca": self.files.ca, "cert": self.files.client, "key": self.files.client_key,
            "topic": topic, "group": format!("group-{client}"),
            "values": (0..20).map(|i| format!("{client}-{i}")).collect::<Vec<_>>(),
        })
    }

    fn run(&self, client: &str, spec: &Value) -> Value {
        let path = self.scratch.write(&format!("{client}.json"), &spec.to_string());
        match client {
            "kafkajs" => json_of(node("clients/login.js").arg(path)),
            "platformatic" => json_of(platformatic().arg("login").arg(path)),
            "java" => self.run_java(spec),
            client => json_of(python("clients/login.py").arg(client).arg(path)),
        }
    }

    fn run_java(&self, spec: &Value) -> Value {
        let text = |name: &str| spec[name].as_str().unwrap();
        let settings = if spec["user"].is_null() {
            let text = format!(
                "bootstrap.servers={}\nsecurity.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
                 ssl.keystore.type=PEM\nssl.keystore.location={}\n",
                self.mutual,
                self.files.ca.display(),
                self.files.client_both.display(),
            );
            self.scratch.write("mutual.properties", &text)
        } else {
            java_settings(&self.scratch, &self.files, text("user"), text("password"), text("bootstrap"))
        };
        let values = spec["values"].as_array().unwrap().iter().map(|value| value.as_str().unwrap());
        let mut command = java_source("clients/LoginClient.java");
        if let Some(pause) = spec["every_ms"].as_u64() {
            command.env("JDK_JAVA_OPTIONS", format!("-Devery.ms={pause}"));
        }
        json_of(command.arg(settings).arg(text("topic")).arg(text("group")).args(values))
    }

    fn audit(&self) -> String {
        fs::read_to_string(self.scratch.path("audit.log")).unwrap()
    }
}

const CLIENTS: [&str; 5] = ["confluent", "aiokafka", "kafkajs", "platformatic", "java"];

fn assert_read(client: &str, spec: &Value, report: &Value) {
    let values = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    assert!(values(&spec["values"]).is_subset(&values(&report["read"])), "{client}: {report}");
}

#[test]
fn real_clients_log_in_and_are_held_to_their_rights() {
    let _beside = beside_others();
    let secured = secured("security-clients", 0);
    for topic in CLIENTS.iter().flat_map(|client| [format!("orders-{client}"), format!("mutual-{client}")]) {
        secured.tool("org.apache.kafka.tools.TopicCommand", &["--create", "--topic", &topic]);
    }
    secured.tool("org.apache.kafka.tools.TopicCommand", &["--create", "--topic", "payroll"]);
    let password = "SCRAM-SHA-512=[iterations=4096,password=ann-secret]";
    secured.config(&["--alter", "--add-config", password, "--entity-type", "users", "--entity-name", "ann"]);
    let described = secured.config(&["--describe", "--entity-type", "users", "--entity-name", "ann"]);
    assert!(described.contains("SCRAM-SHA-512=iterations=4096"), "{described}");
    for (principal, topics) in [("User:ann", "orders-"), ("User:CN=ann,O=Mill", "mutual-")] {
        let pattern = ["--resource-pattern-type", "prefixed", "--topic", topics];
        let allowed = ["--add", "--allow-principal", principal];
        secured.acl(&[&allowed[..], &["--producer"], &pattern].concat());
        secured.acl(&[&allowed[..], &["--consumer", "--group", "group-"], &pattern].concat());
    }
    let listed = secured.acl(&["--list", "--principal", "User:ann"]);
    assert!(listed.contains("ResourcePattern(resourceType=TOPIC, name=orders-, patternType=PREFIXED)"), "{listed}");
    for client in CLIENTS {
        let spec = secured.spec(client, &format!("orders-{client}"), "ann-secret");
        assert_read(client, &spec, &secured.run(client, &spec));
        let spec = secured.with_certificate(client, &format!("mutual-{client}"));
        assert_read(client, &spec, &secured.run(client, &spec));
        let denied = secured.run(client, &secured.spec(client, "payroll", "ann-secret"));
        let told = denied["refused"].as_str().unwrap_or_else(|| panic!("{client}: {denied}"));
        assert!(told.to_lowercase().contains("authoriz") || told.contains("authorized"), "{client}: {told}");
        let denied = secured.run(client, &secured.spec(client, &format!("orders-{client}"), "guessed"));
        let told = denied["refused"].as_str().unwrap_or_else(|| panic!("{client}: {denied}"));
        assert!(told.to_lowercase().contains("authentication"), "{client}: {told}");
    }
    let audit = secured.audit();
    assert!(
        audit.contains("Topic:payroll") && audit.contains("login refused") && audit.contains("\"changed\""),
        "{audit}"
    );
    assert!(!audit.contains("ann-secret") && !audit.contains("guessed"), "{audit}");
    gone(&secured);
}

/// What was given is taken away again, by the tools.
fn gone(secured: &Secured) {
    secured.acl(&["--remove", "--force", "--topic", "orders-", "--resource-pattern-type", "prefixed"]);
    let spec = secured.spec("java", "orders-java", "ann-secret");
    assert_eq!(secured.run("java", &spec)["refused"], "TopicAuthorizationException");
    secured.config(&["--alter", "--delete-config", "SCRAM-SHA-512", "--entity-type", "users", "--entity-name", "ann"]);
    assert_eq!(secured.run("java", &spec)["refused"], "SaslAuthenticationException");
}

#[test]
fn logins_are_renewed_and_quotas_throttle() {
    let _beside = beside_others();
    let secured = secured("security-quotas", 3000);
    let password = "SCRAM-SHA-512=[password=ann-secret]";
    secured.config(&["--alter", "--add-config", password, "--entity-type", "users", "--entity-name", "ann"]);
    secured.tool("org.apache.kafka.tools.TopicCommand", &["--create", "--topic", "orders"]);
    let allowed = ["--add", "--allow-principal", "User:ann", "--operation"];
    secured.acl(&[&allowed[..], &["Write", "--topic", "*"]].concat());
    secured.acl(&[&allowed[..], &["Read", "--topic", "*", "--group", "*"]].concat());
    // seven seconds of work with logins that hold for three
    for client in ["confluent", "java"] {
        let mut spec = secured.spec(client, "orders", "ann-secret");
        spec["every_ms"] = json!(350);
        assert_read(client, &spec, &secured.run(client, &spec));
    }
    assert!(!secured.audit().contains("login refused"), "{}", secured.audit());
    // ten seconds of it are 10 kB; 40 kB in one go must be told to wait
    secured.config(&[
        "--alter",
        "--add-config",
        "producer_byte_rate=1000",
        "--entity-type",
        "users",
        "--entity-name",
        "ann",
    ]);
    let described = secured.config(&["--describe", "--entity-type", "users", "--entity-name", "ann"]);
    assert!(described.contains("producer_byte_rate=1000.0"), "{described}");
    let mut spec = secured.spec("confluent", "orders", "ann-secret");
    spec["values"] = json!([format!("large-{}", "x".repeat(11_000))]);
    spec["every_ms"] = json!(1);
    let report = secured.run("confluent", &spec);
    let throttle = report["throttle_ms"].as_i64().unwrap();
    assert!((500..=30_000).contains(&throttle), "{throttle} ms");
}

/// All mistakes come together.
#[test]
fn what_is_missing_is_said_before_anything_starts() {
    let scratch = Scratch::new("security-mistakes");
    let config = scratch.write(
        "a.toml",
        "[broker]\nprotocol = \"SASL_SSL\"\n[security]\nmechanisms = \"GSSAPI\"\n[kafka]\n\"super.users\" = \"admin\"\n",
    );
    let output = crate::support::server::serve(Path::new("unused"), "127.0.0.1:0", "127.0.0.1:0")
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    for mistake in ["SASL_SSL needs security.certificate", "GSSAPI is not a mechanism", "write User:admin"] {
        assert!(said.contains(mistake), "{said}");
    }
    assert!(!output.status.success());
}
