//! What every implementation of the limits must do: [`exercise`] it.
//!
//! Shared limits may be away for a moment (a busy machine, 50 ms): whoever claims then asks again, and tokens come
//! from a fallback that keeps the same promise.

mod circuits;
mod slots;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use futures::future::join_all;
use signalpost_core::{Clock, DeliveryId, DestinationId, Entropy, destination::RateLimit};

use crate::{CLAIM_LEASE, Claim, Claimed, Limits, LimitsUnavailable, Owner, TOKENS_AHEAD, TokenGrant, TokenRequest};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the cases need besides the limits.
#[derive(Debug, Clone)]
pub struct World {
    /// Measures.
    pub clock: Arc<dyn Clock>,
    /// For ids: the cases share their limits with nobody.
    pub entropy: Arc<dyn Entropy>,
}

/// Runs every case. The factory makes one more client of the same shared limits, which are not new: buckets that nobody used are full.
///
/// # Panics
/// The limits do not do what they must.
pub async fn exercise<F: AsyncFn() -> Arc<dyn Limits>>(factory: F, world: &World) {
    let (one, two) = (factory().await, factory().await);
    is_well(&*one).await;
    is_well(&*two).await;
    gives_a_burst_and_then_waits(&*one, world).await;
    grants_what_comes_soon(&*one, world).await;
    answers_in_order_and_apart(&*one, world).await;
    holds_one_bucket_for_all(&one, &two, world).await;
    survives_callers_that_give_up(&*one, world).await;
    claims_belong_to_one(&*one, &*two, world).await;
    one_of_many_gets_a_claim(&one, &two, world).await;
    leases_end_unless_renewed(&*one, &*two, world).await;
    // Two dispatchers, from now on.
    one.set_share(2);
    two.set_share(2);
    slots::exercise(&*one, &*two, world).await;
    circuits::exercise(&one, &two, world).await;
}

impl World {
    fn destination(&self) -> DestinationId {
        DestinationId::new(self.clock.now(), &*self.entropy)
    }

    fn claims(&self, count: usize) -> Vec<Claim> {
        (0..count)
            .map(|_| Claim { delivery_id: DeliveryId::new(self.clock.now(), &*self.entropy), attempt: 1 })
            .collect()
    }
}

async fn is_well(limits: &dyn Limits) {
    let waiting = async {
        while limits.check().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "the limits can be reached");
}

/// Until it is answered.
async fn asked<T>(mut ask: impl AsyncFnMut() -> Result<T, LimitsUnavailable>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("the limits answer within {DEADLINE:?}"))
}

