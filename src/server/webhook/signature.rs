//! Signatures of Standard Webhooks: HMAC-SHA256 of the message's id, its time and its body.
//!
//! Pure: no clock, sockets, files or random numbers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::config::SigningSecret;

/// Returns the value of the header `webhook-signature`: a signature of each secret, separated by spaces. `time` is in
/// seconds since 1970.
pub(super) fn sign(secrets: &[SigningSecret], id: &str, time: u64, body: &str) -> String {
    let signed = format!("{id}.{time}.{body}");
    let each = secrets.iter().map(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
    });
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the specification's libraries.
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&secret), id, 1_614_265_330, body), signature);
        let two = sign(&[SigningSecret(vec![7; 32]), secret], id, 1_614_265_330, body);
        let two: Vec<&str> = two.split(' ').collect();
        assert_eq!((two.len(), two[1]), (2, signature));
        assert!(two[0].starts_with("v1,") && two[0] != signature);
    }
}
