//! Names to addresses, of which the policy decides which may be connected to.
//!
//! The connector asks it for every new connection and connects to what it gives, so an answer is judged and used in one
//! piece. Answers are kept for a few seconds per name: economy, and a name that changes with every question cannot make
//! us ask more often. A lookup belongs to nobody: it goes on when the one who asked first gives up, and whoever asks
//! meanwhile waits for the same one. So a name server that hangs holds one thread per name, not one per request.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
    vec,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use hyper_util::client::legacy::connect::dns::Name;
use signalpost_core::Clock;
use tokio::sync::Semaphore;

use crate::{
    EgressPolicy, UrlDenied,
    egress::{LOOPBACK, is_localhost},
};

/// How long the API waits for a name when a URL is set.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long addresses are used without asking again.
const KEEP_FOUND: Duration = Duration::from_secs(5);
/// How long it is remembered that a name has none.
const KEEP_FAILED: Duration = Duration::from_secs(1);
/// From so many names on, those that are out of date are dropped.
const SWEEP_FROM: usize = 4096;

/// Lookups that the system is asked for at once. Each holds a thread of the runtime's (of 512, which others need, too)
/// until the name server answers, and name servers that never do are for anybody to set up.
static LOOKUPS: Semaphore = Semaphore::const_new(128);

/// Asks the system's resolver. Goes on when nobody waits any more: its thread does, too.
pub(crate) async fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let name = name.to_owned();
    let asking = tokio::spawn(async move {
        let found = tokio::net::lookup_host((name, 0)).await;
        drop(place);
        found.map(|found| found.map(|address| address.ip()).collect())
    });
    asking.await.map_err(io::Error::other)?
}

/// Where addresses come from. Exchanged in tests.
pub(crate) type Source = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's resolver as a source.
pub(crate) fn system() -> Source {
    Arc::new(|name| async move { look_up(&name).await }.boxed())
}

/// Why there is no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The name has an address that is not allowed.
    #[error(transparent)]
    Denied(UrlDenied),
    /// The name has no address, or the name server did not answer.
    #[error("the name does not resolve")]
    NotFound,
}

type Found = Result<Arc<[IpAddr]>, LookupError>;

struct Lookup {
    started: Duration,
    answer: Shared<BoxFuture<'static, Found>>,
}

struct Cache {
    source: Source,
    clock: Arc<dyn Clock>,
    lookups: Mutex<HashMap<Box<str>, Lookup>>,
}

impl Cache {
    /// The lookup to wait for: one that is under way or fresh, or a new one.
    fn ask(&self, name: &str) -> Shared<BoxFuture<'static, Found>> {
        let now = self.clock.elapsed();
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = lookups.get(name)
            && is_current(lookup, now)
        {
            return lookup.answer.clone();
        }
        if lookups.len() >= SWEEP_FROM {
            lookups.retain(|_, lookup| is_current(lookup, now));
        }
        // A task of its own drives it, so that it ends even when nobody waits any more.
        let asking = tokio::spawn((self.source)(name.to_owned()));
        let answer = async move {
            match asking.await {
                Ok(Ok(found)) if !found.is_empty() => Ok(Arc::from(found)),
                Ok(Ok(_) | Err(_)) | Err(_) => Err(LookupError::NotFound),
            }
        }
        .boxed()
        .shared();
        // So does this one: what nobody takes in is no answer, and would never be too old.
        tokio::spawn(answer.clone());
        lookups.insert(name.into(), Lookup { started: now, answer: answer.clone() });
        answer
    }
}

fn is_current(lookup: &Lookup, now: Duration) -> bool {
    let age = now.saturating_sub(lookup.started);
    match lookup.answer.peek() {
        None => true,
        Some(Ok(_)) => age < KEEP_FOUND,
        Some(Err(_)) => age < KEEP_FAILED,
    }
}

/// The resolver of the connector. One for `http` and one for `https`, over the same cache.
#[derive(Clone)]
pub(crate) struct Resolver {
    policy: Arc<EgressPolicy>,
    cache: Arc<Cache>,
    plain: bool,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("policy", &self.policy).field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl Resolver {
    /// For connections with TLS.
    pub(crate) fn new(policy: Arc<EgressPolicy>, clock: Arc<dyn Clock>, source: Source) -> Self {
        Self { policy, cache: Arc::new(Cache { source, clock, lookups: Mutex::default() }), plain: false }
    }

    /// The same for connections without TLS.
    pub(crate) fn plain(&self) -> Self {
        Self { plain: true, ..self.clone() }
    }

    /// Whether the operator named this address: then it is reached without the egress proxy.
    pub(crate) fn is_named(&self, address: IpAddr) -> bool {
        self.policy.is_allowed_by_list(address)
    }

    /// The addresses of a name, or the one that it is. One that is not allowed spoils all: a name with both kinds is not to be trusted.
    pub(crate) async fn resolve(self, name: &str) -> Result<Vec<SocketAddr>, LookupError> {
        // The connector asks for names alone; the way through the egress proxy asks for all.
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            self.policy.check_address(address, self.plain).map_err(LookupError::Denied)?;
            return Ok(vec![SocketAddr::new(address, 0)]);
        }
        if is_localhost(name) {
            let allowed =
                LOOPBACK.into_iter().filter(|address| self.policy.check_address(*address, self.plain).is_ok());
            let addresses: Vec<_> = allowed.map(|address| SocketAddr::new(address, 0)).collect();
            return if addresses.is_empty() { Err(LookupError::Denied(UrlDenied::Address)) } else { Ok(addresses) };
        }
        // Bound to a name of its own: the future must not borrow the lock.
        let asked = self.cache.ask(name);
        let found = asked.await?;
        for address in found.iter() {
            self.policy.check_address(*address, self.plain).map_err(LookupError::Denied)?;
        }
        Ok(found.iter().map(|address| SocketAddr::new(*address, 0)).collect())
    }
}

