//! Claims of deliveries of all ages: each hash of claims is asked in a call of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails in a helper fails the test")]

mod rig;

use std::time::Duration;

use rig::Rig;
use signalpost_core::{Clock as _, DeliveryId};
use signalpost_limits::{Claim, Claimed, Limits as _};
use signalpost_runtime::SystemEntropy;

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_many_hours_are_answered_in_their_order() {
    let rig = Rig::start().await;
    let limits = rig.limits().await;
    rig::until_well(&limits).await;
    let now = rig.clock.now();
    let claims: Vec<Claim> = (0..900_u64)
        .map(|number| {
            let age = Duration::from_secs(3600 * (number % 3));
            Claim { delivery_id: DeliveryId::new(now - age, &SystemEntropy), attempt: 1 }
        })
        .collect();
    // Every fourth is the first owner's: some of each hour.
    let theirs: Vec<Claim> = claims.iter().copied().step_by(4).collect();
    assert_eq!(limits.claim(1, &theirs).await.unwrap(), vec![Claimed::Ours; theirs.len()]);
    let answers = limits.claim(2, &claims).await.unwrap();
    for (place, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, if place % 4 == 0 { Claimed::Others } else { Claimed::Ours }, "claim {place}");
    }
    assert_eq!(rig.ask::<Vec<String>>(&["KEYS", "signalpost:claims:*"]).await.len(), 3);
    // Others' are not released.
    limits.release(2, &claims).await.unwrap();
    assert_eq!(rig.claims_left().await, theirs.len());
    limits.release(1, &claims).await.unwrap();
    assert_eq!(rig.claims_left().await, 0);
}
