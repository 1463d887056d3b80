//! What stands before limits and takes part in some of their calls.

use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};

signalpost_store::layers! { LimitsLayer and LayeredLimits of Limits, LimitsUnavailable:
    Limits {
        take_tokens(requests: &[TokenRequest]) -> Vec<TokenGrant>;
        claim(owner: Owner, claims: &[Claim]) -> Vec<Claimed>;
        renew(owner: Owner, claims: &[Claim]) -> ();
        release(owner: Owner, claims: &[Claim]) -> ();
        slots(owner: Owner, uses: &[SlotUse]) -> Vec<u32>;
        circuits(owner: Owner, reports: &[CircuitReport]) -> Vec<CircuitView>;
        check() -> ();
        [set_share(alive: u32) -> ()]
    }
}
