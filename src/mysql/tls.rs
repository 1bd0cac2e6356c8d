//! What each `ssl-mode` asks of the driver's TLS (rustls).
//!
//! | ssl-mode | encrypted | authority checked | name checked |
//! |---|---|---|---|
//! | PREFERRED | if the server has it | no | no |
//! | REQUIRED | yes | only if `ssl-ca` is given | no |
//! | VERIFY_CA | yes | yes | no |
//! | VERIFY_IDENTITY | yes | yes | yes |
//!
//! rustls checks a name whenever it checks an authority. Where none is to be checked the certificate's own name is asked
//! for: the first handshake fails and tells the names, the second one is made for one of them ([`name_in`]). Names are
//! those of the `subjectAltName`; the common name, which MySQL's clients look at too, counts no more (RFC 9525).

use mysql_async::{ClientIdentity, SslOpts};
use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{MySslMode, MyTls};
use crate::endpoint::tls::{authorities, file_error, objection};
use crate::error::{Error, Kind, Result};

/// How the server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checks {
    authority: bool,
    name: bool,
}

impl Checks {
    pub(super) fn of(mode: MySslMode, tls: &MyTls) -> Checks {
        let authority = match mode {
            MySslMode::VerifyCa | MySslMode::VerifyIdentity => true,
            MySslMode::Required => tls.ca.is_some(),
            MySslMode::Disabled | MySslMode::Preferred => false,
        };
        Checks { authority, name: mode == MySslMode::VerifyIdentity }
    }

    /// The driver's settings. `name` replaces the host's.
    pub(super) fn options(self, tls: &MyTls, name: Option<String>) -> Result<SslOpts> {
        let mut options = SslOpts::default().with_client_identity(identity(tls)?);
        if let Some(name) = name {
            options = options.with_danger_tls_hostname_override(Some(name));
        }
        if !self.authority {
            return Ok(options.with_danger_accept_invalid_certs(true));
        }
        let roots = authorities("ssl-ca", tls.ca.as_deref())?.into_iter().map(|cert| cert.to_vec().into());
        Ok(options.with_disable_built_in_roots(true).with_root_certs(roots.collect()))
    }

    /// A name to try again with, where the certificate is for another one and that does not matter.
    pub(super) fn name_to_try(self, error: &rustls::Error) -> Option<String> {
        if self.name {
            return None;
        }
        match error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
                presented.iter().find_map(|name| name_in(name))
            }
            _ => None,
        }
    }

    /// A handshake that failed, for people.
    pub(super) fn explain(self, error: &rustls::Error, host: &dyn std::fmt::Display) -> Error {
        let rustls::Error::InvalidCertificate(why) = error else {
            return Error::new(Kind::Connection, format!("the TLS handshake with {host} failed: {error}"));
        };
        let another_name =
            matches!(why, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. });
        if another_name && !self.name {
            let why = format!("the certificate of {host} is not trusted: it holds no name in its subjectAltName");
            return Error::new(Kind::Authentication, why).fix(
                "give the server a certificate with a subjectAltName, or use ?ssl-mode=REQUIRED without ssl-ca \
                 (encrypted, not verified) if the network is trusted",
            );
        }
        let fix = if self.name {
            "add ?ssl-ca=/path/to/ca.pem to the URL, or choose another check with ?ssl-mode=VERIFY_CA (any host name) or \
             ?ssl-mode=REQUIRED (encrypted, not verified)"
        } else {
            "add ?ssl-ca=/path/to/ca.pem to the URL, or ?ssl-mode=REQUIRED without ssl-ca (encrypted, not verified)"
        };
        Error::new(Kind::Authentication, format!("the certificate of {host} is not trusted: {}", objection(why)))
            .fix(fix)
    }
}

/// The name in `DnsName("db.example.com")` or `IpAddress(127.0.0.1)`, as rustls lists what a certificate is for; of
/// `*.example.com` one that it is for.
fn name_in(presented: &str) -> Option<String> {
    let inside = presented.split_once('(')?.1.trim_end_matches(')').trim_matches('"');
    Some(inside.replace('*', "any")).filter(|name| rustls::pki_types::ServerName::try_from(name.as_str()).is_ok())
}

/// Our own certificate. Both files are read here, so that the error names the one that is wrong.
fn identity(tls: &MyTls) -> Result<Option<ClientIdentity>> {
    match (&tls.cert, &tls.key) {
        (None, _) => Ok(None),
        (Some(cert), None) => {
            Err(Error::new(Kind::Config, format!("ssl-cert {} needs ?ssl-key= as well", cert.display())))
        }
        (Some(cert), Some(key)) => {
            CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| file_error("ssl-cert", cert, e))?;
            PrivateKeyDer::from_pem_file(key).map_err(|e| file_error("ssl-key", key, e))?;
            Ok(Some(ClientIdentity::new(cert.clone().into(), key.clone().into())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_certificate_is_for_is_found_in_what_rustls_says_of_it() {
        assert_eq!(name_in("DnsName(\"db.example.com\")").as_deref(), Some("db.example.com"));
        assert_eq!(name_in("DnsName(\"*.example.com\")").as_deref(), Some("any.example.com"));
        assert_eq!(name_in("IpAddress(127.0.0.1)").as_deref(), Some("127.0.0.1"));
        assert_eq!(name_in("DirectoryName"), None);
        assert_eq!(name_in("Unsupported(4)(x y)"), None);
    }
}
