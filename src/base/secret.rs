//! Comparison of secrets in constant time.

use std::fmt;

use ring::hmac;

use super::random::{NoRandomness, secret_key};

/// A secret that is only compared: kept as its HMAC (RFC 2104) under a key of its own, from which the secret cannot
/// be read back.
pub struct Sealed {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Sealed {
    /// Seals a secret.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`] if the operating system's generator fails.
    pub fn new(secret: &str) -> Result<Self, NoRandomness> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret_key()?);
        let tag = hmac::sign(&key, secret.as_bytes());
        Ok(Self { key, tag })
    }

    /// Returns whether a text is the secret, in a time that depends on the length of the text alone.
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
    fn only_the_secret_is_the_secret() {
        let sealed = Sealed::new("open sesame").unwrap();
        assert!(sealed.is("open sesame"));
        for other in ["", "open sesam", "open sesame ", "OPEN SESAME"] {
            assert!(!sealed.is(other), "{other:?}");
        }
        assert!(!format!("{sealed:?}").contains("sesame"));
    }
}
