//! What an earlier version left behind, moved to the day before yesterday: its rows, its messages, and what is to be found in them.
//!
//! Recorded dates would age: retention would drop them, deliveries would expire. So all of them are moved by the same number of
//! whole days: times, and the milliseconds that ids begin with. Lengths stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    metadata::MetadataTopic,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::Value;

use super::trial::LONG;

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// Ids of this time are moved. Those that every installation has (the default tenant) are far older.
const RECORDED: std::ops::Range<i64> = 1_700_000_000_000..2_500_000_000_000;

/// Where deliveries are.
const TOPIC: &str = "signalpost.deliveries";

/// How long Kafka may take to answer.
const SOON: Duration = Duration::from_secs(5);

/// The alphabet of ids.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The fixture of one schema.
pub struct Earlier {
    folder: PathBuf,
    /// The day on which it was recorded, in milliseconds since the epoch.
    recorded: i64,
    /// How far it is moved.
    moved_ms: i64,
}

impl Earlier {
    /// Reads the one of that name.
    pub fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let expected = fs::read_to_string(folder.join("expected.json")).expect("a fixture");
        let ids = expected.match_indices("evt_").filter_map(|(at, _)| millis(&expected.as_bytes()[at + 4..]));
        let recorded = ids.min().expect("an event") / MS_PER_DAY * MS_PER_DAY;
        #[allow(clippy::disallowed_methods, reason = "real processes live in real time")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let today = i64::try_from(now).expect("a time") / MS_PER_DAY * MS_PER_DAY;
        Self { folder, recorded, moved_ms: today - 2 * MS_PER_DAY - recorded }
    }

    /// The statements that make its database: schema, partitions, rows. `receiver`: where its destinations are now.
    pub fn sql(&self, receiver: &str) -> String {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
        let mut sql = fs::read_to_string(migrations.join("0001_schema.sql")).expect("the first schema");
        // As that version made them for a day.
        let day = self.recorded + self.moved_ms;
        let bound = |ms: i64| format!("{:08x}-{:04x}-0000-0000-000000000000", ms >> 16, ms & 0xffff);
        for table in ["events", "deliveries", "attempts"] {
            let room = if table == "deliveries" { " WITH (fillfactor = 50)" } else { "" };
            let name = format!("{table}_p{}", date(day).replace('-', ""));
            let (low, high) = (bound(day), bound(day + MS_PER_DAY));
            sql += &format!(
                "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE){room};
                 ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}');\n"
            );
        }
        for line in self.read("rows.sql").lines() {
            sql += &self.moved_row(line);
            sql.push('\n');
        }
        sql.replace("RECEIVER", receiver)
    }

    /// What is to be found in it.
    pub fn expected(&self) -> Value {
        let expected = self.read("expected.json");
        serde_json::from_str(&String::from_utf8(self.moved_ids(expected.into_bytes())).expect("text")).expect("JSON")
    }

    /// What was said at the time, byte for byte.
    pub fn said(&self) -> Value {
        serde_json::from_str(&self.read("expected.json")).expect("JSON")
    }

    /// Writes its messages to the topic; how many.
    pub fn publish(&self, brokers: &str) -> usize {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
        let messages = self.read("messages.ndjson");
        for line in messages.lines() {
            let moved = String::from_utf8(self.moved_ids(line.as_bytes().to_vec())).expect("text");
            let message: Value = serde_json::from_str(&moved).expect("JSON");
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let (head, data) = (text(&message["head"]), text(&message["data"]));
            let mut value = u32::try_from(head.len()).expect("a short head").to_be_bytes().to_vec();
            value.extend_from_slice(head.as_bytes());
            value.extend_from_slice(data.as_bytes());
            let mut headers = OwnedHeaders::new();
            for header in message["headers"].as_array().expect("headers") {
                headers = headers.insert(Header { key: &text(&header[0]), value: Some(&text(&header[1])) });
            }
            let key = text(&message["key"]);
            // What was handed over before the oldest message on the bus counts as lost, so its time matters.
            let handed_over = millis(&head.as_bytes()[head.find("dlv_").expect("a delivery") + 4..]).expect("its time");
            let record = BaseRecord::to(TOPIC).key(&key).payload(&value).headers(headers);
            let record = record.timestamp(handed_over);
            producer.send(record).map_err(|(error, _)| error).expect("sent");
        }
        producer.flush(LONG).expect("acknowledged");
        messages.lines().count()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).expect("a file of the fixture")
    }

    /// One line of SQL: dates, UUIDs, TypeIDs, and lists of ids as bytes.
    fn moved_row(&self, line: &str) -> String {
        let mut bytes = self.moved_ids(line.as_bytes().to_vec());
        if line.starts_with("INSERT INTO public.outbox") || line.starts_with("INSERT INTO public.fan_outs") {
            let list = line.find("'\\x").expect("a list of ids") + 3;
            let end = list + line[list..].find('\'').expect("its end");
            for id in bytes[list..end].chunks_mut(32) {
                move_hex(&mut id[..12], self.moved_ms);
            }
        }
        let text = String::from_utf8(bytes).expect("text");
        let later = |days: i64| {
            (date(self.recorded + days * MS_PER_DAY), date(self.recorded + self.moved_ms + days * MS_PER_DAY))
        };
        if line.starts_with("INSERT INTO public.idempotency") {
            // A key is remembered for a day, and for longer than that the fixture is looked at.
            let ((expires, _), (_, moved)) = (later(1), later(4));
            return text.replace(&format!("'{expires} "), &format!("'{moved} "));
        }
        let (on, day) = (later(0), later(1));
        // A lease or a retry may end on the day after.
        text.replace(&format!("'{} ", on.0), &format!("'{} ", on.1))
            .replace(&format!("'{} ", day.0), &format!("'{} ", day.1))
    }

    /// UUIDs (`01a1fe12-acaf-7940-…`) and TypeIDs (`evt_01m7…`) with their milliseconds moved.
    fn moved_ids(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for at in 0..bytes.len() {
            if let Some(uuid) = bytes.get_mut(at..at + 36).filter(|uuid| is_uuid(uuid)) {
                let mut hex: Vec<u8> = uuid[..8].iter().chain(&uuid[9..13]).copied().collect();
                move_hex(&mut hex, self.moved_ms);
                uuid[..8].copy_from_slice(&hex[..8]);
                uuid[9..13].copy_from_slice(&hex[8..]);
            }
            let is_prefix =
                [&b"evt_"[..], b"dst_", b"dlv_", b"rpl_"].iter().any(|prefix| bytes[at..].starts_with(prefix));
            if is_prefix && let Some(ms) = millis(&bytes[at + 4..]) {
                for (place, digit) in bytes[at + 4..at + 14].iter_mut().rev().enumerate() {
                    *digit = BASE32[((ms + self.moved_ms) >> (5 * place) & 31) as usize];
                }
            }
        }
        bytes
    }
}

