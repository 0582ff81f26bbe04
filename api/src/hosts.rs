//! The names by which a port is asked that nobody but this machine can reach, and that takes every request.
//!
//! A page of another site can give its own name this machine's address (DNS rebinding); the browser of somebody here then
//! takes its requests for requests of that page to itself, and `Origin` says so too. Only the name tells.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::Access;
use crate::error::Problem;
use crate::server::Port;

/// The names of a port; none: it is asked by any.
#[derive(Clone, Debug)]
pub struct Hosts(Option<Arc<str>>);

impl Hosts {
    /// The names of a port that was bound to `bind`, `HOST:PORT`. With tokens, a page without one gets nothing, and a
    /// port that others reach has names that are not known here.
    pub fn of(port: &Port, bind: &str, access: &Access) -> Hosts {
        let open = access.is_open() && port.address().ip().is_loopback();
        Hosts(open.then(|| Arc::from(name(bind))))
    }

    /// Lets a request on that asks by one of the names.
    pub async fn check(self, request: Request, next: Next) -> Response {
        let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or(""));
        let asked = header.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        match asked {
            // without one: no browser
            Some(asked) if !self.has(name(asked)) => foreign(name(asked)).into_response(),
            _ => next.run(request).await,
        }
    }

    fn has(&self, name: &str) -> bool {
        let Some(bound) = &self.0 else { return true };
        let plain = name.trim_start_matches('[').trim_end_matches(']');
        let local = plain.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        local || name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(bound)
    }
}

fn foreign(name: &str) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-host",
        "the request asks for another host",
        format!(
            "this port takes every request from this machine, but not for the host {name}: ask http://localhost, or declare [[tokens]]"
        ),
    )
}

/// The host of `HOST:PORT`, with the brackets of IPv6.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_machine_is_asked_by_its_own_names() {
        let hosts = Hosts(Some("box".into()));
        for own in [
            "localhost",
            "localhost:8080",
            "LOCALHOST:1",
            "127.0.0.1:80",
            "127.1.2.3",
            "[::1]:8080",
            "[::1]",
            "Box:8080",
        ] {
            assert!(hosts.has(name(own)), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "10.0.0.1",
            "",
            "[::2]:80",
        ] {
            assert!(!hosts.has(name(foreign)), "{foreign}");
        }
        assert!(Hosts(None).has("evil.example"));
    }
}
