//! The group as a whole, in one process: toy machines over [`MemoryKv`], and a network that can be cut.

mod group;
mod single;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::node::{RaftConfig, RaftNode};
use super::{FrozenDump, Machine};
use crate::kv::memory::MemoryKv;
use crate::kv::{Batch, Kv};
use crate::net::{BoxFuture, Frame, NetError, Transport};
use crate::types::id::MetaId;
use crate::types::record::MetaInfo;

const POSITION: &[u8] = b"position";

/// A machine that keeps every command in a list; the reply is the command's number.
#[derive(Default)]
pub struct ToyMachine {
    store: Mutex<Option<MemoryKv>>,
}

impl ToyMachine {
    pub fn new() -> Arc<ToyMachine> {
        Arc::new(ToyMachine { store: Mutex::new(Some(MemoryKv::new())) })
    }

    /// Every command applied, in order.
    pub fn commands(&self) -> Vec<Vec<u8>> {
        let store = self.store.lock();
        let store = store.as_ref().expect("the machine is broken");
        store.scan(b"c", Some(b"d")).map(|pair| pair.unwrap().1).collect()
    }

    /// A machine that stands where this one stood: what an index on disk may have kept of it.
    pub fn copy(&self) -> Arc<ToyMachine> {
        let copy = MemoryKv::new();
        let mut batch = Batch::default();
        for pair in self.store.lock().as_ref().unwrap().scan(b"", None) {
            let (key, value) = pair.unwrap();
            batch.put(key, value);
        }
        copy.write(batch).unwrap();
        Arc::new(ToyMachine { store: Mutex::new(Some(copy)) })
    }

    /// Nothing works any more, as when the index does not open.
    pub fn break_down(&self) {
        *self.store.lock() = None;
    }

    /// Adds to the state what no log knows.
    pub fn tamper(&self, position: &[u8]) {
        let mut batch = Batch::default();
        batch.put(POSITION, position);
        self.store.lock().as_ref().unwrap().write(batch).unwrap();
    }
}

fn key(number: u64) -> Vec<u8> {
    [b"c".as_slice(), &number.to_be_bytes()].concat()
}

fn broken() -> io::Error {
    io::Error::other("the index is broken")
}

impl Machine for ToyMachine {
    fn position(&self) -> io::Result<Option<Vec<u8>>> {
        self.store.lock().as_ref().ok_or_else(broken)?.get(POSITION).map_err(io::Error::other)
    }

    fn apply(&self, position: &[u8], commands: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let store = self.store.lock();
        let store = store.as_ref().ok_or_else(broken)?;
        let first = store.scan(b"c", Some(b"d")).count() as u64;
        let mut batch = Batch::default();
        let numbers = first..first + commands.len() as u64;
        for (number, command) in numbers.clone().zip(commands) {
            batch.put(key(number), command.clone());
        }
        batch.put(POSITION, position);
        store.write(batch).map_err(io::Error::other)?;
        Ok(numbers.map(|number| number.to_be_bytes().to_vec()).collect())
    }

    fn dump(&self, out: &mut dyn io::Write) -> io::Result<()> {
        dump(&self.commands(), out)
    }

    /// Freezes every other time: both ways have to work.
    fn freeze(&self) -> io::Result<Option<FrozenDump>> {
        let commands = self.commands();
        Ok((commands.len().is_multiple_of(2))
            .then(|| Box::new(move |out: &mut dyn io::Write| dump(&commands, out)) as _))
    }

    fn load(&self, position: &[u8], input: &mut dyn io::Read) -> io::Result<()> {
        let mut store = self.store.lock();
        *store = Some(MemoryKv::new());
        let mut batch = Batch::default();
        for number in 0.. {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            if length == u32::MAX.to_le_bytes() {
                break;
            }
            let mut command = vec![0; u32::from_le_bytes(length) as usize];
            input.read_exact(&mut command)?;
            batch.put(key(number), command);
        }
        batch.put(POSITION, position);
        store.as_ref().ok_or_else(broken)?.write(batch).map_err(io::Error::other)
    }
}

fn dump(commands: &[Vec<u8>], out: &mut dyn io::Write) -> io::Result<()> {
    for command in commands {
        out.write_all(&(command.len() as u32).to_le_bytes())?;
        out.write_all(command)?;
    }
    out.write_all(&u32::MAX.to_le_bytes())
}

/// Everybody's transport: addresses are names, and any pair can be cut apart.
#[derive(Default)]
pub struct Hub {
    nodes: Mutex<BTreeMap<String, RaftNode>>,
    cut: Mutex<BTreeSet<(String, String)>>,
}

impl Hub {
    pub fn join(self: &Arc<Self>, address: &str) -> Arc<Link> {
        Arc::new(Link { hub: Arc::clone(self), address: address.to_string() })
    }

    pub fn plug(&self, address: &str, node: &RaftNode) {
        self.nodes.lock().insert(address.to_string(), node.clone());
    }

    pub fn unplug(&self, address: &str) {
        self.nodes.lock().remove(address);
    }

    /// Cuts both ways between two, or mends.
    pub fn cut(&self, one: &str, other: &str, is_cut: bool) {
        let mut cut = self.cut.lock();
        for pair in [(one, other), (other, one)] {
            let pair = (pair.0.to_string(), pair.1.to_string());
            if is_cut {
                cut.insert(pair)
            } else {
                cut.remove(&pair)
            };
        }
    }

    fn reach(&self, from: &str, to: &str) -> Option<RaftNode> {
        if self.cut.lock().contains(&(from.to_string(), to.to_string())) {
            return None;
        }
        self.nodes.lock().get(to).cloned()
    }
}

pub struct Link {
    hub: Arc<Hub>,
    address: String,
}

impl Transport for Link {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(async move {
            let unreachable = || NetError::Unreachable { address: address.to_string(), why: "cut".to_string() };
            let lost = || NetError::NoAnswer { address: address.to_string(), why: "lost".to_string() };
            let node = self.hub.reach(&self.address, address).ok_or_else(unreachable)?;
            // Served in a task of its own, as over a network: a caller that gives up does not undo it.
            let served = tokio::spawn(async move { node.serve(request).await });
            let reply = tokio::time::timeout(deadline, served).await.map_err(|_| lost())?.map_err(|_| lost())?;
            self.hub.reach(&self.address, address).ok_or_else(lost)?;
            Ok(reply)
        })
    }

    fn subscribe<'a>(&'a self, _: &'a str, _: Frame) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        unimplemented!("raft subscribes to nothing")
    }
}

pub fn info(id: u64) -> MetaInfo {
    MetaInfo { id: MetaId(id), address: format!("node-{id}") }
}

/// Fast enough for tests, and slow enough for a busy machine.
pub fn config(dir: &std::path::Path, id: u64) -> RaftConfig {
    RaftConfig {
        heartbeat_ms: 60,
        election_min_ms: 200,
        election_max_ms: 400,
        ..RaftConfig::new(dir.join(format!("node-{id}")), info(id))
    }
}

/// Waits until something holds; fails after long enough for any machine.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = tokio::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
