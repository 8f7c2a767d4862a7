use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::hub::{Calls, Moderates, Rooms};
use crate::protocol::RoomId;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A time that has not come yet, in seconds since 1970.
const FAR: u64 = 4_000_000_000;

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns a token with any header and claims, signed by `sign`.
fn raw(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    format!("{message}.{}", base64(sign(message.as_bytes())))
}

/// Returns a token that is signed with a secret, whatever it claims.
fn token(claims: &Value, secret: &str, algorithm: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    raw(&json!({"alg": algorithm}), claims, |message| ring::hmac::sign(&key, message).as_ref().to_vec())
}

fn tokens(config: &TokenConfig) -> Tokens {
    Tokens::new(config)
}

fn with_secrets(secrets: &[&str]) -> TokenConfig {
    let secrets = secrets.iter().map(|secret| Secret((*secret).to_owned())).collect();
    TokenConfig { secrets, ..TokenConfig::default() }
}

/// Reads a token while the server keeps its key set fresh.
fn read(tokens: &Tokens, token: &str) -> Result<Grant, TokenError> {
    smol::block_on(smol::future::or(tokens.read(token), async {
        tokens.keep_fresh().await;
        unreachable!("it never completes")
    }))
    .map(|granted| granted.grant)
}

/// Returns why an authentic token is refused.
fn refusal(tokens: &Tokens, token: &str) -> String {
    match read(tokens, token) {
        Err(TokenError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn is_forged(tokens: &Tokens, token: &str) -> bool {
    matches!(read(tokens, token), Err(TokenError::Forged(_)))
}

#[test]
fn a_valid_token_grants_its_claims() {
    let tokens = tokens(&with_secrets(&[SECRET]));
    let grant = |claims: Value| read(&tokens, &token(&claims, SECRET, "HS256")).unwrap();
    assert_eq!(grant(json!({"exp": FAR})), Grant::default());
    let ann =
        grant(json!({"exp": FAR, "sub": "ann", "rooms": ["the attic", "*"], "room_prefixes": ["the team "],
        "description": {"name": "Ann"}, "hidden": true, "create": false}));
    assert_eq!(ann.name, Some("ann".parse().unwrap()));
    let rooms = Rooms {
        names: ["the attic", "*"].map(|name| RoomId::from_foreign(name).unwrap()).into(),
        prefixes: vec!["the%20team%20".to_owned()],
    };
    assert_eq!(ann.rooms, Some(rooms));
    assert_eq!((ann.is_hidden, ann.creates_rooms), (true, false));
    assert_eq!(ann.description, json!({"name": "Ann"}));
    // A token for rooms allows no calls unless it says so.
    assert_eq!(ann.calls, Calls::None);
    assert_eq!(grant(json!({"exp": FAR, "rooms": [], "calls": true})).calls, Calls::All);
    assert_eq!(grant(json!({"exp": FAR, "calls": false})).calls, Calls::None);
    assert_eq!(grant(json!({"exp": FAR, "moderate": true})).moderates, Moderates::All);
    assert_eq!(grant(json!({"exp": FAR, "moderate": false})).moderates, Moderates::None);
    let attic = RoomId::from_foreign("the attic").unwrap();
    let attic = Moderates::Rooms([attic].into());
    assert_eq!(grant(json!({"exp": FAR, "moderate": ["the attic"]})).moderates, attic);
    let bob = grant(json!({"exp": FAR, "calls": ["bob"]})).calls;
    assert_eq!(bob, Calls::Peers(["bob".parse().unwrap()].into()));
}

#[test]
fn a_token_with_unusable_claims_is_refused() {
    let tokens = tokens(&with_secrets(&[SECRET]));
    let wrong = |claims: Value| refusal(&tokens, &token(&claims, SECRET, "HS256"));
    assert!(wrong(json!({"exp": 1})).contains("has expired"));
    assert!(wrong(json!({"exp": FAR, "nbf": FAR - 1})).contains("not valid yet"));
    assert!(wrong(json!({})).contains("exp"));
    assert!(wrong(json!({"exp": FAR, "sub": ""})).contains("sub"));
    assert!(wrong(json!({"exp": FAR, "calls": [""]})).contains("calls"));
    assert!(wrong(json!({"exp": FAR, "rooms": [""]})).contains("rooms"));
    assert!(wrong(json!({"exp": FAR, "moderate": [""]})).contains("moderate"));
    assert!(wrong(json!({"exp": FAR, "room_prefixes": [""]})).contains("room_prefixes"));
    for claim in ["calls", "moderate", "hidden", "create", "rooms", "room_prefixes", "sub"] {
        let mut claims = json!({"exp": FAR});
        claims[claim] = json!(7);
        assert!(!wrong(claims).is_empty());
    }
}

#[test]
fn an_invalid_time_is_refused() {
    let tokens = tokens(&with_secrets(&[SECRET]));
    for wrong in [json!("4000000000"), json!("soon"), json!(null), json!(-1), json!(1e300), json!(true)] {
        for key in ["exp", "nbf", "iat"] {
            let mut claims = json!({"exp": FAR});
            claims[key] = wrong.clone();
            assert!(!refusal(&tokens, &token(&claims, SECRET, "HS256")).is_empty(), "{claims}");
        }
    }
    let fine = json!({"exp": FAR as f64 + 0.5, "nbf": 1.5, "iat": 0});
    assert!(read(&tokens, &token(&fine, SECRET, "HS256")).is_ok());
}

#[test]
fn a_token_that_no_key_signed_counts_as_a_guess() {
    let tokens = tokens(&with_secrets(&[SECRET]));
    let claims = json!({"exp": FAR});
    assert!(is_forged(&tokens, &token(&claims, &SECRET.to_uppercase(), "HS256")));
    for algorithm in ["HS512", "RS256", "ES256", "EdDSA", "none", "None", "hs256"] {
        assert!(is_forged(&tokens, &token(&claims, SECRET, algorithm)), "{algorithm}");
    }
    for junk in ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.", "\u{0}", &"a".repeat(MAX_TOKEN + 1)] {
        assert!(is_forged(&tokens, junk), "{junk}");
    }
    // Any id of a key is as good as none for secrets, however long.
    let kid = "k".repeat(4096);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let named = raw(&json!({"alg": "HS256", "kid": kid}), &claims, |message| {
        ring::hmac::sign(&key, message).as_ref().to_vec()
    });
    assert!(read(&tokens, &named).is_ok());
}

#[test]
fn each_of_several_secrets_is_valid() {
    let other = SECRET.to_uppercase();
    let tokens = tokens(&with_secrets(&[SECRET, &other]));
    for secret in [SECRET, &other] {
        assert!(read(&tokens, &token(&json!({"exp": FAR}), secret, "HS256")).is_ok());
    }
}

#[test]
fn a_token_has_to_be_for_this_server_and_from_an_accepted_issuer() {
    let config = TokenConfig {
        audience: vec!["calls".into(), "rooms".into()],
        issuer: vec!["https://id.example.org".into()],
        ..with_secrets(&[SECRET])
    };
    let tokens = tokens(&config);
    let claims = |audience: Value, issuer: &str| json!({"exp": FAR, "aud": audience, "iss": issuer});
    let signed = |claims: Value| token(&claims, SECRET, "HS256");
    let good = "https://id.example.org";
    assert!(read(&tokens, &signed(claims(json!("calls"), good))).is_ok());
    assert!(read(&tokens, &signed(claims(json!(["shop", "rooms"]), good))).is_ok());
    assert!(refusal(&tokens, &signed(claims(json!("shop"), good))).contains("another audience"));
    assert!(refusal(&tokens, &signed(claims(json!("calls"), "https://evil"))).contains("another issuer"));
    assert!(refusal(&tokens, &signed(json!({"exp": FAR, "iss": good}))).contains("aud"));
    assert!(refusal(&tokens, &signed(json!({"exp": FAR, "aud": "calls"}))).contains("iss"));
}

/// An identity provider with an elliptic curve key and an Ed25519 key.
struct Issuer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    fn set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256",
                "x": base64(&point[1..33]), "y": base64(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64(self.ed.public_key())},
        ]})
    }

    fn ec(&self, kid: Option<&str>) -> String {
        let header = kid.map_or(json!({"alg": "ES256"}), |kid| json!({"alg": "ES256", "kid": kid}));
        raw(&header, &json!({"exp": FAR, "aud": "calls"}), |message| {
            self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        })
    }

    fn ed(&self, kid: &str) -> String {
        raw(&json!({"alg": "EdDSA", "kid": kid}), &json!({"exp": FAR, "aud": "calls"}), |message| {
            self.ed.sign(message).as_ref().to_vec()
        })
    }
}

