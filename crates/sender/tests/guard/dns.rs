//! A name server that answers as it is told, and may tell something else every time.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What a name has.
#[derive(Debug, Clone)]
pub enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// Another name.
    Alias(&'static str),
}

/// An address.
pub fn at(address: &str) -> Record {
    address.parse().map(Record::A).or_else(|_| address.parse().map(Record::Aaaa)).unwrap()
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Rule {
    /// These records.
    Has(Vec<Record>),
    /// Each time the next of these, round and round.
    Turns(Vec<Vec<Record>>),
    /// This code: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    Fails(u8),
    /// Nothing.
    Silent,
}

#[derive(Default)]
struct Zone {
    rules: HashMap<&'static str, Rule>,
    /// Questions for addresses of IPv4, by name.
    asked: HashMap<String, usize>,
}

/// The name server at 127.0.0.1, for as long as the process runs.
pub struct Dns(Arc<Mutex<Zone>>);

impl Dns {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let ours = Arc::clone(&zone);
        thread::spawn(move || {
            let mut packet = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut packet).unwrap();
                if let Some(answer) = ours.lock().unwrap().answer(&packet[..length]) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self(zone)
    }

    pub fn set(&self, name: &'static str, rule: Rule) {
        self.0.lock().unwrap().rules.insert(name, rule);
    }

    pub fn asked(&self, name: &str) -> usize {
        self.0.lock().unwrap().asked.get(name).copied().unwrap_or_default()
    }
}

impl Zone {
    /// The answer to a packet with one question (RFC 1035, 4.1).
    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut labels = Vec::new();
        let mut position = 12;
        while packet[position] != 0 {
            let length = usize::from(packet[position]);
            labels.push(String::from_utf8_lossy(&packet[position + 1..=position + length]).to_lowercase());
            position += length + 1;
        }
        let name = labels.join(".");
        let kind = u16::from_be_bytes([packet[position + 1], packet[position + 2]]);
        let question = &packet[12..position + 5];
        if kind == A {
            *self.asked.entry(name.clone()).or_default() += 1;
        }
        let (code, records) = match self.rules.get(name.as_str()).cloned() {
            None => (3, Vec::new()),
            Some(Rule::Silent) => return None,
            Some(Rule::Fails(code)) => (code, Vec::new()),
            Some(Rule::Has(records)) => (0, self.chain(&name, records)),
            Some(Rule::Turns(turns)) => {
                let turn = self.asked.get(&name).copied().unwrap_or_default().saturating_sub(1);
                (0, turns[turn % turns.len()].iter().map(|record| (name.clone(), record.clone())).collect())
            }
        };
        let wanted: Vec<_> = records.iter().filter_map(|(owner, record)| encode(owner, record, kind)).collect();
        let mut answer = packet[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(wanted.len()).unwrap(), 0, 0, 0, 0]);
        answer.extend(question);
        answer.extend(wanted.concat());
        Some(answer)
    }

    /// The records, and behind an alias those of the other name.
    fn chain(&self, name: &str, records: Vec<Record>) -> Vec<(String, Record)> {
        let mut all = Vec::new();
        for record in records {
            let alias = if let Record::Alias(other) = record { Some(other) } else { None };
            all.push((name.to_owned(), record));
            if let Some(other) = alias
                && let Some(Rule::Has(records)) = self.rules.get(other)
            {
                all.extend(self.chain(other, records.clone()));
            }
        }
        all
    }
}

/// A record, where it answers a question for this kind.
fn encode(owner: &str, record: &Record, wanted: u16) -> Option<Vec<u8>> {
    let (kind, data) = match record {
        Record::A(address) => (A, address.octets().to_vec()),
        Record::Aaaa(address) => (AAAA, address.octets().to_vec()),
        Record::Alias(other) => (CNAME, name(other)),
    };
    if kind != wanted && kind != CNAME {
        return None;
    }
    let mut bytes = name(owner);
    // Class IN; to be forgotten at once.
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 0]);
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    Some(bytes)
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
