//! TLS with libpq's meanings, by rustls.
//!
//! | sslmode | encrypted | authority checked | name checked |
//! |---|---|---|---|
//! | require | yes | only if `sslrootcert` is given (as libpq does) | no |
//! | verify-ca | yes | yes | no |
//! | verify-full | yes | yes | yes |

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Host, SslMode, TlsOptions};
use crate::endpoint::tls::{authorities, file_error, objection};
use crate::error::{Error, Kind, Result};

/// Speaks TLS over a connection on which the server has agreed to it.
pub(super) async fn handshake(
    tcp: TcpStream,
    host: &Host,
    mode: SslMode,
    options: &TlsOptions,
) -> Result<TlsStream<TcpStream>> {
    let name = match host {
        Host::Tcp(name, _) => name.clone(),
        Host::Unix(..) => "localhost".into(),
    };
    let server_name = ServerName::try_from(name.clone())
        .map_err(|_| Error::new(Kind::Config, format!("{name:?} is not a name a certificate can be for")))?;
    let config = client_config(mode, options)?;
    TlsConnector::from(Arc::new(config)).connect(server_name, tcp).await.map_err(|error| explain(&error, host, mode))
}

fn explain(error: &std::io::Error, host: &Host, mode: SslMode) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Error::new(Kind::Connection, format!("the TLS handshake with {host} broke: {error}"));
    };
    match tls {
        rustls::Error::InvalidCertificate(why) => {
            let why = objection(why);
            let fix = if mode == SslMode::VerifyFull {
                "add ?sslrootcert=/path/to/ca.pem to the URL, or choose another check with ?sslmode=verify-ca (any host \
                 name) or ?sslmode=require (encrypted, not verified)"
            } else {
                "add ?sslrootcert=/path/to/ca.pem to the URL, or ?sslmode=require (encrypted, not verified)"
            };
            Error::new(Kind::Authentication, format!("the certificate of {host} is not trusted: {why}")).fix(fix)
        }
        other => Error::new(Kind::Connection, format!("the TLS handshake with {host} failed: {other}")),
    }
}

fn roots(options: &TlsOptions) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities("sslrootcert", options.root_cert.as_deref())?);
    Ok(roots)
}

fn client_config(mode: SslMode, options: &TlsOptions) -> Result<ClientConfig> {
    let internal = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("TLS cannot be set up: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verify = match mode {
        SslMode::VerifyCa | SslMode::VerifyFull => true,
        SslMode::Require => options.root_cert.is_some(),
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => false,
    };
    let roots = if verify { roots(options)? } else { RootCertStore::empty() };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| internal(&e))?;
    let builder = if mode == SslMode::VerifyFull {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| internal(&e))?;
        builder.with_webpki_verifier(verifier)
    } else {
        let authorities = verify.then_some(roots);
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { authorities, provider }))
    };
    match (&options.cert, &options.key) {
        (None, _) => Ok(builder.with_no_client_auth()),
        (Some(cert), None) => {
            Err(Error::new(Kind::Config, format!("sslcert {} needs ?sslkey= as well", cert.display())))
        }
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| file_error("sslcert", cert, e))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| file_error("sslkey", key, e))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| file_error("sslcert", cert, e))
        }
    }
}

/// Checks no name, and the authority only if there are some to check with: sslmode `require` and `verify-ca`.
/// The handshake's signature is always checked: the server has the key of the certificate it shows.
#[derive(Debug)]
struct AnyName {
    authorities: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.authorities {
            let cert = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` (RFC 5929): the hash of the server's certificate, by the certificate's own signature hash,
/// SHA-256 where that is weaker. `None` where the algorithm names no hash (Ed25519, RSA-PSS): then plain SCRAM is used.
pub(super) fn server_end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    end_point_hash(certificate)
}

fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }
    let (body, _) = der(certificate, 0x30)?;
    let (_, rest) = der(body, 0x30)?;
    let (algorithm, _) = der(rest, 0x30)?;
    let (oid, _) = der(algorithm, 0x06)?;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let bits = match oid {
        _ if oid == ECDSA_SHA1 => 256,
        [prefix @ .., last] if prefix == ECDSA_SHA2 => match last {
            2 => 256,
            3 => 384,
            4 => 512,
            _ => return None,
        },
        [prefix @ .., last] if prefix == RSA => match last {
            4 | 5 | 11 => 256, // md5 and sha1 are replaced by sha256 (RFC 5929, 4.1)
            12 => 384,
            13 => 512,
            _ => return None,
        },
        _ => return None,
    };
    Some(match bits {
        256 => Sha256::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        _ => Sha512::digest(certificate).to_vec(),
    })
}

/// The content of the DER element with `tag` at the start of `input`, and what follows it.
fn der(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let bytes = rest.get(..count)?;
        length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        rest = &rest[count..];
    }
    (found == tag && length <= rest.len()).then(|| rest.split_at(length))
}
