//! A server with TLS, and the authority that issues certificates for it and its clients.

use std::fs;
use std::time::Duration;

use cache_aside::{Backend, BackendBuilder};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use testkit::server::{Flavor, Mistake, Server, client, free_port};

/// The test's own certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

/// A certificate with its key, both as PEM text.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Issues a certificate for a client, or for a server with these host names.
    pub(crate) fn certify(&self, name: &str, hosts: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = named(name, hosts).signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(hosts.iter().copied().map(String::from).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A server that accepts only TLS on its port.
pub(crate) struct TlsServer {
    pub(crate) server: Server,
    files: TempDir,
}

impl TlsServer {
    /// Starts a server with a certificate for `localhost`, with or without required client certificates.
    pub(crate) async fn start(authority: &Authority, auth_clients: &str) -> Self {
        Self::start_with(authority, auth_clients, &[]).await
    }

    /// Starts a cluster of one server, which announces its address.
    pub(crate) async fn start_cluster(authority: &Authority) -> Self {
        let bus = free_port().to_string();
        let settings = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
        let more = ["--cluster-announce-ip", "127.0.0.1"];
        let cluster = Self::start_with(authority, "no", &[&settings[..], &more].concat()).await;
        let mut operator = client(&cluster.server.unix_url()).await.unwrap();
        let slots = redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).to_owned();
        slots.exec_async(&mut operator).await.unwrap();
        loop {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut operator).await.unwrap();
            if info.contains("cluster_state:ok") {
                return cluster;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn start_with(authority: &Authority, auth_clients: &str, more: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let identity = authority.certify("server", &["localhost"]);
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = write("certificate.pem", &identity.certificate);
        let key = write("key.pem", &identity.key);
        let authority = write("authority.pem", &authority.certificate);
        loop {
            let port = free_port();
            let tls_port = port.to_string();
            let mut args = vec!["--port", "0", "--tls-port", &tls_port, "--tls-auth-clients", auth_clients];
            args.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &authority]);
            args.extend(more);
            match Server::try_start(Flavor::Redis70, port, &args).await {
                Ok(server) => return Self { server, files },
                Err(Mistake::PortTaken(_)) => {}
                Err(mistake) => panic!("{mistake}"),
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// The configuration lines with which another process uses the same certificate.
    pub(crate) fn config(&self) -> String {
        let dir = self.files.path().display();
        format!(
            "tls-cert-file {dir}/certificate.pem\ntls-key-file {dir}/key.pem\ntls-ca-cert-file {dir}/authority.pem\n\
             tls-auth-clients yes"
        )
    }

    pub(crate) fn url(&self) -> String {
        format!("rediss://localhost:{}", self.server.port())
    }

    pub(crate) fn builder(&self) -> BackendBuilder {
        Backend::builder(&self.url()).operation_timeout(Duration::from_secs(5))
    }
}
