//! The Kafka port's security from checked values, and the checks that need more than one key.

use std::path::PathBuf;

use broker::{ClientAuth, ListenerConfig, ListenerProtocol, Secret, SecurityConfig, TlsConfig, UserConfig};

use super::mistake::Mistakes;
use super::settings_security::mechanisms;
use super::value::Entry;

/// One listener, by name and address; `secured` is the table `security`, for what `entry` does not say itself.
pub fn listener(
    (name, bind): (String, String),
    entry: &Entry,
    secured: &Entry,
    mistakes: &mut Mistakes,
) -> ListenerConfig {
    let protocol = ListenerProtocol::named(&entry.text_or_none("protocol").unwrap_or_default());
    let advertise = entry.text_or_none("advertise");
    let tls = if protocol.is_encrypted() { tls(protocol, entry, secured, mistakes) } else { None };
    ListenerConfig { name, bind, advertise, protocol, tls }
}

fn tls(protocol: ListenerProtocol, entry: &Entry, secured: &Entry, mistakes: &mut Mistakes) -> Option<TlsConfig> {
    let own = |key: &str| entry.text_or_none(key).or_else(|| secured.text_or_none(key));
    let client_auth = match own("client_auth").as_deref() {
        Some("requested") => ClientAuth::Requested,
        Some("required") => ClientAuth::Required,
        _ => ClientAuth::None,
    };
    let client_ca = own("client_ca").map(PathBuf::from);
    let place = entry.place("protocol");
    if client_auth != ClientAuth::None && client_ca.is_none() {
        let text = "clients are asked for certificates: say in security.client_ca whose are taken";
        mistakes.add(&place, entry.path_of("protocol"), text);
    }
    let (Some(certificate), Some(key)) = (own("certificate"), own("key")) else {
        let text = format!("{} needs security.certificate and security.key", protocol.name());
        mistakes.add(&place, entry.path_of("protocol"), text);
        return None;
    };
    Some(TlsConfig { certificate: certificate.into(), key: key.into(), client_ca, client_auth })
}

/// What holds for all listeners.
pub fn security(entry: &Entry, mistakes: &mut Mistakes) -> SecurityConfig {
    let list = |key: &str, separator: char| -> Vec<String> {
        let text = entry.text_or_none(key).unwrap_or_default();
        text.split(separator).map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let wanted = list("mechanisms", ',');
    for name in wanted.iter().filter(|name| !SecurityConfig::MECHANISMS.contains(&name.as_str())) {
        let text = format!("{name} is not a mechanism; there are {}", mechanisms());
        mistakes.add(&entry.place("mechanisms"), entry.path_of("mechanisms"), text);
    }
    let super_users = list("super_users", ';');
    for name in super_users.iter().filter(|name| !name.starts_with("User:")) {
        let text = format!("{name} is not a principal; write User:{name}");
        mistakes.add(&entry.place("super_users"), entry.path_of("super_users"), text);
    }
    let user = |user: &Entry| UserConfig {
        name: user.text_or_none("name").unwrap_or_default(),
        password: Secret(user.text_or_none("password").unwrap_or_default()),
    };
    SecurityConfig {
        authorizer: entry.bool("authorizer"),
        super_users,
        allow_everyone_if_no_acl_found: entry.bool("allow_everyone_if_no_acl_found"),
        mechanisms: wanted,
        users: entry.tables("users").iter().map(user).collect(),
        reauthentication_ms: entry.integer("reauthentication"),
        handshake_ms: entry.unsigned("handshake"),
        audit_log: entry.text_or_none("audit_log").map(PathBuf::from),
    }
}