/// Answered by the shared limits for certain, not by what stands in for them: they are there before, and after.
async fn surely<T>(limits: &dyn Limits, mut ask: impl AsyncFnMut() -> Result<T, LimitsUnavailable>) -> T {
    let asking = async {
        loop {
            is_well(limits).await;
            let answer = ask().await;
            if limits.check().await.is_ok()
                && let Ok(answer) = answer
            {
                return answer;
            }
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("the limits are there within {DEADLINE:?}"))
}

async fn take(limits: &dyn Limits, requests: &[TokenRequest]) -> Vec<TokenGrant> {
    let grants = asked(async || limits.take_tokens(requests).await).await;
    assert_eq!(grants.len(), requests.len());
    for (grant, request) in grants.iter().zip(requests) {
        assert!(grant.ready <= grant.granted && grant.granted <= request.wanted, "{grant:?}");
        assert_eq!(grant.granted == request.wanted, grant.retry_after.is_zero(), "{grant:?}");
    }
    grants
}

async fn claim(limits: &dyn Limits, owner: Owner, claims: &[Claim]) -> Vec<Claimed> {
    let answers = asked(async || limits.claim(owner, claims).await).await;
    assert_eq!(answers.len(), claims.len());
    answers
}

fn limit(per_second: f64, burst: u32) -> RateLimit {
    RateLimit { per_second, burst: NonZeroU32::new(burst) }
}

/// A new bucket is full; then the next token comes when it was said to, and not much before.
async fn gives_a_burst_and_then_waits(limits: &dyn Limits, world: &World) {
    let limit = limit(20.0, 5);
    let asking = async {
        loop {
            let request = TokenRequest { destination_id: world.destination(), limit, wanted: 8 };
            let start = world.clock.elapsed();
            let first = take(limits, &[request]).await[0];
            // Else others answered, whose bucket was not full.
            if first.granted >= 5 {
                return (request, start, first);
            }
            is_well(limits).await;
        }
    };
    let answer = tokio::time::timeout(DEADLINE, asking).await;
    let (request, start, first) = answer.unwrap_or_else(|_| panic!("a new bucket is full"));
    let mut sum = first.granted;
    let mut wait = first.retry_after;
    assert!(wait <= Duration::from_millis(51), "a token comes every 50 ms: {wait:?}");
    for _ in 0..10 {
        tokio::time::sleep(wait).await;
        let grant = take(limits, &[TokenRequest { wanted: 1000, ..request }]).await[0];
        sum += grant.granted;
        wait = grant.retry_after;
        assert_promise(sum, limit, world.clock.elapsed() - start);
    }
    // Ten waits for one token each; a fallback in between may have been stricter.
    assert!(sum >= 5, "{sum}");
    // A limit that is raised applies at once.
    let raised = RateLimit { per_second: 100_000.0, burst: NonZeroU32::new(50) };
    tokio::time::sleep(Duration::from_millis(2)).await;
    let raised = TokenRequest { limit: raised, wanted: 10, ..request };
    let grant = surely(limits, async || Ok(take(limits, &[raised]).await[0])).await;
    assert_eq!(grant.granted, 10);
}

fn assert_promise(sum: u32, limit: RateLimit, time: Duration) {
    let allowed = limit.burst() + 1.02 * limit.per_second * (time + TOKENS_AHEAD).as_secs_f64();
    assert!(f64::from(sum) <= allowed, "{sum} of {allowed} in {time:?}");
}

/// Who asks before its tokens have come is told when each of them will be there.
async fn grants_what_comes_soon(limits: &dyn Limits, world: &World) {
    let soon = |destination_id| TokenRequest { destination_id, limit: limit(50.0, 1), wanted: 5 };
    let asking = async {
        loop {
            let request = soon(world.destination());
            let grant = surely(limits, async || Ok(take(limits, &[request]).await[0])).await;
            // Else others answered, whose bucket was not full.
            if grant.ready == 1 {
                return grant;
            }
        }
    };
    let grant = tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("a new bucket is full"));
    let ready_in: Vec<_> = grant.ready_in().map(|time| (time.as_secs_f64() * 1000.0).round()).collect();
    assert_eq!(ready_in, [0.0, 20.0, 40.0], "{grant:?}");
    assert!(grant.retry_after >= Duration::from_millis(10), "{grant:?}");
}

/// Many destinations in one call, one of them twice, and none takes another's tokens.
async fn answers_in_order_and_apart(limits: &dyn Limits, world: &World) {
    let slow = |wanted, burst| TokenRequest { destination_id: world.destination(), limit: limit(0.01, burst), wanted };
    let asking = async {
        loop {
            let mut requests: Vec<_> = (1..=600).map(|burst| slow(burst + 1, burst)).collect();
            requests.push(TokenRequest { wanted: 1, ..requests[9] });
            let grants = surely(limits, async || Ok(take(limits, &requests).await)).await;
            // Else others answered, whose buckets were not full.
            if grants[..600].iter().zip(&requests).all(|(grant, request)| grant.granted + 1 == request.wanted) {
                return grants;
            }
        }
    };
    let grants = tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("new buckets are full"));
    assert_eq!(grants[600].granted, 0, "its bucket was emptied by the same call");
    assert!(grants[600].retry_after > Duration::from_secs(50), "{:?}", grants[600]);
    assert_eq!(take(limits, &[]).await, []);
}

