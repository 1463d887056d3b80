//! The certificates that destinations are checked against: the roots of the web, and those that the operator adds.
//!
//! There is no way to take a root of the web out, and none to leave the check out.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Certificates that are trusted besides the roots of the web.
#[derive(Debug, Clone, Default)]
pub struct ExtraRoots(Vec<CertificateDer<'static>>);

/// Why a file holds no certificates to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    /// Not PEM.
    #[error("is not PEM")]
    NotPem,
    /// PEM without a certificate.
    #[error("holds no certificate")]
    Empty,
    /// One of its certificates cannot be read.
    #[error("holds a certificate that cannot be read: the one of number {0}")]
    NotACertificate(usize),
}

impl ExtraRoots {
    /// From PEM: one certificate or more.
    ///
    /// # Errors
    /// There is none, or one of them cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadRoots> {
        let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| BadRoots::NotPem)?;
        if found.is_empty() {
            return Err(BadRoots::Empty);
        }
        let mut trial = RootCertStore::empty();
        for (number, certificate) in found.iter().enumerate() {
            trial.add(certificate.clone()).map_err(|_| BadRoots::NotACertificate(number + 1))?;
        }
        Ok(Self(found))
    }

    /// These and the roots of the web (webpki-roots).
    pub(crate) fn with_the_webs(self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in self.0 {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_and_add_to_the_webs() {
        let one = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
        let two = ExtraRoots::from_pem(format!("# ours\n{}{}", one(), one()).as_bytes()).unwrap();
        let webs = webpki_roots::TLS_SERVER_ROOTS.len();
        assert!(webs > 50);
        assert_eq!(two.with_the_webs().unwrap().len(), webs + 2);
        assert_eq!(ExtraRoots::default().with_the_webs().unwrap().len(), webs);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, bad) in [
            ("", BadRoots::Empty),
            ("some text", BadRoots::Empty),
            (key.as_str(), BadRoots::Empty),
            (broken, BadRoots::NotACertificate(1)),
            ("-----BEGIN CERTIFICATE-----\n~~~~\n-----END CERTIFICATE-----\n", BadRoots::NotPem),
        ] {
            assert_eq!(ExtraRoots::from_pem(pem.as_bytes()).err(), Some(bad), "{pem}");
        }
    }
}