/// Whether the dispatchers have consumed and committed all that is on the topic.
///
/// # Errors
/// They have not; how far they are.
pub fn all_consumed(brokers: &str) -> Result<(), String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "signalpost-dispatchers")
        .create()
        .map_err(|error| error.to_string())?;
    let told = |error: KafkaError| error.to_string();
    let metadata = consumer.fetch_metadata(Some(TOPIC), SOON).map_err(told)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        list.add_partition(TOPIC, partition.id());
    }
    for committed in consumer.committed_offsets(list, SOON).map_err(told)?.elements() {
        let (low, high) = consumer.fetch_watermarks(TOPIC, committed.partition(), SOON).map_err(told)?;
        let next = committed.offset().to_raw().map_or(low, |offset| offset.max(low));
        if next < high {
            return Err(format!("partition {}: {next} of {high}", committed.partition()));
        }
    }
    Ok(())
}

/// The milliseconds that a TypeID begins with, behind its prefix: 48 bits in ten digits.
fn millis(digits: &[u8]) -> Option<i64> {
    let digits = digits.get(..10)?;
    let ms = digits
        .iter()
        .try_fold(0, |ms, digit| Some(ms << 5 | BASE32.iter().position(|known| known == digit)? as i64))?;
    RECORDED.contains(&ms).then_some(ms)
}

fn is_uuid(bytes: &[u8]) -> bool {
    let is_dash = |place: usize| [8, 13, 18, 23].contains(&place);
    bytes.iter().enumerate().all(|(place, byte)| if is_dash(place) { *byte == b'-' } else { byte.is_ascii_hexdigit() })
        && bytes[14] == b'7'
}

fn move_hex(hex: &mut [u8], by_ms: i64) {
    let ms = std::str::from_utf8(hex).ok().and_then(|hex| i64::from_str_radix(hex, 16).ok()).expect("hex digits");
    if RECORDED.contains(&ms) {
        hex.copy_from_slice(format!("{:012x}", ms + by_ms).as_bytes());
    }
}

/// `2026-11-21`. Days to a date, after Howard Hinnant's `civil_from_days`.
fn date(ms: i64) -> String {
    let days = ms / MS_PER_DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
