//! SCRAM (RFC 5802, RFC 7677) as a machine of bytes in and bytes out, for the server's side.
//!
//! What is kept of a password is its credential: salt, iterations, StoredKey and ServerKey. Neither lets anybody log in
//! as the user. A user that is not there is answered like one that is, with a salt that stays the same, and refused at
//! the proof: whoever asks does not learn which names exist.

use std::num::NonZeroU32;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

use super::base64;

/// Least iterations of a credential (RFC 7677, and Kafka's minimum).
pub const ITERATIONS_MIN: u32 = 4_096;
/// Most iterations of a credential, Kafka's maximum: who logs in has to do them.
pub const ITERATIONS_MAX: u32 = 16_384;
/// Iterations of the credentials that are made at start from the configuration.
pub(super) const ITERATIONS: u32 = 8_192;
/// Random bytes in a nonce and in a salt.
const RANDOM_BYTES: usize = 24;

/// The hash that a mechanism is built on. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256 = 1,
    /// SCRAM-SHA-512.
    Sha512 = 2,
}

impl ScramMechanism {
    /// Both.
    pub const ALL: [ScramMechanism; 2] = [ScramMechanism::Sha256, ScramMechanism::Sha512];

    /// The mechanism of Kafka's number.
    pub fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.code() == code)
    }

    /// Kafka's number.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// Bytes of its hash, and so of every key.
    pub fn key_bytes(self) -> usize {
        self.digest().output_len()
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn keyed(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text).as_ref().to_vec()
    }
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Random, so that equal passwords look different.
    pub salt: Vec<u8>,
    /// How often the password was hashed.
    pub iterations: u32,
    /// Hash of the client's key: proves the client.
    pub stored_key: Vec<u8>,
    /// Proves the server.
    pub server_key: Vec<u8>,
}

/// Nothing of it belongs in a log.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} iterations)", self.iterations)
    }
}

impl Credential {
    /// From what a client derived from the password (`Hi(password, salt, iterations)`).
    pub fn of_salted(mechanism: ScramMechanism, salt: Vec<u8>, iterations: u32, salted_password: &[u8]) -> Self {
        let client_key = mechanism.keyed(salted_password, b"Client Key");
        Self {
            salt,
            iterations,
            stored_key: digest::digest(mechanism.digest(), &client_key).as_ref().to_vec(),
            server_key: mechanism.keyed(salted_password, b"Server Key"),
        }
    }

    /// From the password itself, with a salt given.
    pub(super) fn of_password(mechanism: ScramMechanism, password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let mut salted = vec![0; mechanism.key_bytes()];
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(mechanism.pbkdf2(), rounds, &salt, password.as_bytes(), &mut salted);
        Self::of_salted(mechanism, salt, iterations, &salted)
    }

    /// Whether it was made from this password.
    pub(super) fn is_of(&self, mechanism: ScramMechanism, password: &str) -> bool {
        Self::of_password(mechanism, password, self.salt.clone(), self.iterations) == *self
    }
}

/// Random bytes for a nonce or a salt.
pub(super) fn random() -> Result<[u8; RANDOM_BYTES], String> {
    let mut bytes = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes)
}

/// The answer to a client's first message, and what the last one is checked with.
pub(super) struct Challenge {
    /// Who wants to log in.
    pub(super) user: String,
    /// What the client is sent.
    pub(super) message: Vec<u8>,
    mechanism: ScramMechanism,
    credential: Option<Credential>,
    /// What both sides sign, up to the client's last message.
    signed: Vec<u8>,
    /// The base64 of the GS2 header, which the client repeats.
    channel: String,
    nonce: String,
}

/// Why a login failed; the text is for the audit log, a client is told less.
pub(super) type Refusal = String;

