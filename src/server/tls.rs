//! The server's certificate: files that are read again when they change, or a self-signed certificate that is created once
//! and kept, so that a browser's exception for it lasts.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::base::lock::lock;

use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::client::verify_server_name;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::server::ParsedCertificate;

use super::error::ServerError;

/// The shortest interval between two checks of the files.
const LOOK: Duration = Duration::from_secs(1);

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate and its chain, in PEM.
    pub cert: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    changed: Option<SystemTime>,
    looked: Instant,
}

/// The certificate and key for new connections.
#[derive(Debug)]
pub struct Identity {
    files: Files,
    /// The SHA-256 fingerprint of the certificate, as browsers show it.
    pub fingerprint: String,
    /// The server generated the certificate: browsers trust it only by an exception.
    is_own: bool,
    loaded: Mutex<Loaded>,
}

impl Identity {
    /// Reads a certificate and its key.
    pub fn load(files: Files) -> Result<Self, ServerError> {
        let (config, certificate) = read(&files)?;
        let fingerprint = fingerprint(&certificate);
        let changed = modified(&files);
        let loaded = Mutex::new(Loaded { config, certificate, changed, looked: Instant::now() });
        Ok(Self { files, fingerprint, is_own: false, loaded })
    }

    /// Returns the self-signed certificate in `folder`, which is created if it is absent or lacks a name of this machine.
    pub fn own(folder: &Path) -> Result<Self, ServerError> {
        let files = Files { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        let names = names();
        let known = std::fs::read_to_string(folder.join("names")).unwrap_or_default();
        let fits = names.iter().all(|name| known.lines().any(|known| known == name));
        let own = |identity| Self { is_own: true, ..identity };
        if fits && let Ok(identity) = Self::load(files.clone()) {
            return Ok(own(identity));
        }
        make(folder, &files, &names)
            .map_err(|error| ServerError::Certificate(folder.display().to_string(), error.to_string()))?;
        Self::load(files).map(own)
    }

    /// Returns whether the server generated the certificate, as opposed to the operator providing it.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// Returns whether the certificate is valid for a host name (RFC 6125), wildcards included. As in browsers, a name
    /// in the subject alone does not count.
    pub fn holds_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let loaded = lock(&self.loaded);
        let parsed = ParsedCertificate::try_from(&loaded.certificate);
        parsed.is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }

    /// Returns the configuration for the next connection. Reads files that changed, and keeps the current certificate if
    /// they cannot be used.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut loaded = lock(&self.loaded);
        if loaded.looked.elapsed() > LOOK {
            loaded.looked = Instant::now();
            let changed = modified(&self.files);
            if changed != loaded.changed {
                match read(&self.files) {
                    Ok((config, certificate)) => {
                        let fingerprint = fingerprint(&certificate);
                        tracing::info!(fingerprint, "the certificate was read again");
                        loaded.config = config;
                        loaded.certificate = certificate;
                        loaded.changed = changed;
                    }
                    Err(error) => tracing::warn!(
                        "the changed certificate cannot be used, the previous one stays: {error}"
                    ),
                }
            }
        }
        loaded.config.clone()
    }
}

fn modified(files: &Files) -> Option<SystemTime> {
    let time = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    time(&files.cert).max(time(&files.key))
}

fn read(files: &Files) -> Result<(Arc<ServerConfig>, CertificateDer<'static>), ServerError> {
    let wrong = |path: &Path, error: String| ServerError::Certificate(path.display().to_string(), error);
    let chain = crate::tls::read_certificates(&files.cert)?;
    let first = chain.first().cloned();
    let first = first.ok_or_else(|| wrong(&files.cert, "it contains no certificate".to_owned()))?;
    let key = crate::tls::read_key(&files.key)?;
    let mut config = ServerConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(&files.cert, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), first))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Returns this machine's addresses other than loopback and link-local ones, IPv4 first.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = interfaces.into_iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(|i| i.ip());
    let mut addresses: Vec<IpAddr> = usable.collect();
    addresses.sort();
    addresses
}

/// Returns the names and addresses under which this machine can be reached.
fn names() -> Vec<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_owned();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !host.is_empty() {
        names.extend([format!("{host}.local"), host]);
    }
    names.extend(addresses().iter().map(IpAddr::to_string));
    names.dedup();
    names
}

fn make(folder: &Path, files: &Files, names: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "roomtone");
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.self_signed(&key)?;
    write_private(&files.key, &key.serialize_pem())?;
    std::fs::write(&files.cert, certificate.pem())?;
    std::fs::write(folder.join("names"), names.join("\n"))?;
    Ok(())
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_created_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::own(folder.path()).unwrap().fingerprint;
        assert_eq!(first, Identity::own(folder.path()).unwrap().fingerprint);
        assert_eq!(first.len(), 32 * 3 - 1);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn changed_files_are_read_again_and_unusable_ones_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::own(folder.path()).unwrap();
        let expire = || identity.loaded.lock().unwrap().looked = Instant::now() - LOOK - LOOK;
        let touch = |seconds| {
            let file = std::fs::File::options().write(true).open(&identity.files.cert).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
        };
        let first = identity.config();
        std::fs::write(&identity.files.cert, "nonsense").unwrap();
        touch(60);
        expire();
        assert!(Arc::ptr_eq(&first, &identity.config()), "an unusable file is ignored");
        make(folder.path(), &identity.files, &names()).unwrap();
        touch(120);
        expire();
        assert!(!Arc::ptr_eq(&first, &identity.config()));
    }

    #[test]
    fn a_certificate_is_valid_for_its_names_only() {
        let folder = tempfile::tempdir().unwrap();
        let own = Identity::own(folder.path()).unwrap();
        assert!(own.is_own() && own.holds_for("localhost") && !own.holds_for("evil.example"));
        let files = Files { cert: folder.path().join("given.pem"), key: folder.path().join("given.key") };
        let names = ["call.example".to_owned(), "*.rooms.example".to_owned()];
        make(folder.path(), &files, &names).unwrap();
        let given = Identity::load(files).unwrap();
        assert!(!given.is_own());
        assert!(given.holds_for("call.example") && given.holds_for("attic.rooms.example"));
        for other in ["example", "x.call.example", "rooms.example", "a.b.rooms.example", "", "a b"] {
            assert!(!given.holds_for(other), "{other}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { cert: folder.path().join("no.pem"), key: folder.path().join("no.key") };
        assert!(Identity::load(files).unwrap_err().to_string().contains("no.pem"));
    }
}
