//! What both engines' TLS needs: authorities to check a server with, and words for what is wrong with its certificate.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};

use crate::error::{Error, Kind, Result};

/// A file of the URL that is not what it should be; `what` is the URL's parameter.
pub fn file_error(what: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("{what} {} cannot be read: {why}", path.display()))
}

/// The authorities in a PEM file, which the URL's parameter `what` names, or else the system's. Never none.
pub fn authorities(what: &str, file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>> {
    let mut trial = RootCertStore::empty();
    let Some(path) = file else {
        let system = rustls_native_certs::load_native_certs().certs;
        let usable: Vec<_> = system.into_iter().filter(|cert| trial.add(cert.clone()).is_ok()).collect();
        if usable.is_empty() {
            let why = "this machine has no certificate authorities to check the server with";
            return Err(Error::new(Kind::Config, why)
                .fix(format!("install ca-certificates, or add ?{what}=/path/to/ca.pem to the URL")));
        }
        return Ok(usable);
    };
    let found = CertificateDer::pem_file_iter(path).map_err(|e| file_error(what, path, e))?;
    let certs = found.collect::<Result<Vec<_>, _>>().map_err(|e| file_error(what, path, e))?;
    for cert in &certs {
        trial.add(cert.clone()).map_err(|e| file_error(what, path, e))?;
    }
    if certs.is_empty() {
        return Err(file_error(what, path, "it holds no certificate"));
    }
    Ok(certs)
}

/// Why a certificate is not taken, to stand after "is not trusted: ".
pub fn objection(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "its issuer is not known here".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        other => other.to_string(),
    }
}
