//! Keys: [`KeyProvider`], the seam by which a caller gives one, and [`Keys`], what is derived from it.
//!
//! From the caller's secret three keys are derived: one for ids, one that seals, one that makes nonces. Ids are keyed, so
//! that nobody without the key can tell whether a store holds content that he knows, and equal content of two tenants has
//! different ids. A nonce is made of what is sealed, so that it never depends on the quality of a random source: equal
//! nonces are equal messages.

use std::fmt;

use async_trait::async_trait;
use blake3::Hash;
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use cofferdam_core::{BoxError, Secret};
use zeroize::Zeroizing;

/// Gives the key of an encrypted store.
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Returns the key of the store that is kept under this prefix. It must have at least 32 characters and be hard to
    /// guess: it is a key and no password, and is not stretched.
    ///
    /// It is asked once, when the store is opened. The store keeps what is derived from it in memory, wipes that when it is
    /// closed, and writes none of it anywhere.
    ///
    /// # Errors
    ///
    /// Why there is no key, which the caller finds in [`crate::SnapshotError::Key`].
    async fn key(&self, prefix: &str) -> Result<Secret, BoxError>;
}

/// A key that the caller has at hand.
#[async_trait]
impl KeyProvider for Secret {
    async fn key(&self, _prefix: &str) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
}

/// The fewest characters of a key.
pub(crate) const MIN_KEY_CHARACTERS: usize = 32;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = NONCE + TAG;

/// What is derived from a store's key.
pub(crate) struct Keys {
    id: Zeroizing<[u8; 32]>,
    nonce: Zeroizing<[u8; 32]>,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What was sealed cannot be opened: it was changed, moved, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsealable;

impl Keys {
    pub(crate) fn derive(secret: &Secret) -> Self {
        let derive =
            |purpose: &str| Zeroizing::new(blake3::derive_key(purpose, secret.expose().as_bytes()));
        Self {
            id: derive("cofferdam snapshot store 2026-11 key of ids"),
            nonce: derive("cofferdam snapshot store 2026-11 key of nonces"),
            cipher: XChaCha20Poly1305::new(
                &(*derive("cofferdam snapshot store 2026-11 key that seals")).into(),
            ),
        }
    }

    pub(crate) fn hash(&self, content: &[u8]) -> Hash {
        blake3::keyed_hash(&self.id, content)
    }

    /// Seals a message to `about`: it opens only with the same.
    pub(crate) fn seal(&self, about: &[u8], message: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonce);
        hasher.update(&(about.len() as u64).to_le_bytes()).update(about).update(message);
        let mut nonce = [0; NONCE];
        hasher.finalize_xof().fill(&mut nonce);
        let payload = Payload { msg: message, aad: about };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| Unsealable)?;
        let mut out = Vec::with_capacity(NONCE + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    pub(crate) fn open(&self, about: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(Unsealable)?;
        let payload = Payload { msg: sealed, aad: about };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| Unsealable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_place_only() {
        let keys = Keys::derive(&Secret::new("k".repeat(32)));
        let sealed = keys.seal(b"here", b"message").unwrap();
        assert_eq!(sealed.len(), 7 + OVERHEAD);
        assert_eq!(keys.open(b"here", &sealed).unwrap(), b"message");
        assert_eq!(keys.open(b"there", &sealed), Err(Unsealable));
        assert_eq!(keys.open(b"here", &sealed[..20]), Err(Unsealable));
        let other = Keys::derive(&Secret::new("l".repeat(32)));
        assert_eq!(other.open(b"here", &sealed), Err(Unsealable));
        assert_ne!(other.hash(b"content"), keys.hash(b"content"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(keys.open(b"here", &changed), Err(Unsealable), "byte {at}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }
}
