//! Comparison of secrets in constant time.

use std::fmt;

use ring::hmac;

use super::random::{NoRandomness, secret_key};

/// A secret that is kept for comparison only: stores its HMAC (RFC 2104) under a random key, from which the secret
/// cannot be recovered.
pub struct Sealed {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Sealed {
    /// Stores the HMAC of a secret under a new random key.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`] if the operating system's generator fails.
    pub fn new(secret: &str) -> Result<Self, NoRandomness> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret_key()?);
        let tag = hmac::sign(&key, secret.as_bytes());
        Ok(Self { key, tag })
    }

    /// Returns whether `text` equals the secret. The time depends only on the length of `text`.
    pub fn is(&self, text: &str) -> bool {
        hmac::verify(&self.key, text.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_texts_are_not_the_secret() {
        let sealed = Sealed::new("open sesame").unwrap();
        assert!(sealed.is("open sesame"));
        for other in ["", "open sesam", "open sesame ", "OPEN SESAME"] {
            assert!(!sealed.is(other), "{other:?}");
        }
        assert!(!format!("{sealed:?}").contains("sesame"));
    }
}
