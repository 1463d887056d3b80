//! A tenant's destinations, arranged so that an event finds its own quickly.

use std::collections::HashMap;

use signalpost_core::{DestinationId, DestinationState, Guarantee, ordering::Ordering, pattern::EventPattern};
use signalpost_store::ingest::{Route, Routes, RoutingVersion};

/// One destination, as an event meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub destination_id: DestinationId,
    /// Travels in messages.
    pub destination_version: u32,
    /// Its deliveries start waiting.
    pub paused: bool,
    /// Gives its deliveries their lanes.
    pub ordering: Ordering,
    /// Of its deliveries.
    pub guarantee: Guarantee,
}

/// A picture of a tenant's destinations. Exact types are looked up; patterns are tried after.
#[derive(Debug, Default)]
pub struct Table {
    /// Of the picture; the store checks it when events are committed.
    pub version: RoutingVersion,
    /// Those that take new deliveries, sorted by id.
    targets: Vec<Target>,
    everything: Vec<usize>,
    exact: HashMap<String, Vec<usize>>,
    patterns: Vec<(EventPattern, usize)>,
    /// All of them; None for those that take nothing now.
    by_id: HashMap<DestinationId, Option<usize>>,
}

impl Table {
    /// Arranges what the store gave.
    pub fn new(routes: Routes) -> Self {
        let mut table = Self { version: routes.version, ..Self::default() };
        for route in routes.routes {
            table.add(route);
        }
        table
    }

    fn add(&mut self, route: Route) {
        let Route { destination_id, destination_version, event_types, ordering, guarantee, state } = route;
        let paused = match state {
            DestinationState::Active => false,
            DestinationState::Paused => true,
            DestinationState::Disabled => {
                self.by_id.insert(destination_id, None);
                return;
            }
            DestinationState::Deleted => return,
        };
        let index = self.targets.len();
        self.targets.push(Target { destination_id, destination_version, paused, ordering, guarantee });
        self.by_id.insert(destination_id, Some(index));
        for pattern in event_types {
            match pattern.as_exact() {
                Some(event_type) => self.exact.entry(event_type.to_owned()).or_default().push(index),
                None if matches!(pattern.as_str(), "*" | "**") => self.everything.push(index),
                None => self.patterns.push((pattern, index)),
            }
        }
    }

    /// Who wants events of that type: each once, sorted by id.
    pub fn route(&self, event_type: &str) -> Vec<&Target> {
        let mut found = self.everything.clone();
        found.extend(self.exact.get(event_type).into_iter().flatten());
        found.extend(self.patterns.iter().filter(|(pattern, _)| pattern.matches(event_type)).map(|(_, index)| index));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|index| &self.targets[index]).collect()
    }

    /// Whether this picture has a destination.
    pub fn has(&self, id: DestinationId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The one destination that an event names, whatever it wants: none where it is disabled. `None`: there is no such one.
    pub fn only(&self, id: DestinationId) -> Option<Vec<&Target>> {
        self.by_id.get(&id).map(|index| index.iter().map(|index| &self.targets[*index]).collect())
    }
}

#[cfg(test)]
mod tests {
    use signalpost_core::Timestamp;

    use super::*;

    fn id(number: i64) -> DestinationId {
        DestinationId::floor(Timestamp::from_millis(number))
    }

    fn route(number: i64, types: &[&str], state: DestinationState) -> Route {
        Route {
            destination_id: id(number),
            destination_version: 1,
            event_types: types.iter().map(|text| EventPattern::new(*text).unwrap()).collect(),
            ordering: Ordering::default(),
            guarantee: Guarantee::default(),
            state,
        }
    }

    #[test]
    fn an_event_finds_each_of_its_destinations_once() {
        let table = Table::new(Routes {
            version: 7,
            routes: vec![
                route(1, &["*"], DestinationState::Active),
                route(2, &["order.created", "order.*", "**"], DestinationState::Active),
                route(3, &["order.*"], DestinationState::Paused),
                route(4, &["*"], DestinationState::Disabled),
                route(5, &["order.created"], DestinationState::Active),
            ],
        });
        let found =
            |event_type: &str| table.route(event_type).iter().map(|t| (t.destination_id, t.paused)).collect::<Vec<_>>();
        assert_eq!(found("order.created"), [(id(1), false), (id(2), false), (id(3), true), (id(5), false)]);
        assert_eq!(found("order.paid"), [(id(1), false), (id(2), false), (id(3), true)]);
        assert_eq!(found("other"), [(id(1), false), (id(2), false)]);
        assert_eq!(table.only(id(5)).unwrap().len(), 1);
        assert_eq!(table.only(id(4)), Some(vec![]));
        assert_eq!(table.only(id(9)), None);
    }
}
