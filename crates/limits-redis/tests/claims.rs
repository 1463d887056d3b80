//! Claims of deliveries of all ages: each hash of claims is asked in a call of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails in a helper fails the test")]

mod rig;

use std::time::Duration;

use rig::{Rig, answered};
use signalpost_core::{Clock as _, DeliveryId};
use signalpost_limits::{Claim, Claimed, Limits as _};
use signalpost_runtime::SystemEntropy;

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_many_ages_are_answered_in_their_order() {
    let rig = Rig::start().await;
    let limits = rig.limits().await;
    rig::until_well(&limits).await;
    let now = rig.clock.now();
    let mut claims: Vec<Claim> = (0..900_u64)
        .map(|number| {
            let age = Duration::from_secs(300 * (number % 3));
            Claim { delivery_id: DeliveryId::new(now - age, &SystemEntropy), attempt: 1 }
        })
        .collect();
    // Twice in a batch.
    claims.push(claims[0]);
    claims.push(claims[1]);
    // Every fourth is the first owner's: some of each hash.
    let theirs: Vec<Claim> = claims[..900].iter().copied().step_by(4).collect();
    assert_eq!(answered(async || limits.claim(1, &theirs).await).await, vec![Claimed::Ours; theirs.len()]);
    // Its name begins as the other's does.
    let answers = answered(async || limits.claim(12, &claims).await).await;
    for (place, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, if place % 900 % 4 == 0 { Claimed::Others } else { Claimed::Ours }, "claim {place}");
    }
    let hashes: Vec<String> = rig.ask(&["KEYS", "signalpost:claims:*"]).await;
    assert_eq!(hashes.len(), 3);
    for hash in hashes {
        // Whose time for an entry does not grow with their number.
        assert_eq!(rig.ask::<String>(&["OBJECT", "ENCODING", &hash]).await, "hashtable");
    }
    // Others' are neither renewed nor released.
    answered(async || limits.renew(12, &claims).await).await;
    answered(async || limits.release(12, &claims).await).await;
    assert_eq!(rig.claims_left().await, theirs.len());
    answered(async || limits.release(1, &claims).await).await;
    assert_eq!(rig.claims_left().await, 0);
}
