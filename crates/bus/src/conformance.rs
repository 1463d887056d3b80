//! What every bus must do: [`exercise`] it.
//!
//! The cases rely on nothing but the port. A case waits for a condition, with [`DEADLINE`]; none waits for a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use signalpost_core::{
    Clock, DeliveryId, DestinationId, Entropy, Event, EventId, EventMeta, Guarantee, TenantId, Timestamp,
};

use crate::{Bus, BusError, Consumer, Delivered, Message, Origin, Payload, Place};

/// How long a condition may take to come true. Groups of consumers take their time on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the cases need besides a bus.
#[derive(Debug, Clone)]
pub struct World {
    /// The clock that the bus uses, too.
    pub clock: Arc<dyn Clock>,
    /// For ids.
    pub entropy: Arc<dyn Entropy>,
}

/// Runs every case, each on a new and empty bus from the factory.
///
/// # Panics
/// The bus does not do what it must.
pub async fn exercise<F: AsyncFn() -> Arc<dyn Bus>>(factory: F, world: &World) {
    carries_messages_whole(&*factory().await, world).await;
    tells_how_far_it_is(&*factory().await, world).await;
    gives_what_a_consumer_left_to_the_next(&*factory().await, world).await;
    ignores_commits_that_do_not_count(&*factory().await, world).await;
    shares_work_between_consumers(factory().await, world).await;
    loses_nothing_when_receiving_is_cancelled(factory().await, world).await;
    takes_concurrent_and_cancelled_publishers(factory().await, world).await;
}

impl World {
    fn message(&self, destination_id: DestinationId, data: Bytes) -> Arc<Message> {
        let now = self.clock.now();
        let event = Event {
            id: EventId::new(now, &*self.entropy),
            tenant_id: TenantId::DEFAULT,
            event_type: "order.created".to_owned(),
            uid: None,
            source: Some("conformance".to_owned()),
            meta: EventMeta { ordering_key: Some("ä\0\"".to_owned()), ..EventMeta::default() },
            data,
        };
        let (event, payload) = Message::carry(Arc::new(event));
        Arc::new(Message {
            delivery_id: DeliveryId::new(now, &*self.entropy),
            tenant_id: TenantId::DEFAULT,
            destination_id,
            destination_version: 3,
            attempt: 1,
            origin: Origin::Fresh,
            event,
            payload,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
            born_at: None,
        })
    }

    /// To so many destinations.
    fn messages(&self, count: usize) -> Vec<Arc<Message>> {
        (0..count)
            .map(|_| {
                self.message(DestinationId::new(self.clock.now(), &*self.entropy), Bytes::from_static(b"{\"n\":1}"))
            })
            .collect()
    }
}

fn ids(messages: &[Arc<Message>]) -> BTreeSet<DeliveryId> {
    messages.iter().map(|message| message.delivery_id).collect()
}

/// A small dispatcher: remembers what it received, and lets go of what it is to lose.
struct Member {
    consumer: Box<dyn Consumer>,
    got: Vec<(Place, Arc<Message>, bool)>,
}

impl Member {
    async fn join(bus: &dyn Bus) -> Self {
        Self {
            consumer: bus.consume().await.unwrap_or_else(|error| panic!("cannot consume: {error}")),
            got: Vec::new(),
        }
    }

