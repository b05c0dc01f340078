//! The state of a metadata server on its index on disk, without log, network and others.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use holdfast::kv::SharedKv;
use holdfast::kv::sled::{Sizes, SledKv};
use holdfast::meta::command::{Command, Outcome};
use holdfast::meta::raft::Machine;
use holdfast::meta::state::State;
use holdfast::types::attr::Time;
use holdfast::types::id::{Ino, SessionId};
use holdfast::types::name::Name;
use holdfast::types::op::{Create, NewNode, Op};
use holdfast::types::record::Role;
use holdfast::types::volume::NewVolume;

pub const NOW: Time = Time { sec: 1_000_000, nsec: 0 };

/// One replica's state on its index on disk, and a session.
pub struct Replica {
    pub state: State,
    sequence: Cell<u64>,
}

impl Replica {
    pub fn new(dir: &Path, sizes: Sizes) -> Replica {
        let kv: SharedKv = Arc::new(SledKv::open_with(dir, sizes).expect("an index"));
        let replica = Replica { state: State::new(kv), sequence: Cell::new(0) };
        replica.apply(&Command::CreateVolume { volume: NewVolume::named("v"), now: NOW });
        replica.apply(&Command::OpenSession {
            volume: "v".into(),
            client: "bench".into(),
            role: Role::Client,
            credential: 1,
            read_only: false,
            after: None,
            attempt: 1,
            now: NOW,
        });
        replica
    }

    pub fn apply(&self, command: &Command) -> Outcome {
        self.apply_encoded(command.encode())
    }

    pub fn apply_encoded(&self, command: Vec<u8>) -> Outcome {
        let position = self.sequence.get().to_be_bytes();
        let outcomes = self.state.apply(&position, &[command]).expect("applied");
        Outcome::decode(&outcomes[0]).expect("an outcome")
    }

    /// The next command of the session, encoded as it comes from the log.
    pub fn change(&self, ops: Vec<Op>) -> Vec<u8> {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        Command::Change { session: SessionId(1), sequence, acknowledged: sequence, now: NOW, ops }.encode()
    }
}

pub fn make(dir: Ino, name: &str, node: NewNode) -> Op {
    let name = Name::new(name.to_owned()).expect("a name");
    Op::Create(Create { dir, name, node, mode: 0o755, umask: 0o022, uid: 0, gid: 0, exclusive: false, ino: None })
}
