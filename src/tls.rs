//! TLS for clients: trusted servers and client certificates. Also the shared cryptography provider, and the reading of
//! certificates and keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use futures_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use futures_rustls::rustls::pki_types::pem::{self, PemObject};
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use futures_rustls::rustls::server::ParsedCertificate;
use futures_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

/// Returns ring's provider, which servers and clients share.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(futures_rustls::rustls::crypto::ring::default_provider())
}

/// A reason why a file of certificates or keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read, or is not PEM (RFC 7468).
    #[error("{0}: {1}")]
    Unreadable(PathBuf, String),
    /// The file holds no certificate.
    #[error("{0} holds no certificate: a PEM file with BEGIN CERTIFICATE is needed")]
    NoCertificate(PathBuf),
    /// The file holds no private key.
    #[error("{0} holds no private key: a PEM file with BEGIN PRIVATE KEY is needed")]
    NoKey(PathBuf),
    /// The key is encrypted with a pass phrase, which is not supported.
    #[error(
        "the private key in {0} is encrypted; write a copy without pass phrase and name that file: openssl pkey -in {0} -out key.pem"
    )]
    Encrypted(PathBuf),
    /// The TLS library rejects the certificate, or the key does not match it.
    #[error("{0} cannot be used: {1}")]
    Unusable(PathBuf, String),
}

/// Reads all certificates of a PEM file, in file order.
///
/// # Errors
///
/// [`FileError::Unreadable`] and [`FileError::NoCertificate`].
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let all: Result<Vec<CertificateDer<'static>>, pem::Error> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(all) if all.is_empty() => Err(FileError::NoCertificate(path.to_owned())),
        Ok(all) => Ok(all),
        Err(error) => Err(FileError::Unreadable(path.to_owned(), error.to_string())),
    }
}

/// Reads the private key of a PEM file. Reports an encrypted key (PKCS #8, or OpenSSL's older format) as
/// [`FileError::Encrypted`].
///
/// # Errors
///
/// [`FileError::Unreadable`], [`FileError::NoKey`] and [`FileError::Encrypted`].
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = std::fs::read(path);
    let text = text.map_err(|error| FileError::Unreadable(path.to_owned(), error.to_string()))?;
    let shown = String::from_utf8_lossy(&text);
    if shown.contains("BEGIN ENCRYPTED PRIVATE KEY") || shown.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(FileError::Encrypted(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::NoKey(path.to_owned()),
        error => FileError::Unreadable(path.to_owned(), error.to_string()),
    })
}

/// The servers that a client trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// Servers whose certificate chains to one of the system's roots.
    #[default]
    System,
    /// Servers trusted by `System`, and servers whose certificate is in this PEM file or chains to one in the file.
    File(PathBuf),
    /// Every server, without verification. An attacker on the path can read and change everything.
    Anybody,
}

/// The certificate that a client presents to a server (mutual TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and its chain, PEM.
    pub cert: PathBuf,
    /// The certificate's private key, PEM.
    pub key: PathBuf,
}

/// Returns the TLS configuration of a client, which presents `own` if given. Every call reads the files again, so a
/// renewed certificate applies to the next connection.
///
/// # Errors
///
/// [`FileError`] if one of the files cannot be used.
pub(crate) fn client_config(
    trust: &Trust,
    own: Option<&ClientCertificate>,
) -> Result<Arc<ClientConfig>, FileError> {
    let unusable = |path: &Path, error: Error| FileError::Unusable(path.to_owned(), error.to_string());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(Path::new("TLS"), error))?;
    let verifier = match trust {
        Trust::System => None,
        Trust::File(path) => Some(Verifier::of_file(path, system_roots())?),
        Trust::Anybody => Some(Verifier::new(Rule::Anybody)),
    };
    let builder = match verifier {
        None => builder.with_root_certificates(system_roots()),
        Some(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
    };
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(read_certificates(&own.cert)?, read_key(&own.key)?)
            .map_err(|error| unusable(&own.cert, error))?,
    };
    Ok(Arc::new(config))
}