impl Challenge {
    /// Reads `client-first-message`: `n,,n=user,r=nonce`. `look_up` finds the user's credential.
    pub(super) fn new(
        mechanism: ScramMechanism,
        first: &[u8],
        server_nonce: &str,
        secret: &[u8],
        look_up: impl FnOnce(&str) -> Option<Credential>,
    ) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(first).map_err(|_| "the first message is not UTF-8")?;
        let (gs2, bare) = split_gs2(text).ok_or("the first message does not begin with n,,")?;
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|field| field.strip_prefix("n=")).ok_or("the first message names no user")?;
        let user = unescape(user).ok_or("the user name has a wrong escape")?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or("the first message has no nonce")?;
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the client's nonce has characters that a nonce cannot have".to_owned());
        }
        let authorize = gs2.trim_end_matches(',').split_once(",a=").map(|(_, name)| name).unwrap_or_default();
        if !authorize.is_empty() && unescape(authorize).as_deref() != Some(user.as_str()) {
            return Err(format!("user {user:?} asks to act as {authorize:?}"));
        }
        let credential = look_up(&user);
        let (salt, iterations) = match &credential {
            Some(known) => (known.salt.clone(), known.iterations),
            None => (mechanism.keyed(secret, user.as_bytes())[..RANDOM_BYTES].to_vec(), ITERATIONS_MIN),
        };
        let nonce = format!("{nonce}{server_nonce}");
        let message = format!("r={nonce},s={},i={iterations}", base64::encode(&salt));
        let signed = format!("{bare},{message},").into_bytes();
        let channel = base64::encode(gs2.as_bytes());
        Ok(Self { user, message: message.into_bytes(), mechanism, credential, signed, channel, nonce })
    }

    /// Reads `client-final-message` and gives the server's: proof that it knows the credential, too.
    pub(super) fn finish(self, last: &[u8]) -> Result<Vec<u8>, Refusal> {
        let text = std::str::from_utf8(last).map_err(|_| "the last message is not UTF-8")?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or("the last message has no proof")?;
        let mut fields = without_proof.split(',');
        let channel = fields.next().and_then(|field| field.strip_prefix("c="));
        if channel != Some(self.channel.as_str()) {
            return Err("the last message is for another channel".to_owned());
        }
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).unwrap_or_default();
        // librdkafka before 2.6.1 puts its own nonce in front once more
        if !nonce.ends_with(self.nonce.as_str()) {
            return Err("the last message has another nonce".to_owned());
        }
        let proof = base64::decode(proof).ok_or("the proof is not base64")?;
        let Some(credential) = self.credential else {
            return Err(format!("there is no user {:?} with this mechanism", self.user));
        };
        let signed = [&self.signed, without_proof.as_bytes()].concat();
        let signature = self.mechanism.keyed(&credential.stored_key, &signed);
        if proof.len() != signature.len() {
            return Err("the proof has the wrong length".to_owned());
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let stored = digest::digest(self.mechanism.digest(), &client_key);
        // ring compares codes, not keys, in constant time
        let key = hmac::Key::new(self.mechanism.hmac(), &credential.server_key);
        let expected = hmac::sign(&key, &credential.stored_key);
        hmac::verify(&key, stored.as_ref(), expected.as_ref())
            .map_err(|_| format!("the password of user {:?} is wrong", self.user))?;
        let server = self.mechanism.keyed(&credential.server_key, &signed);
        Ok(format!("v={}", base64::encode(&server)).into_bytes())
    }
}

/// `n,,` or `n,a=name,` or the same with `y`, and the rest.
fn split_gs2(text: &str) -> Option<(&str, &str)> {
    let after_flag = text.strip_prefix("n,").or_else(|| text.strip_prefix("y,"))?;
    let (authorize, bare) = after_flag.split_once(',')?;
    (authorize.is_empty() || authorize.starts_with("a=")).then(|| (&text[..text.len() - bare.len()], bare))
}

/// A name without its escapes: `=2C` is a comma, `=3D` an equals sign, nothing else is allowed behind one.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(2)?;
        plain.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

