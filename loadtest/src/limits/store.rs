//! Large groups into a store, through its port: the rows and indexes are those of Signalpost, whatever they are by then.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use signalpost_core::{
    AttemptOutcome, Clock as _, DeliveryId, Destination, DestinationId, Event, EventId, EventMeta, Guarantee, Kept,
    OutboxId, TenantId,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    Store,
    dispatch::{Attempt, DeliveryWrite, Next, Target},
    ingest::{IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
};
use tokio::task::JoinSet;

use super::{Found, Options, Watch};
use crate::{payload, processes::Pids};

/// Groups that only warm up.
const WARM: usize = 10;

/// Ingest of groups, and then the outcomes of their deliveries.
///
/// # Errors
/// The store refuses something.
pub async fn measure(store: Arc<dyn Store>, options: &Options, pids: &Pids) -> anyhow::Result<[Found; 2]> {
    let destination = destination()?;
    store.create_destination(&destination).await?;
    let mut numbers = 0..;
    let groups = options.count.div_ceil(options.group.max(1));
    let mut found = None;
    for count in [WARM, groups] {
        let made: Vec<_> = (0..count).map(|_| group(&destination, &mut numbers, options)).collect();
        let outcomes: Vec<Vec<DeliveryWrite>> = made.iter().map(written).collect();
        let events = count * options.group;

        let watch = Watch::start(pids);
        let handle = Arc::clone(&store);
        let ingest = move |group: IngestGroup| {
            let store = Arc::clone(&handle);
            async move { ingest(&*store, group).await }
        };
        at_once(made, options.callers, ingest).await?;
        let ingested = watch.end(events);

        let watch = Watch::start(pids);
        let handle = Arc::clone(&store);
        let write = move |batch: Vec<DeliveryWrite>| {
            let store = Arc::clone(&handle);
            async move { Ok(store.write(&batch, false).await.map(drop)?) }
        };
        at_once(outcomes, options.callers, write).await?;
        found = Some([ingested, watch.end(events)]);
    }
    found.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

/// So many callers, each with one thing at a time.
async fn at_once<T, W>(
    things: Vec<T>,
    callers: usize,
    work: impl Fn(T) -> W + Clone + Send + 'static,
) -> anyhow::Result<()>
where
    T: Send + 'static,
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let things = Arc::new(Mutex::new(VecDeque::from(things)));
    let mut working = JoinSet::new();
    for _ in 0..callers.max(1) {
        let (things, work) = (Arc::clone(&things), work.clone());
        working.spawn(async move {
            let next = || things.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some(thing) = next() {
                work(thing).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    Ok(())
}

async fn ingest(store: &dyn Store, mut group: IngestGroup) -> anyhow::Result<()> {
    loop {
        let routing_version = store.routes(TenantId::DEFAULT).await?.version;
        for unit in &mut group.units {
            unit.routing_version = routing_version;
        }
        let outcomes = store.ingest(&group).await?;
        if outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Committed(_))) {
            return Ok(());
        }
        anyhow::ensure!(outcomes.iter().all(|outcome| *outcome == UnitOutcome::Rerouted), "{outcomes:?}");
    }
}

fn destination() -> anyhow::Result<Destination> {
    let now = SystemClock::new().now();
    Ok(Destination::new(
        DestinationId::new(now, &SystemEntropy),
        TenantId::DEFAULT,
        serde_json::from_value(json!({"url": "https://example.com/", "event_types": ["limits.0"]}))?,
        Kept::plain("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
        now,
    ))
}

/// An event as the API makes it.
pub(super) fn event(number: u64, bytes: usize) -> Event {
    Event {
        id: EventId::new(SystemClock::new().now(), &SystemEntropy),
        tenant_id: TenantId::DEFAULT,
        event_type: "limits.0".to_owned(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from(payload::data(number, bytes)),
    }
}

fn group(destination: &Destination, numbers: &mut impl Iterator<Item = u64>, options: &Options) -> IngestGroup {
    let new = |number| {
        let event = event(number, options.bytes);
        let delivery = NewDelivery {
            id: DeliveryId::new(event.created_at(), &SystemEntropy),
            destination_id: destination.id,
            start: Start::Queued,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
        };
        let answer = Bytes::from(format!("{{\"id\":\"{}\",\"duplicate\":false}}", event.id));
        NewEvent { event: Arc::new(event), deliveries: vec![delivery], fan_out: Vec::new(), uid: None, answer }
    };
    let units = numbers.take(options.group).map(|number| IngestUnit {
        tenant: TenantId::DEFAULT,
        // Asked for at once before it is used.
        routing_version: 0,
        claim: None,
        events: vec![new(number)],
    });
    let units = units.collect();
    IngestGroup { units, outbox_id: OutboxId::new(SystemClock::new().now(), &SystemEntropy), published: Vec::new() }
}

/// All of a group's deliveries arrived at their first attempt.
fn written(group: &IngestGroup) -> Vec<DeliveryWrite> {
    let attempt = Attempt {
        number: 1,
        started_at: SystemClock::new().now(),
        duration: Duration::from_millis(2),
        outcome: AttemptOutcome::Delivered,
        status_code: Some(200),
        response_excerpt: Bytes::new(),
        error: None,
    };
    let events = group.units.iter().flat_map(|unit| &unit.events);
    let arrived = events.flat_map(|new| new.deliveries.iter().map(move |delivery| (new.event.id, delivery)));
    arrived
        .map(|(event_id, delivery)| DeliveryWrite::Attempt {
            target: Target {
                delivery_id: delivery.id,
                tenant_id: TenantId::DEFAULT,
                destination_id: delivery.destination_id,
                event_id,
                lease: None,
            },
            attempt: attempt.clone(),
            next: Next::Delivered,
        })
        .collect()
}