/// Returns a client for HTTP requests to the server of `url`, each of at most the time `limit`. Servers are trusted as by
/// the system. Redirects are not followed, and an answer of any status is a response.
pub(crate) fn http_agent(url: &Url, limit: Duration) -> ureq::Agent {
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    let agent = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(limit)).max_redirects(0);
    // A proxy would look up 127.0.0.1 on its own machine.
    let agent = if url.scheme() == "http" { agent.proxy(None) } else { agent };
    agent.http_status_as_error(false).build().new_agent()
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Verifies servers by a rule other than the system's roots.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The servers that a [`Verifier`] accepts.
#[derive(Debug)]
enum Rule {
    /// Servers whose certificate chains to a root, or is one of the named ones.
    ///
    /// `openssl req -x509` makes a self-issued certificate with CA:TRUE. rustls accepts such a certificate as a root, but
    /// not as a server's own. curl (OpenSSL) accepts the certificate because the user named it.
    NamedOrSigned { named: Vec<CertificateDer<'static>>, signed: Arc<WebPkiServerVerifier> },
    /// Every server.
    Anybody,
}

impl Verifier {
    fn new(rule: Rule) -> Self {
        Self { rule, algorithms: provider().signature_verification_algorithms }
    }

    /// Returns the verifier for the certificates of a file.
    fn of_file(path: &Path, mut roots: RootCertStore) -> Result<Self, FileError> {
        let named = read_certificates(path)?;
        if roots.add_parsable_certificates(named.iter().cloned()).0 == 0 {
            return Err(FileError::Unusable(path.to_owned(), "no certificate in it can be read".to_owned()));
        }
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let signed = signed.map_err(|error| FileError::Unusable(path.to_owned(), error.to_string()))?;
        Ok(Self::new(Rule::NamedOrSigned { named, signed }))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Rule::NamedOrSigned { named, signed } = &self.rule else {
            return Ok(ServerCertVerified::assertion());
        };
        match signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Only the issuer may be wrong. webpki checks the validity period before CA:TRUE, and reports the period
            // with other errors; the test `a_named_certificate_counts_for_its_time_and_name` checks this order.
            Err(Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer))
                if named.iter().any(|named| named == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns 1 January of a year, in seconds since 1970 (leap days counted).
    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_556_952))
    }

    /// Makes a certificate as `openssl req -x509` does: self-issued, CA:TRUE, valid from 2025 to 2030.
    fn self_signed() -> (String, CertificateDer<'static>) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), certificate.der().clone())
    }

    fn verify(named: &str, shown: &CertificateDer<'_>, name: &str, now: UnixTime) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, named).unwrap();
        let verifier = Verifier::of_file(&path, RootCertStore::empty()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verdict = verifier.verify_server_cert(shown, &[], &name, &[], now);
        verdict.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_named_certificate_counts_for_its_time_and_name() {
        let (pem, der) = self_signed();
        let (other_pem, other_der) = self_signed();
        assert_eq!(verify(&pem, &der, "localhost", year(2027)), Ok(()));
        assert_eq!(verify(&(other_pem + &pem), &der, "localhost", year(2027)), Ok(()), "the second of two");
        let error = |shown, name, now| verify(&pem, shown, name, now).unwrap_err();
        assert!(error(&other_der, "localhost", year(2027)).contains("invalid peer certificate"));
        assert!(error(&der, "localhost", year(2032)).contains("expired"));
        assert!(error(&der, "localhost", year(2023)).contains("not valid yet"));
        assert!(error(&der, "example.org", year(2027)).contains("not valid for name"));
    }

    #[test]
    fn files_that_cannot_be_used_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("file.pem");
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = |text: &str| read_key(&file(text)).unwrap_err();
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(key(encrypted), FileError::Encrypted(_)));
        assert!(key(encrypted).to_string().contains("openssl pkey -in"));
        let old =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMA==\n";
        assert!(matches!(key(old), FileError::Encrypted(_)));
        let (certificate, _) = self_signed();
        assert!(matches!(key(&certificate), FileError::NoKey(_)));
        assert!(matches!(read_certificates(&file("")), Err(FileError::NoCertificate(_))));
        let missing = read_key(&folder.path().join("missing.pem")).unwrap_err().to_string();
        assert!(missing.contains("missing.pem") && missing.contains("No such file"), "{missing}");
        let pair = rcgen::KeyPair::generate().unwrap();
        assert!(read_key(&file(&pair.serialize_pem())).is_ok());
    }
}