    async fn receive(&mut self, most: usize) {
        match self.consumer.receive(most).await {
            Ok(items) => {
                assert!((1..=most).contains(&items.len()), "{} of at most {most}", items.len());
                for item in items {
                    self.take(item);
                }
            }
            // It heals by itself.
            Err(BusError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(BusError::Closed) => panic!("closed by nobody"),
        }
    }

    fn take(&mut self, item: Delivered) {
        match item {
            Delivered::Message { place, message, reread } => {
                let before = self.got.iter().filter(|(known, ..)| {
                    known.partition == place.partition && (known.epoch, known.offset) >= (place.epoch, place.offset)
                });
                assert_eq!(before.count(), 0, "{place:?} is not after what came before it");
                self.got.push((place, message, reread));
            }
            Delivered::Undecodable { error, .. } => panic!("undecodable: {error}"),
            Delivered::Revoked(partitions) => self.consumer.released(&partitions),
        }
    }

    fn ids(&self) -> BTreeSet<DeliveryId> {
        self.got.iter().map(|(_, message, _)| message.delivery_id).collect()
    }

    /// Receives until it has all of them.
    async fn receive_all(&mut self, wanted: &BTreeSet<DeliveryId>) {
        within("messages arrive", async {
            while !wanted.is_subset(&self.ids()) {
                self.receive(64).await;
            }
        })
        .await;
    }

    /// Commits everything that it has received.
    fn commit(&mut self) {
        let mut last = BTreeMap::new();
        for (place, ..) in &self.got {
            last.insert((place.partition, place.epoch), place.offset);
        }
        for ((partition, epoch), offset) in last {
            self.consumer.commit(Place { partition, epoch, offset: offset + 1 });
        }
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("within {DEADLINE:?}: {what}"))
}

async fn publish(bus: &dyn Bus, batch: &[Arc<Message>]) {
    within("the bus takes a batch", async {
        while let Err(error) = bus.publish(batch.to_vec()).await {
            assert!(matches!(error, BusError::Unavailable(_)), "{error}");
        }
    })
    .await;
}

async fn until_lag(bus: &dyn Bus, wanted: u64) {
    within(&format!("the lag is {wanted}"), async {
        while bus.lag().await != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Small, large, without data and by reference, from every origin: as they were.
async fn carries_messages_whole(bus: &dyn Bus, world: &World) {
    within("the bus is well", async {
        while bus.check().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    publish(bus, &[]).await;
    let mut batch = world.messages(3);
    let destination = batch[0].destination_id;
    for size in [0, 1, crate::message::MAX_INLINE_BYTES, crate::message::MAX_INLINE_BYTES + 1] {
        batch.push(world.message(destination, vec![b'x'; size].into()));
    }
    let leased_until = Timestamp::from_micros(world.clock.now().as_micros() + 1);
    batch.push(Arc::new(Message { attempt: 7, origin: Origin::Feed { leased_until }, ..(*batch[0]).clone() }));
    assert_eq!(batch.iter().filter(|message| message.payload == Payload::ByReference).count(), 1);
    // The feed publishes the same delivery again, so both are told apart by the attempt.
    publish(bus, &batch).await;
    let mut member = Member::join(bus).await;
    within("messages arrive", async {
        while member.got.len() < batch.len() {
            member.receive(3).await;
        }
    })
    .await;
    let key = |message: &Arc<Message>| (message.delivery_id, message.attempt);
    let mut sent: Vec<_> = batch.clone();
    let mut got: Vec<_> = member.got.iter().map(|(_, message, _)| Arc::clone(message)).collect();
    sent.sort_by_key(key);
    got.sort_by_key(key);
    assert_eq!(got, sent);
    member.consumer.close().await;
}

/// Lag and `consumed_until` before, during and after.
async fn tells_how_far_it_is(bus: &dyn Bus, world: &World) {
    until_lag(bus, 0).await;
    let batch = world.messages(40);
    publish(bus, &batch).await;
    let published_at = world.clock.now();
    until_lag(bus, 40).await;
    let until = within("it knows how far it is", known(bus)).await;
    assert!(until <= published_at, "{until} claims what nobody has consumed at {published_at}");

    let mut member = Member::join(bus).await;
    member.receive_all(&ids(&batch)).await;
    // Received is not done.
    until_lag(bus, 40).await;
    let until = within("it knows how far it is", known(bus)).await;
    assert!(until <= published_at, "{until} claims what is not committed at {published_at}");

    member.commit();
    until_lag(bus, 0).await;
    let until = within("it knows how far it is", known(bus)).await;
    assert!(until <= world.clock.now(), "{until} has not come yet");
    member.consumer.close().await;
}

async fn known(bus: &dyn Bus) -> Timestamp {
    loop {
        if let Some(until) = bus.consumed_until().await {
            return until;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What was committed is done with, what was not comes again, as a reread; closed or dropped.
async fn gives_what_a_consumer_left_to_the_next(bus: &dyn Bus, world: &World) {
    let destination = DestinationId::new(world.clock.now(), &*world.entropy);
    let batch: Vec<_> = (0..20).map(|_| world.message(destination, Bytes::from_static(b"1"))).collect();
    publish(bus, &batch).await;
    let mut first = Member::join(bus).await;
    first.receive_all(&ids(&batch)).await;
    // One destination, so one partition: offsets are in order.
    let (tenth, ..) = first.got[9];
    let left: BTreeSet<DeliveryId> = first.got[10..].iter().map(|(_, message, _)| message.delivery_id).collect();
    first.consumer.commit(Place { offset: tenth.offset + 1, ..tenth });
    until_lag(bus, 10).await;
    first.consumer.close().await;

    let mut second = Member::join(bus).await;
    second.receive_all(&left).await;
    assert_eq!(second.ids(), left);
    assert!(second.got.iter().all(|(_, _, reread)| *reread), "read before, so each is a suspect");
    drop(second.consumer);

    let mut third = Member::join(bus).await;
    third.receive_all(&left).await;
    assert!(third.got.iter().all(|(_, _, reread)| *reread), "read before, so each is a suspect");
    // What comes only now is not.
    let fresh = world.message(destination, Bytes::from_static(b"2"));
    publish(bus, &[Arc::clone(&fresh)]).await;
    third.receive_all(&BTreeSet::from([fresh.delivery_id])).await;
    assert!(third.got.iter().any(|(_, message, reread)| message.delivery_id == fresh.delivery_id && !reread));
    third.commit();
    until_lag(bus, 0).await;
    third.consumer.close().await;
}

/// Commits of other epochs and partitions, and ones that go back.
async fn ignores_commits_that_do_not_count(bus: &dyn Bus, world: &World) {
    let destination = DestinationId::new(world.clock.now(), &*world.entropy);
    let batch: Vec<_> = (0..6).map(|_| world.message(destination, Bytes::from_static(b"1"))).collect();
    publish(bus, &batch).await;
    let mut member = Member::join(bus).await;
    member.receive_all(&ids(&batch)).await;
    let (fourth, ..) = member.got[3];
    let next = Place { offset: fourth.offset + 1, ..fourth };
    member.consumer.commit(Place { epoch: next.epoch.wrapping_sub(1), offset: next.offset + 1, ..next });
    member.consumer.commit(Place { partition: next.partition + 1000, ..next });
    member.consumer.commit(next);
    member.consumer.commit(Place { offset: next.offset - 2, ..next });
    until_lag(bus, 2).await;
    member.consumer.close().await;
    let mut rest = Member::join(bus).await;
    rest.receive_all(&ids(&batch[4..])).await;
    assert_eq!(rest.ids(), ids(&batch[4..]));
    rest.consumer.close().await;
}

/// Members come and go while messages arrive: everything is received, and twice only as a reread.
async fn shares_work_between_consumers(bus: Arc<dyn Bus>, world: &World) {
    let (one, two) = (world.messages(150), world.messages(150));
    let mut first = Member::join(&*bus).await;
    publish(&*bus, &one).await;
    within("the first receives", async {
        while first.got.is_empty() {
            first.receive(10).await;
        }
    })
    .await;
    first.commit();
    let mut second = Member::join(&*bus).await;
    let publishing = publish(&*bus, &two);
    let all: BTreeSet<DeliveryId> = ids(&one).union(&ids(&two)).copied().collect();
    let receiving = within("both together receive everything", async {
        loop {
            let got: BTreeSet<DeliveryId> = first.ids().union(&second.ids()).copied().collect();
            if all.is_subset(&got) {
                break;
            }
            let (member, other) = (&mut first, &mut second);
            tokio::select! {
                () = member.receive(7) => {}
                () = other.receive(7) => {}
            }
            first.commit();
            second.commit();
        }
    });
    futures::join!(publishing, receiving);
    // A message that two have received was a reread for one of them at least.
    let mut times = BTreeMap::<DeliveryId, (u32, u32)>::new();
    for (_, message, reread) in first.got.iter().chain(&second.got) {
        let (all, rereads) = times.entry(message.delivery_id).or_default();
        *all += 1;
        *rereads += u32::from(*reread);
    }
    assert!(times.values().all(|(all, rereads)| all - rereads <= 1), "{times:?}");

    // The first leaves, the second goes on with all of it.
    first.consumer.close().await;
    let three = world.messages(60);
    publish(&*bus, &three).await;
    second.receive_all(&ids(&three)).await;
    second.commit();
    until_lag(&*bus, 0).await;
    second.consumer.close().await;
}

/// A dropped `receive` leaves what it would have given to the next.
async fn loses_nothing_when_receiving_is_cancelled(bus: Arc<dyn Bus>, world: &World) {
    let batch = world.messages(100);
    let mut member = Member::join(&*bus).await;
    let sending = async {
        for part in batch.chunks(5) {
            publish(&*bus, part).await;
            tokio::task::yield_now().await;
        }
    };
    let receiving = within("messages arrive", async {
        let mut polls = 0_u32;
        while member.got.len() < batch.len() {
            polls += 1;
            // Polled once to four times, then dropped.
            let _either = futures::future::select(
                Box::pin(member.receive(3)),
                Box::pin(async {
                    for _ in 0..polls % 4 {
                        tokio::task::yield_now().await;
                    }
                    tokio::time::sleep(Duration::from_micros(u64::from(polls % 50))).await;
                }),
            )
            .await;
        }
    });
    futures::join!(sending, receiving);
    assert_eq!(member.ids(), ids(&batch));
    member.consumer.close().await;
}

/// Many publish at once, some give up at any point: what was acknowledged arrives, and the bus goes on.
async fn takes_concurrent_and_cancelled_publishers(bus: Arc<dyn Bus>, world: &World) {
    let batches: Vec<_> = (0..24).map(|_| world.messages(20)).collect();
    let sent = join_all(batches.iter().enumerate().map(|(number, batch)| {
        let bus = Arc::clone(&bus);
        async move {
            if number < 8 {
                let gives_up = Duration::from_micros(u64::try_from(number).unwrap_or(0) * 100);
                let given_up = tokio::time::timeout(gives_up, bus.publish(batch.clone())).await;
                matches!(given_up, Ok(Ok(())))
            } else {
                publish(&*bus, batch).await;
                true
            }
        }
    }))
    .await;
    let acknowledged: BTreeSet<DeliveryId> =
        batches.iter().zip(sent).filter(|(_, sent)| *sent).flat_map(|(batch, _)| ids(batch)).collect();
    assert!(acknowledged.len() >= 16 * 20);
    let mut member = Member::join(&*bus).await;
    member.receive_all(&acknowledged).await;
    member.consumer.close().await;
}
