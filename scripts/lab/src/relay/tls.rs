//! A certificate authority of the relay's own.

use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;

/// What the relay shows, and the file with the root that certifies it.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    pub(super) root: NamedTempFile,
}

impl Identity {
    /// A new root, and a certificate of it for `names`.
    pub(super) fn issue(names: &[String]) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "the lab's root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;

        let root = NamedTempFile::with_suffix(".pem")?;
        std::fs::write(root.path(), issuer.pem()).context("the root's certificate cannot be written")?;
        Ok(Self { config: Arc::new(config), root })
    }
}
