//! Random values that act as credentials.

use ring::rand::{SecureRandom, SystemRandom};

/// The operating system returned no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers, without which no id can be made")]
pub struct NoRandomness;

/// Returns a new unguessable id: 128 bits from the crypto provider's random generator, as 32 lower-case hexadecimal
/// digits.
///
/// Every id that acts as a credential (a socket.io session, a place in a pool) comes from this function.
///
/// # Errors
///
/// [`NoRandomness`] if the operating system's generator fails.
pub fn secret_id() -> Result<String, NoRandomness> {
    Ok(format!("{:032x}", u128::from_be_bytes(bytes()?)))
}

/// Returns a new unguessable key of 256 bits.
///
/// # Errors
///
/// [`NoRandomness`] if the operating system's generator fails.
pub fn secret_key() -> Result<[u8; 32], NoRandomness> {
    bytes()
}

fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_32_digits_and_differ() {
        let ids: Vec<String> = (0..100).map(|_| secret_id().unwrap()).collect();
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }
}