fn with_keys(source: &str) -> TokenConfig {
    TokenConfig {
        keys: Some(source.parse().unwrap()),
        audience: vec!["calls".into()],
        ..with_secrets(&[SECRET])
    }
}

#[test]
fn keys_of_a_set_verify_tokens_of_their_algorithm_and_name() {
    let (issuer, folder) = (Issuer::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("keys.json");
    std::fs::write(&file, issuer.set().to_string()).unwrap();
    let tokens = tokens(&with_keys(file.to_str().unwrap()));
    smol::block_on(tokens.refresh()).unwrap();
    assert!(read(&tokens, &issuer.ec(Some("ec"))).is_ok());
    assert!(read(&tokens, &issuer.ec(None)).is_ok(), "it is the only key of its algorithm");
    assert!(read(&tokens, &issuer.ed("ed")).is_ok());
    assert!(read(&tokens, &token(&json!({"exp": FAR, "aud": "calls"}), SECRET, "HS256")).is_ok());
    for wrong in [issuer.ec(Some("ed")), issuer.ed("ec"), Issuer::new().ec(Some("ec"))] {
        assert!(is_forged(&tokens, &wrong));
    }
    // The algorithm comes from the key: a public key is no secret of HS256.
    let x = issuer.set()["keys"][1]["x"].as_str().unwrap().to_owned();
    assert!(is_forged(&tokens, &token(&json!({"exp": FAR, "aud": "calls"}), &x, "HS256")));
}

#[test]
fn a_set_without_keys_for_signatures_is_an_error_that_says_why() {
    let why = |text: &str| Keys::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(why("<!doctype html>").contains("no JSON Web Key Set"));
    assert!(why("[]").contains("no list 'keys'"));
    assert!(why(r#"{"keys": []}"#).contains("the list is empty"));
    assert!(why(r#"{"keys": [7, {}]}"#).contains("key 1"));
    assert!(why(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#).contains("secret"));
    assert!(why(r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#).contains("2048 bits"));
    assert!(why(r#"{"keys": [{"kty": "EC", "crv": "P-384", "x": "", "y": ""}]}"#).contains("P-256"));
    assert!(why(r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "", "use": "enc"}]}"#).contains("use"));
    assert_eq!(Keys::parse(&vec![b' '; keys::MAX_SET + 1]).unwrap_err(), KeySetError::TooLong);
    let many = json!({"keys": vec![json!({"kty": "OKP", "crv": "Ed25519", "x": ""}); 21]});
    assert_eq!(Keys::parse(many.to_string().as_bytes()).unwrap_err(), KeySetError::TooMany);
    // An unusable key does not spoil the others.
    let mut set = Issuer::new().set();
    set["keys"].as_array_mut().unwrap().push(json!({"kty": "new"}));
    assert!(Keys::parse(set.to_string().as_bytes()).is_ok());
}

#[test]
fn rsa_keys_verify_rs256() {
    // RFC 7515, A.2: the key, the signing input and the signature of the example.
    let key = json!({"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPd\
dxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSX\
ndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9\
_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]});
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUA\
r7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-e\
OkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key.to_string()).unwrap();
    let config = TokenConfig { keys: Some(KeySource::File(file)), ..TokenConfig::default() };
    let tokens = tokens(&config);
    smol::block_on(tokens.refresh()).unwrap();
    // The signature is valid; the token ended in 2011.
    assert!(refusal(&tokens, token).contains("has expired"));
    assert!(is_forged(&tokens, &token.replace("eyJpc3Mi", "eyJpc3Mj")));
}

#[test]
fn an_address_of_keys_is_safe_from_replacement_on_the_way() {
    for good in ["https://id.example.org/keys", "http://127.0.0.1:1/keys", "http://[::1]/k"] {
        assert!(matches!(good.parse(), Ok(KeySource::Url(_))), "{good}");
    }
    for bad in ["http://id.example.org/keys", "ftp://127.0.0.1/", "file:///etc/passwd"] {
        assert_eq!(bad.parse::<KeySource>(), Err(KeySourceError::Plain), "{bad}");
    }
    assert_eq!("keys.json".parse(), Ok(KeySource::File("keys.json".into())));
    let shown: KeySource = "https://me:hunter2@id.example.org/keys?key=hunter2".parse().unwrap();
    assert_eq!(shown.to_string(), "https://id.example.org/keys");
}

/// Answers one request after another with these texts, and reports how many there were.
fn provider(answers: Vec<String>) -> (String, std::thread::JoinHandle<()>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            // The client may close the connection before all is written.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}/keys"), answers)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_key_set_that_cannot_be_used_is_reported_and_admits_no_one() {
    for (answer, why) in [
        (ok("<!doctype html>"), "no JSON Web Key Set"),
        (ok(&" ".repeat(keys::MAX_SET + 10)), "64 KiB"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_owned() + &" ".repeat(100_000), "64 KiB"),
        ("HTTP/1.1 302 Found\r\nlocation: /k\r\ncontent-length: 0\r\n\r\n".to_owned(), "answers 302"),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(), "answers 503"),
    ] {
        let (url, answers) = provider(vec![answer]);
        let tokens = tokens(&with_keys(&url));
        let error = smol::block_on(tokens.refresh()).unwrap_err();
        assert!(error.contains(&url) && error.contains(why), "{error}");
        answers.join().unwrap();
        assert_eq!(read(&tokens, &Issuer::new().ec(Some("ec"))), Err(TokenError::NoKeys));
        // Secrets do not need the set.
        assert!(read(&tokens, &token(&json!({"exp": FAR, "aud": "calls"}), SECRET, "HS256")).is_ok());
    }
}

#[test]
fn an_unknown_key_makes_the_set_be_read_again_but_not_for_each_token() {
    let issuer = Issuer::new();
    // A second request would wait for an answer without end.
    let (url, answers) = provider(vec![ok(&issuer.set().to_string())]);
    let tokens = tokens(&with_keys(&url));
    assert!(read(&tokens, &issuer.ec(Some("ec"))).is_ok());
    answers.join().unwrap();
    assert!(is_forged(&tokens, &issuer.ec(Some("new"))));
    assert!(is_forged(&tokens, &issuer.ed("newer")));
    assert!(read(&tokens, &issuer.ed("ed")).is_ok());
}

#[test]
fn clients_that_do_not_wait_neither_lose_an_attempt_nor_cause_another() {
    let issuer = Issuer::new();
    let (url, answers) = provider(vec![ok(&issuer.set().to_string())]);
    let tokens = tokens(&with_keys(&url));
    let token = issuer.ec(Some("ec"));
    smol::block_on(async {
        // Polled once: the client has asked, and is gone.
        assert!(smol::future::poll_once(tokens.read(&token)).await.is_none());
    });
    // A second request would wait for an answer without end.
    assert!(read(&tokens, &token).is_ok());
    assert!(is_forged(&tokens, &issuer.ec(Some("new"))));
    answers.join().unwrap();
}

#[test]
fn a_token_of_a_new_key_is_no_guess_while_the_set_cannot_be_read() {
    let issuer = Issuer::new();
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (url, answers) = provider(vec![ok(&issuer.set().to_string()), unavailable.to_owned()]);
    let tokens = tokens(&with_keys(&url));
    smol::block_on(tokens.refresh()).unwrap();
    assert!(smol::block_on(tokens.refresh()).is_err());
    answers.join().unwrap();
    assert_eq!(read(&tokens, &issuer.ec(Some("new"))), Err(TokenError::NoKeys));
    assert!(read(&tokens, &issuer.ec(Some("ec"))).is_ok(), "the last keys stay in use");
    // A known key, or an algorithm that no set has, is no reason to read the set.
    assert!(is_forged(&tokens, &Issuer::new().ec(Some("ec"))));
    assert!(is_forged(&tokens, &raw(&json!({"alg": "PS256"}), &json!({"exp": FAR}), <[u8]>::to_vec)));
}

#[test]
fn a_signed_token_is_read_by_a_server_with_the_secret() {
    let secret = Secret(SECRET.into());
    let token = sign(&json!({"exp": FAR, "sub": "ann"}), &secret).unwrap();
    assert_eq!(read(&tokens(&with_secrets(&[SECRET])), &token).unwrap().name, Some("ann".parse().unwrap()));
    assert!(sign(&json!({}), &Secret(String::new())).is_err());
    for (claims, why) in
        [(json!({}), "exp"), (json!({"exp": "soon"}), "exp"), (json!({"exp": 1, "sub": ""}), "sub")]
    {
        assert!(check(&claims).unwrap_err().contains(why));
    }
}
