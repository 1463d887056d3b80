//! What went wrong with an exchange, in words for the destination's owner.
//!
//! The words are ours: texts of libraries may hold addresses, names of internal hosts or details of this machine. An
//! error is told by its type, never by its text.

use std::{error::Error, io};

use rustls::{CertificateError, Error as TlsError};

use crate::{UrlDenied, proxy::ProxyError, resolver::LookupError};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The resolver refused the addresses.
    Denied(UrlDenied),
    /// There is no response, or no whole one.
    Broken(&'static str),
}

/// Finds the innermost cause that says something.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> Failure {
    let mut text = "the request failed";
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(lookup) = error.downcast_ref::<LookupError>() {
            return match lookup {
                LookupError::Denied(denied) => Failure::Denied(denied.clone()),
                LookupError::NotFound => Failure::Broken("the host name does not resolve"),
            };
        }
        if let Some(proxy) = error.downcast_ref::<ProxyError>() {
            return Failure::Broken(match proxy {
                ProxyError::Unreachable => "the egress proxy cannot be reached",
                ProxyError::Refused => "the egress proxy refused the connection",
            });
        }
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Failure::Broken(of_tls(tls));
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            text = of_http(hyper).unwrap_or(text);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => {
                text = of_io(io.kind()).unwrap_or(text);
                // `source` of an `io::Error` skips the error that it wraps.
                io.get_ref().map(|inner| inner as &(dyn Error + 'static))
            }
            None => error.source(),
        };
    }
    Failure::Broken(text)
}

fn of_io(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset",
        io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => "connection closed without a response",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
            "host unreachable"
        }
        io::ErrorKind::TimedOut => "connection timed out",
        _ => return None,
    })
}

fn of_http(error: &hyper::Error) -> Option<&'static str> {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Some("connection closed without a response")
    } else if error.is_parse_too_large() {
        Some("the response's headers are too large")
    } else if error.is_parse() {
        Some("the response is not HTTP")
    } else {
        None
    }
}

fn of_tls(error: &TlsError) -> &'static str {
    match error {
        TlsError::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "TLS: the certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "TLS: the certificate is not valid yet"
            }
            CertificateError::Revoked => "TLS: the certificate is revoked",
            CertificateError::UnknownIssuer => "TLS: the certificate's issuer is not trusted",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "TLS: the certificate is for another name"
            }
            _ => "TLS: the certificate is not valid",
        },
        TlsError::AlertReceived(_) => "TLS: the server refused the handshake",
        TlsError::InvalidMessage(_) => "TLS: the server does not speak TLS",
        _ => "TLS: the handshake failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_is_found_and_no_address_is_told() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let nested = io::Error::other(io::Error::other(refused));
        assert_eq!(explain(&nested), Failure::Broken("connection refused"));
        let tls = io::Error::other(io::Error::new(
            io::ErrorKind::InvalidData,
            TlsError::InvalidCertificate(CertificateError::UnknownIssuer),
        ));
        assert_eq!(explain(&tls), Failure::Broken("TLS: the certificate's issuer is not trusted"));
        let denied = io::Error::other(LookupError::Denied(UrlDenied::Address));
        assert_eq!(explain(&denied), Failure::Denied(UrlDenied::Address));
        let strange = io::Error::other("10.0.0.7:5432 said no");
        assert_eq!(explain(&strange), Failure::Broken("the request failed"));
    }
}
