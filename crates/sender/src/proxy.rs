//! The way out through an HTTP proxy (`CONNECT`, RFC 9110 9.3.6), where the operator set one.
//!
//! Names are resolved and judged here, as without a proxy, and the proxy is asked to connect to the address that was
//! judged: it has nothing to resolve, so nothing can be rebound. TLS goes through the tunnel under the URL's own name.
//! What the operator named in the allow-list is his own network; it is reached directly.
//!
//! Not protected against: a proxy that connects elsewhere. For `https` it cannot pass for the destination; what goes over
//! `http` it can read and change.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{HttpConnector, proxy::Tunnel},
    rt::TokioIo,
};
use percent_encoding::percent_decode_str;
use tokio::{net::TcpStream, time::timeout};
use tower::ServiceExt as _;
use url::Url;

use crate::resolver::{LookupError, Resolver};

/// An HTTP proxy through which destinations are reached. `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct EgressProxy {
    address: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a text is no proxy's URL. The texts do not repeat it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be http://host:port or http://user:password@host:port, without a path")]
pub struct BadProxy;

impl EgressProxy {
    /// From `http://[user:password@]host[:port]`; user and password percent-encoded where they hold other characters.
    ///
    /// # Errors
    /// It is not of this form.
    pub fn parse(text: &str) -> Result<Self, BadProxy> {
        let url = Url::parse(text).map_err(|_| BadProxy)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !plain {
            return Err(BadProxy);
        }
        let host = url.host_str().ok_or(BadProxy)?;
        let port = url.port_or_known_default().ok_or(BadProxy)?;
        let address = format!("http://{host}:{port}/").parse().map_err(|_| BadProxy)?;
        let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
            pair.push(b':');
            pair.extend(percent_decode_str(url.password().unwrap_or_default()));
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let authorization = authorization.transpose().map_err(|_: http::header::InvalidHeaderValue| BadProxy)?;
        Ok(Self { address, authorization })
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why the proxy brought us nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    /// No connection to it, or none that lasted until its answer.
    #[error("the egress proxy cannot be reached")]
    Unreachable,
    /// It answered, but not with a tunnel.
    #[error("the egress proxy refused the connection")]
    Refused,
}

impl ProxyError {
    /// The library's errors have no public type; what has a cause is one of I/O.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        if error.source().is_some() { Self::Unreachable } else { Self::Refused }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The proxy itself is near: this part of the time for a connection is its own, and the rest is for the destination behind it.
const PROXY_PART: u32 = 4;

/// Opens the TCP connection over which a destination is talked to. The time for a connection is divided among the addresses that
/// there are to be tried, so that none that swallows everything keeps us from the next one.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// To the destination itself.
    Direct(HttpConnector<Resolver>),
    /// Through the proxy.
    Proxied(Box<Proxied>),
}

impl Way {
    pub(crate) fn new(resolver: Resolver, proxy: Option<&EgressProxy>, connect_timeout: Duration) -> Self {
        let Some(proxy) = proxy else {
            return Self::Direct(tuned(HttpConnector::new_with_resolver(resolver), connect_timeout));
        };
        let to_proxy = tuned(HttpConnector::new(), connect_timeout / PROXY_PART);
        let tunnel = Tunnel::new(proxy.address.clone(), to_proxy);
        let tunnel = match &proxy.authorization {
            Some(value) => tunnel.with_auth(value.clone()),
            None => tunnel,
        };
        let direct = tuned(HttpConnector::new(), connect_timeout);
        Self::Proxied(Box::new(Proxied { resolver, tunnel, direct, connect_timeout }))
    }
}

/// `connect_timeout`: for all addresses of a name; each of them has its part.
fn tuned<R>(mut connector: HttpConnector<R>, connect_timeout: Duration) -> HttpConnector<R> {
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(30)));
    connector.set_connect_timeout(Some(connect_timeout));
    connector
}

impl tower::Service<Uri> for Way {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self.clone() {
            Self::Direct(connector) => connector.oneshot(to).map(|made| Ok(made?)).boxed(),
            Self::Proxied(proxied) => proxied.connect(to).boxed(),
        }
    }
}

/// The way through the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Proxied {
    resolver: Resolver,
    tunnel: Tunnel<HttpConnector>,
    /// For what the operator named. It is given addresses, so it resolves nothing.
    direct: HttpConnector,
    /// For all addresses.
    connect_timeout: Duration,
}

impl Proxied {
    async fn connect(self, to: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let port = to.port_u16().unwrap_or(if to.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
        let found = self.resolver.clone().resolve(to.host().unwrap_or_default()).await?;
        let each = self.connect_timeout / u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
        let mut failure: BoxError = LookupError::NotFound.into();
        for address in found {
            let judged: Uri = format!("https://{}/", SocketAddr::new(address.ip(), port)).parse()?;
            failure = match timeout(each, self.reach(address.ip(), judged)).await {
                Ok(Ok(stream)) => return Ok(stream),
                // Another address may be had from a proxy that answers, not from one that does not.
                Ok(Err(error)) if matches!(error.downcast_ref(), Some(ProxyError::Unreachable)) => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
            };
        }
        Err(failure)
    }

    /// Connects to one address.
    async fn reach(&self, address: IpAddr, judged: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        if self.resolver.is_named(address) {
            return Ok(self.direct.clone().oneshot(judged).await?);
        }
        Ok(self.tunnel.clone().oneshot(judged).await.map_err(|error| ProxyError::of(&error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_keeps_its_password_to_itself() {
        let proxy = EgressProxy::parse("http://jo%40n:s%3Acret@proxy.internal:3128").unwrap();
        assert_eq!(proxy.address, "http://proxy.internal:3128/");
        let value = proxy.authorization.as_ref().unwrap();
        assert_eq!(value, &format!("Basic {}", BASE64_STANDARD.encode("jo@n:s:cret")));
        let shown = format!("{proxy:?} {value:?}");
        assert!(!shown.contains("cret") && !shown.contains("Basic"), "{shown}");
        assert_eq!(EgressProxy::parse("http://[::1]").unwrap().address, "http://[::1]:80/");
        assert_eq!(EgressProxy::parse("http://10.0.0.1:3128/").unwrap().authorization, None);
        for text in
            ["proxy:3128", "https://proxy:3128", "socks5://proxy", "http://proxy/a", "http://proxy?a", "http://", ""]
        {
            assert_eq!(EgressProxy::parse(text), Err(BadProxy), "{text}");
        }
    }
}