/// The client's side, for tests: its last message, and the server's that it expects.
#[cfg(test)]
pub(crate) fn client_last(
    mechanism: ScramMechanism,
    password: &str,
    first_bare: &str,
    server_first: &str,
) -> (String, String) {
    let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
    let (salt, iterations) = (base64::decode(field("s=")).unwrap(), field("i=").parse().unwrap());
    let mut salted = vec![0; mechanism.key_bytes()];
    let rounds = NonZeroU32::new(iterations).unwrap();
    pbkdf2::derive(mechanism.pbkdf2(), rounds, &salt, password.as_bytes(), &mut salted);
    let client_key = mechanism.keyed(&salted, b"Client Key");
    let stored_key = digest::digest(mechanism.digest(), &client_key);
    let without_proof = format!("c=biws,r={}", field("r="));
    let signed = format!("{first_bare},{server_first},{without_proof}");
    let signature = mechanism.keyed(stored_key.as_ref(), signed.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let server = mechanism.keyed(&mechanism.keyed(&salted, b"Server Key"), signed.as_bytes());
    (format!("{without_proof},p={}", base64::encode(&proof)), format!("v={}", base64::encode(&server)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "pencil";

    fn vector(mechanism: ScramMechanism, salt: &str, (client, server): (&str, &str), (proof, verifier): (&str, &str)) {
        let credential = Credential::of_password(mechanism, PASSWORD, base64::decode(salt).unwrap(), 4096);
        assert!(credential.is_of(mechanism, PASSWORD) && !credential.is_of(mechanism, "Pencil"));
        let first = format!("n,,n=user,r={client}");
        let begin = |known: Option<Credential>| {
            Challenge::new(mechanism, first.as_bytes(), server, b"secret", |user| {
                assert_eq!(user, "user");
                known
            })
            .unwrap()
        };
        let challenge = begin(Some(credential.clone()));
        assert_eq!(
            String::from_utf8(challenge.message.clone()).unwrap(),
            format!("r={client}{server},s={salt},i=4096")
        );
        let last = format!("c=biws,r={client}{server},p={proof}");
        assert_eq!(challenge.finish(last.as_bytes()).unwrap(), format!("v={verifier}").as_bytes());
        let doubled = format!("c=biws,r={client}{client}{server},p={proof}");
        let refused = begin(Some(credential.clone())).finish(doubled.as_bytes()).unwrap_err();
        assert!(refused.contains("password"), "the nonce itself is accepted: {refused}");
        for (wrong, why) in [
            (last.replace(",p=", ",p=A"), "base64"),
            (last.replace("c=biws", "c=eSws"), "channel"),
            (last.replace(server, "x"), "nonce"),
            (format!("c=biws,r={client}{server},p={}", base64::encode(&vec![7; mechanism.key_bytes()])), "password"),
            (format!("c=biws,r={client}{server},p=AAAA"), "length"),
            ("".to_owned(), "proof"),
        ] {
            let refused = begin(Some(credential.clone())).finish(wrong.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let unknown = begin(None);
        assert_eq!(unknown.message, begin(None).message, "the same salt each time");
        assert!(unknown.finish(last.as_bytes()).unwrap_err().contains("there is no user"));
    }

    /// RFC 7677, section 3; for SHA-512 the same exchange, computed with Python's hashlib.
    #[test]
    fn exchanges_of_the_rfcs() {
        vector(
            ScramMechanism::Sha256,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            ("rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"),
            ("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
        );
        vector(
            ScramMechanism::Sha512,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            ("rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"),
            (
                "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
                "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
            ),
        );
    }

    #[test]
    fn names_and_first_messages() {
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        assert_eq!(unescape("a=2c"), None);
        assert_eq!(unescape("a="), None);
        assert_eq!(unescape("a=é"), None);
        let mechanism = ScramMechanism::Sha256;
        let begin = |first: &str| {
            Challenge::new(mechanism, first.as_bytes(), "s", b"secret", |_| None).map(|challenge| challenge.user)
        };
        assert_eq!(begin("n,,n=a=2Cb,r=x").unwrap(), "a,b");
        assert_eq!(begin("n,a=user,n=user,r=x").unwrap(), "user");
        assert_eq!(begin("y,,n=user,r=x,tokenauth=true").unwrap(), "user");
        for wrong in
            ["", "n,,", "p=tls-unique,,n=user,r=x", "n,b=user,n=user,r=x", "n,,n=user", "n,,n=user,r=", "n,,r=x,n=u"]
        {
            assert!(begin(wrong).is_err(), "{wrong}");
        }
        assert!(begin("n,a=other,n=user,r=x").unwrap_err().contains("asks to act as"));
        assert!(Challenge::new(mechanism, &[0xff], "s", b"", |_| None).is_err());
    }

    #[test]
    fn a_credential_is_never_shown() {
        let credential = Credential::of_password(ScramMechanism::Sha256, PASSWORD, vec![1; 8], 4096);
        assert_eq!(format!("{credential:?}"), "Credential(4096 iterations)");
    }
}