impl tower::Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        async move { Ok(resolver.resolve(name.as_str()).await?.into_iter()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use signalpost_core::Timestamp;

    use super::*;

    #[derive(Debug, Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(0) + self.elapsed()
        }
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    /// Gives the answers in turn, the last one for ever, and counts the questions.
    fn scripted(answers: &'static [&'static [&'static str]]) -> (Source, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let source: Source = Arc::new(move |_| {
            let turn = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            async move { Ok(answers[turn].iter().map(|text| text.parse().unwrap()).collect()) }.boxed()
        });
        (source, asked)
    }

    fn resolver(allow: &[&str], source: Source, clock: &Arc<HandClock>) -> Resolver {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        Resolver::new(
            Arc::new(EgressPolicy { allow, ..EgressPolicy::public_only() }),
            Arc::clone(clock) as Arc<dyn Clock>,
            source,
        )
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_seconds_and_judged_every_time() {
        let clock = Arc::new(HandClock::default());
        let (source, asked) = scripted(&[&["1.1.1.1"], &["127.0.0.1"]]);
        let resolver = resolver(&[], source, &clock);
        for _ in 0..3 {
            assert_eq!(resolver.clone().resolve("a.example").await.unwrap(), ["1.1.1.1:0".parse().unwrap()]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.0.store(5000, Ordering::SeqCst);
        // The name was rebound to an internal address.
        assert_eq!(resolver.resolve("a.example").await, Err(LookupError::Denied(UrlDenied::Address)));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_waited_for_grows_old_as_well() {
        let clock = Arc::new(HandClock::default());
        let (source, asked) = scripted(&[&["1.1.1.1"], &["8.8.8.8"]]);
        let slow: Source = Arc::new(move |name| {
            let answer = source(name);
            async move {
                tokio::task::yield_now().await;
                answer.await
            }
            .boxed()
        });
        let resolver = resolver(&[], slow, &clock);
        // The request gives up before there is an answer.
        assert_eq!(resolver.clone().resolve("a.example").now_or_never(), None);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        clock.0.store(3_600_000, Ordering::SeqCst);
        assert_eq!(resolver.resolve("a.example").await.unwrap(), ["8.8.8.8:0".parse().unwrap()]);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn one_forbidden_address_spoils_the_name() {
        let clock = Arc::new(HandClock::default());
        let (source, _) = scripted(&[&["1.1.1.1", "10.0.0.1"]]);
        let resolver = resolver(&[], source, &clock);
        assert_eq!(resolver.resolve("a.example").await, Err(LookupError::Denied(UrlDenied::Address)));
    }

    #[tokio::test]
    async fn plain_http_is_only_for_what_the_operator_named() {
        let clock = Arc::new(HandClock::default());
        let (source, _) = scripted(&[&["1.1.1.1"]]);
        let resolver = resolver(&["10.0.0.0/8"], source, &clock).plain();
        assert_eq!(resolver.resolve("a.example").await, Err(LookupError::Denied(UrlDenied::HttpsRequired)));
    }

    #[tokio::test]
    async fn localhost_never_asks_dns() {
        let clock = Arc::new(HandClock::default());
        let (source, asked) = scripted(&[&["1.1.1.1"]]);
        let resolver = resolver(&["127.0.0.0/8"], source, &clock);
        assert_eq!(resolver.clone().resolve("x.localhost.").await.unwrap(), ["127.0.0.1:0".parse().unwrap()]);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_asked_for_again_after_a_second() {
        let clock = Arc::new(HandClock::default());
        let (source, asked) = scripted(&[&[], &["1.1.1.1"]]);
        let resolver = resolver(&[], source, &clock);
        assert_eq!(resolver.clone().resolve("a.example").await, Err(LookupError::NotFound));
        assert_eq!(resolver.clone().resolve("a.example").await, Err(LookupError::NotFound));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.0.store(1000, Ordering::SeqCst);
        assert!(resolver.resolve("a.example").await.is_ok());
    }
}