/// Two clients, several tasks each: together they get what one would.
async fn holds_one_bucket_for_all(one: &Arc<dyn Limits>, two: &Arc<dyn Limits>, world: &World) {
    let limit = limit(300.0, 10);
    let request = TokenRequest { destination_id: world.destination(), limit, wanted: 3 };
    let start = world.clock.elapsed();
    let until = start + Duration::from_secs(1);
    let takers = (0..6).map(|number| {
        let limits = if number < 3 { one } else { two };
        async move {
            let mut sum = 0;
            while world.clock.elapsed() < until {
                let grant = take(&**limits, &[request]).await[0];
                sum += grant.granted;
                tokio::time::sleep(grant.retry_after).await;
            }
            sum
        }
    });
    let sum: u32 = join_all(takers).await.into_iter().sum();
    assert_promise(sum, limit, world.clock.elapsed() - start);
    assert!(sum >= 10, "{sum}");
}

/// Dropped at any point: what was taken then is lost, the next caller is served.
async fn survives_callers_that_give_up(limits: &dyn Limits, world: &World) {
    let request = TokenRequest { destination_id: world.destination(), limit: limit(0.001, 1000), wanted: 1 };
    let owned = world.claims(4);
    for micros in 0..100 {
        let gives_up = Duration::from_micros(micros * 10);
        let _either = tokio::time::timeout(gives_up, limits.take_tokens(&[request])).await;
        let _either = tokio::time::timeout(gives_up, limits.claim(1, &owned)).await;
    }
    is_well(limits).await;
    let rest = take(limits, &[TokenRequest { wanted: 2000, ..request }]).await[0].granted;
    assert!((900..=1000).contains(&rest), "at most one token per caller is gone: {rest}");
    assert_eq!(claim(limits, 1, &owned).await, [Claimed::Ours; 4]);
}

async fn claims_belong_to_one(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let claims = world.claims(300);
    assert_eq!(claim(one, 1, &claims[..200]).await, [Claimed::Ours; 200]);
    assert_eq!(claim(one, 1, &claims[..200]).await, [Claimed::Ours; 200], "claimed again by its owner");
    let answers = claim(two, 2, &claims).await;
    assert_eq!(
        (&answers[..200], &answers[200..]),
        ([Claimed::Others; 200].as_slice(), [Claimed::Ours; 100].as_slice())
    );
    // The next attempt is another claim.
    assert_eq!(claim(two, 2, &[Claim { attempt: 2, ..claims[0] }]).await, [Claimed::Ours]);

    // Only the owner can give it away.
    asked(async || two.release(2, &claims[..1]).await).await;
    assert_eq!(claim(two, 2, &claims[..1]).await, [Claimed::Others]);
    asked(async || one.release(1, &claims[..1]).await).await;
    assert_eq!(claim(two, 2, &claims[..1]).await, [Claimed::Ours]);
    assert_eq!(claim(one, 1, &[]).await, []);
}

/// Many owners want the same at once: each claim has one owner.
async fn one_of_many_gets_a_claim(one: &Arc<dyn Limits>, two: &Arc<dyn Limits>, world: &World) {
    let claims = world.claims(50);
    let owners = (1..=8).map(|owner: Owner| {
        let limits = if owner.is_multiple_of(2) { one } else { two };
        let claims = &claims;
        async move { claim(&**limits, owner, claims).await }
    });
    let answers = join_all(owners).await;
    for number in 0..claims.len() {
        let winners = answers.iter().filter(|of_owner| of_owner[number] == Claimed::Ours).count();
        assert_eq!(winners, 1, "claim {number}");
    }
}

/// A dead owner's claim is free after the lease, a living one's is not.
async fn leases_end_unless_renewed(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let claims = world.claims(2);
    assert_eq!(claim(one, 1, &claims).await, [Claimed::Ours; 2]);
    let claimed_at = world.clock.elapsed();
    let taken_over = async {
        loop {
            // Another's renewal extends nothing.
            asked(async || two.renew(2, &claims[1..]).await).await;
            asked(async || one.renew(1, &claims[..1]).await).await;
            let answers = claim(two, 2, &claims).await;
            assert_eq!(answers[0], Claimed::Others, "it was renewed");
            if answers[1] == Claimed::Ours {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, taken_over).await.is_ok(), "a claim that nobody renews ends");
    // The claim may be a call's time older than we know.
    assert!(world.clock.elapsed() - claimed_at + Duration::from_secs(1) >= CLAIM_LEASE);
}
