//! TLS: the certificates of a backend, checked before anything connects.
//!
//! A mistake is reported at once, and never with a part of what was given: it may be a key.

use std::error::Error as StdError;
use std::sync::Arc;
use std::{fmt, io};

use redis::RedisError;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::Duplex;

const SERVER_NAME: &str = "tls_server_name";
const ROOT_CERTIFICATES: &str = "tls_root_certificates";
const CLIENT_CERTIFICATE: &str = "tls_client_certificate";
const CLIENT_KEY: &str = "the key of tls_client_certificate";

/// The authorities to trust and the client's own certificate, all of it PEM text, and the servers' name.
#[derive(Clone, Default)]
pub(in crate::backend) struct Tls {
    pub(in crate::backend) server_name: Option<String>,
    pub(in crate::backend) root_certificates: Option<Vec<u8>>,
    /// The chain and the key.
    pub(in crate::backend) client_certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// The TLS connector for this scheme; `None` without TLS. Fails if something is set for a scheme without TLS.
    pub(in crate::backend) fn connector(&self, scheme: &str) -> Result<Option<Connector>, String> {
        let setting = match self {
            _ if scheme.starts_with("rediss") => {
                let (tls, server_name) = (Arc::new(self.config()?).into(), self.server_name()?);
                return Ok(Some(Connector { tls, server_name }));
            }
            Self { server_name: Some(_), .. } => SERVER_NAME,
            Self { root_certificates: Some(_), .. } => ROOT_CERTIFICATES,
            Self { client_certificate: Some(_), .. } => CLIENT_CERTIFICATE,
            _ => return Ok(None),
        };
        let encrypted = format!("rediss{}", scheme.strip_prefix("redis").unwrap_or_default());
        Err(format!(
            "{setting} is set, but {scheme}:// does not encrypt: write {encrypted}://, or leave the setting out"
        ))
    }

    fn server_name(&self) -> Result<Option<ServerName<'static>>, String> {
        let Some(name) = &self.server_name else { return Ok(None) };
        let impossible =
            |_| format!("{SERVER_NAME} is `{name}`, which can't be the name in a certificate: write one that can");
        ServerName::try_from(name.clone()).map(Some).map_err(impossible)
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let roots = match &self.root_certificates {
            Some(pem) => own_roots(pem)?,
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        };
        // A provider of our own: nothing is installed for the whole process.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let config = config.with_root_certificates(roots);
        let Some((chain, key)) = &self.client_certificate else { return Ok(config.with_no_client_auth()) };
        let chain = certificates(CLIENT_CERTIFICATE, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => format!("{CLIENT_KEY} is no PEM text with an unencrypted private key in it"),
            error => unreadable(CLIENT_KEY, &error),
        })?;
        config.with_client_auth_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!("{CLIENT_KEY} belongs to another certificate"),
            error => format!("{CLIENT_CERTIFICATE} or its key can't be used: {error}"),
        })
    }
}

/// Makes connections secure.
#[derive(Clone)]
pub(in crate::backend) struct Connector {
    tls: TlsConnector,
    /// The name in the servers' certificates, if it isn't the host.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    /// Fails unless a certificate can name this host, or the host's name doesn't matter.
    pub(super) fn check_name(&self, host: &str) -> Result<(), String> {
        if self.server_name.is_some() {
            return Ok(());
        }
        ServerName::try_from(host).map(drop).map_err(|_| {
            format!(
                "`{host}` can't be the name in a certificate: write one that can, as in rediss://cache.internal:6379"
            )
        })
    }

    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<impl Duplex + use<>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        self.tls.connect(name, stream).await
    }
}

/// The advice for an error of TLS.
pub(super) fn advice(error: &RedisError) -> Option<&'static str> {
    let source: &Arc<dyn StdError + Send + Sync> = error.source()?.downcast_ref()?;
    let failure: &rustls::Error = source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()?;
    Some(match failure {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "set tls_root_certificates to the CA that the server's certificate comes from"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "write the host into the URL as the server's certificate names it, or set tls_server_name to that name",
        rustls::Error::InvalidCertificate(_) => "give the server a certificate that is valid",
        rustls::Error::AlertReceived(_) => {
            "set tls_client_certificate to one that the server accepts, if it wants one; else see the cause"
        }
        _ => "see the cause, and check that the URL is right, rediss:// for TLS and redis:// without",
    })
}

fn own_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ROOT_CERTIFICATES, pem)? {
        let added = roots.add(certificate);
        added.map_err(|_| format!("{ROOT_CERTIFICATES} holds a certificate that is damaged, or of an unknown kind"))?;
    }
    Ok(roots)
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{setting} is no PEM text with a certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(setting, &error)),
    }
}

fn unreadable(setting: &str, error: &PemError) -> String {
    let mistake = match error {
        PemError::MissingSectionEnd { .. } => "a section has no END line",
        PemError::IllegalSectionStart { .. } => "the line that begins a section is not well formed",
        PemError::Base64Decode(_) => "a section is not well-formed base64",
        _ => "it can't be read",
    };
    format!("{setting} is no well-formed PEM text: {mistake}")
}

/// The name, and whether the certificates are set, without any of them.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .field("root_certificates", &self.root_certificates.is_some())
            .field("client_certificate", &self.client_certificate.is_some())
            .finish()
    }
}
