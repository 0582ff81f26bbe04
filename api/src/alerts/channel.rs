//! The ways out: a URL that takes JSON, and a mail server.

use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::Value;

use crate::config::{SmtpConfig, SmtpTls};

/// Longest time for one attempt at either.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);

/// One mail to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// Its receivers.
    pub to: Vec<String>,
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub text: String,
    /// What its message id begins with, so that a receiver can tell a mail that was sent twice.
    pub id: String,
}

/// Sends JSON to a URL; any status from 200 to 299 is good.
///
/// # Errors
/// What the other side said, or why it could not be reached.
pub async fn webhook(url: String, body: Value) -> Result<(), String> {
    let call = move || {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ATTEMPT_MAX)).build();
        let agent: ureq::Agent = config.into();
        let mut answer = agent.post(&url).send_json(&body).map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = answer.body_mut().with_config().limit(1_000).read_to_string().unwrap_or_default();
        Err(format!("{url} answered {status}: {said}"))
    };
    tokio::task::spawn_blocking(call).await.map_err(|error| error.to_string())?
}

/// Sends one mail.
///
/// # Errors
/// What the server said, or why it could not be reached.
pub async fn email(smtp: Option<&SmtpConfig>, mail: &Mail) -> Result<(), String> {
    let smtp = smtp.ok_or("no mail server is named: give smtp.host")?;
    let address =
        |text: &str| text.parse::<Mailbox>().map_err(|error| format!("{text:?} is not a mail address: {error}"));
    let mut message = Message::builder()
        .from(address(&smtp.from)?)
        .subject(&mail.subject)
        .message_id(Some(format!("<{}@millpond>", mail.id)))
        .header(ContentType::TEXT_PLAIN);
    for to in &mail.to {
        message = message.to(address(to)?);
    }
    let message = message.body(mail.text.clone()).map_err(|error| format!("the mail cannot be written: {error}"))?;
    let parameters = || TlsParameters::new(smtp.host.clone()).map_err(|error| format!("tls: {error}"));
    let tls = match smtp.tls {
        SmtpTls::None => Tls::None,
        SmtpTls::StartTls => Tls::Required(parameters()?),
        SmtpTls::Tls => Tls::Wrapper(parameters()?),
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(ATTEMPT_MAX));
    if let Some((user, password)) = &smtp.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
    }
    let sent = tokio::time::timeout(ATTEMPT_MAX, transport.build().send(message)).await;
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{}:{}: {error}", smtp.host, smtp.port)),
        Err(_) => Err(format!("{}:{} did not answer in {} s", smtp.host, smtp.port, ATTEMPT_MAX.as_secs())),
    }
}
