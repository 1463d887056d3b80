//! Circuits by destination: the machine of `signalpost_core` in a map.

use std::collections::HashMap;

use signalpost_core::{
    CircuitRecord, DestinationId, Entropy, Timestamp,
    circuit::{Circuit, Permits, Seen},
};

use crate::{CircuitReport, CircuitView};

/// Below this there is nothing to prune.
const PRUNE_ABOVE: usize = 1024;

/// Circuits of one process. Times are of one clock.
#[derive(Debug, Default)]
pub struct CircuitTable {
    /// With the time of the last report.
    circuits: HashMap<DestinationId, (Circuit, Timestamp)>,
    /// Prune when there are more.
    prune_at: usize,
}

impl CircuitTable {
    /// Takes in what was seen, and says how the circuit is.
    pub fn report(&mut self, now: Timestamp, report: &CircuitReport) -> CircuitView {
        self.prune(now);
        let (circuit, at) = self.circuits.entry(report.destination_id).or_insert_with(|| (Circuit::default(), now));
        *at = now;
        step(circuit, now, report)
    }

    /// Knows a circuit as somebody else does.
    pub fn know(&mut self, now: Timestamp, id: DestinationId, circuit: Circuit) {
        self.prune(now);
        self.circuits.insert(id, (circuit, now));
    }

    /// A circuit that is known.
    pub fn get(&self, id: DestinationId) -> Option<&Circuit> {
        self.circuits.get(&id).map(|(circuit, _)| circuit)
    }

    fn prune(&mut self, now: Timestamp) {
        if self.circuits.len() >= self.prune_at.max(PRUNE_ABOVE) {
            self.circuits.retain(|_, (circuit, at)| now.since(*at) < circuit.kept_for());
            self.prune_at = self.circuits.len().saturating_mul(2);
        }
    }

    /// How many circuits are kept.
    pub fn len(&self) -> usize {
        self.circuits.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }
}

/// Moves a circuit on by a report.
pub fn step(circuit: &mut Circuit, now: Timestamp, report: &CircuitReport) -> CircuitView {
    let seen = Seen {
        successes: report.successes,
        failures: report.failures,
        succeeded_last: report.succeeded_last,
        probes_succeeded: report.probes_succeeded,
        probes_failed: report.probes_failed,
        probes_void: report.probes_void,
        probes_wanted: report.probes_wanted,
        probe_timeout: report.probe_timeout,
        reason: report.reason.as_deref(),
        trips: report.trips,
        version: report.version,
    };
    let jitter = Jitter { id: report.destination_id, trips: circuit.trips().max(report.trips) };
    let Permits { state, open_for, probes, ramp } = circuit.step(now, &report.policy, &seen, &jitter);
    let record = CircuitRecord {
        state,
        since: circuit.told_since(),
        trips: circuit.trips(),
        reason: circuit.reason().map(ToOwned::to_owned),
    };
    CircuitView { state, open_for, probes_granted: probes, ramp, record }
}

/// Chance that is the same for everybody: half of an id is random, and each opening has another number. So two dispatchers
/// that open the same circuit at once agree, and a run can be repeated.
#[derive(Debug)]
struct Jitter {
    id: DestinationId,
    trips: u32,
}

impl Entropy for Jitter {
    fn fill(&self, bytes: &mut [u8]) {
        let (high, low) = self.id.uuid().as_u64_pair();
        let mut state = high.rotate_left(32) ^ low ^ u64::from(self.trips).wrapping_mul(0xd6e8_feb8_6659_fd93);
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests;
