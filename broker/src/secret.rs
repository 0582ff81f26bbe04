//! A secret that is only ever compared: kept as its SHA-256, so that neither a dump of the memory nor a message shows it.

use std::fmt;
use std::hint::black_box;

use ring::digest::{SHA256, digest};

/// SHA-256 of a secret. Never changes; nothing of it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct HashedSecret([u8; 32]);

impl HashedSecret {
    /// The secret that `text` is.
    pub fn of(text: &str) -> HashedSecret {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        HashedSecret(hash)
    }

    /// Whether `text` is the secret. Takes the same time for every text of a length.
    pub fn is(&self, text: &str) -> bool {
        let other = HashedSecret::of(text);
        let differing = self.0.iter().zip(other.0).fold(0_u8, |bits, (mine, theirs)| bits | black_box(mine ^ theirs));
        black_box(differing) == 0
    }
}

impl fmt::Debug for HashedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_itself_alone_and_is_not_shown() {
        let secret = HashedSecret::of("s3cret");
        assert!(secret.is("s3cret"));
        for other in ["", "s3cre", "s3crets", "S3cret", " s3cret"] {
            assert!(!secret.is(other), "{other:?}");
        }
        assert_eq!(format!("{secret:?}"), "HashedSecret");
    }
}
