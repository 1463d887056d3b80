//! The host at the other end of the wire, in a network name space of its own. It has every address but ours, so it is the
//! metadata service, every internal host and the whole internet at once. It counts packets and connections.
//!
//! Interfaces ask for no neighbours and announce nothing (no ARP, no IPv6 of their own accord), so that a packet that
//! arrives is one that somebody sent there.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _, stdin},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::isolated::{PUBLIC, child, shell};

/// One hardware address for both ends: an interface without ARP sends to its own.
const BOTH_ENDS: &str = "address 02:00:00:00:00:01 addrgenmode none arp off multicast off up";
/// Begins what the host tells; the test harness tells things, too.
const TELLS: &str = "host: ";

/// The host, seen from the test. Ends with it.
pub struct Host {
    child: Child,
    asks: ChildStdin,
    tells: Lines<BufReader<ChildStdout>>,
}

/// What has arrived at the host since it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub packets: usize,
    pub connections: usize,
}

impl Seen {
    pub const NOTHING: Self = Self { packets: 0, connections: 0 };
}

impl Host {
    /// Starts it and lays the wire.
    pub fn start(test: &str) -> Self {
        let mut child = child(test, "host", &["-n"]).stdin(Stdio::piped()).spawn().unwrap();
        let asks = child.stdin.take().unwrap();
        let tells = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut host = Self { child, asks, tells };
        assert_eq!(host.told(), "here");
        let pid = host.child.id();
        shell(&format!(
            "ip link add t0 type veth peer name p0; ip link set p0 netns {pid}; ip link set t0 {BOTH_ENDS}
             ip route add default dev t0; ip -6 addr add 2001:db8::1/128 dev lo nodad; ip -6 route add default dev t0"
        ));
        host.ask();
        assert_eq!(host.told(), "ready");
        host
    }

    /// What it has seen.
    pub fn seen(&mut self) -> Seen {
        self.ask();
        let told = self.told();
        let (packets, connections) = told.split_once(' ').unwrap();
        Seen { packets: packets.parse().unwrap(), connections: connections.parse().unwrap() }
    }

    fn ask(&mut self) {
        self.asks.write_all(b"\n").unwrap();
    }

    fn told(&mut self) -> String {
        loop {
            let line = self.tells.next().unwrap().unwrap();
            if let Some((_, told)) = line.split_once(TELLS) {
                return told.to_owned();
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Is the host, until nobody asks any more.
pub fn be() {
    let mut asked = stdin().lines();
    println!("\n{TELLS}here");
    let _ask = asked.next();
    // What comes here is for us, whatever its address.
    shell(&format!(
        "ip link set lo up; ip link set p0 {BOTH_ENDS}
         ip route add local default dev lo table main; ip -6 route add local default dev lo table main
         ip route add {PUBLIC}/32 dev p0; ip -6 route add 2001:db8::/64 dev p0"
    ));
    let connections = Arc::new(AtomicUsize::new(0));
    for port in [80, 443, 8080] {
        let listener = TcpListener::bind(("::", port)).unwrap();
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                answer(stream.unwrap());
            }
        });
    }
    println!("{TELLS}ready");
    for _ask in asked {
        println!("{TELLS}{} {}", packets(), connections.load(Ordering::SeqCst));
    }
}

fn answer(mut stream: TcpStream) {
    if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nhost");
    }
}

/// Packets that our end of the wire has received.
fn packets() -> usize {
    let table = fs::read_to_string("/proc/net/dev").unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("p0:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
