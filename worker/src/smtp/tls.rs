//! The TLS configuration of a relay: one for all its connections, so that sessions resume.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::ConnectorError;

/// The system's roots and those of `smtp.ca_file`.
pub(super) fn configuration(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ConnectorError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a root certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let added = add(&mut roots, path).map_err(|message| ConnectorError {
            setting: "SMTP_CA_FILE",
            message: format!("{}: {message}", path.display()),
        })?;
        tracing::debug!(added, "trusting more root certificates");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectorError { setting: "SMTP_TLS", message: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<usize, String> {
    let mut added = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        added += 1;
    }
    if added == 0 { Err("holds no certificate; PEM is expected".into()) } else { Ok(added) }
}
