//! The receiver of a load: light enough not to be what is measured. Each path is a number, has a behaviour of its own, and
//! every request is an entry in a log in memory. It verifies no signatures: the end-to-end tests do.

mod behaviour;
mod log;
mod server;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, RwLock},
};

pub use behaviour::{Behaviour, Failure};
pub use log::{Entry, Log};
use server::Server;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::epoch::Epoch;

/// A running receiver; stops when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    addr: SocketAddr,
    server: Arc<Server>,
    _stop: DropGuard,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(epoch: Epoch) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let server = Arc::new(Server { epoch, log: Log::default(), behaviours: RwLock::default() });
        let stop = CancellationToken::new();
        tokio::spawn(server::accept(listener, Arc::clone(&server), stop.clone()));
        Ok(Self { addr, server, _stop: stop.drop_guard() })
    }

    /// A new path with that behaviour: its number.
    pub fn path(&self, behaviour: Behaviour) -> u32 {
        let mut behaviours = self.server.behaviours.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        behaviours.push(behaviour);
        u32::try_from(behaviours.len() - 1).unwrap_or(u32::MAX)
    }

    /// The URL of a path.
    pub fn url(&self, path: u32) -> String {
        format!("http://{}/{path}", self.addr)
    }

    /// What came.
    pub fn log(&self) -> &Log {
        &self.server.log
    }
}
