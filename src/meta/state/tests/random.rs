//! Random operations against a reference of the namespace in memory: same answers, same tree, same bytes.

use std::collections::BTreeMap;

use super::*;
use crate::types::attr::FileKind;
use crate::types::id::StoreId;
use crate::types::op::FallocateMode;
use crate::types::record::MetaInfo;

/// Operations of the long run, and how many go by between two looks at everything.
const STEPS: usize = 10_000;
const LOOK_EVERY: usize = 100;
/// Inodes that the reference holds at most: names are few, so collisions are many.
const INODES_MAX: usize = 60;

/// A small, seeded source of numbers.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn name(&mut self) -> Name {
        name(self.of(&["a", "b", "c", "d", "e", "f"]))
    }

    /// A place in the first four blocks.
    fn offset(&mut self) -> u64 {
        let fine = self.of(&[0, 0, 1, 100, CHUNK / 2, CHUNK - 1]);
        self.below(4) * CHUNK + fine
    }
}

/// What an operation may be about: mostly of the kind it is for.
pub struct Cast {
    dirs: Vec<Ino>,
    others: Vec<Ino>,
}

impl Cast {
    fn dir(&self, dice: &mut Dice) -> Ino {
        self.pick(dice, 19)
    }

    fn other(&self, dice: &mut Dice) -> Ino {
        self.pick(dice, 1)
    }

    /// A directory `dirs_of_20` times out of twenty.
    fn pick(&self, dice: &mut Dice, dirs_of_20: u64) -> Ino {
        let wants_dir = dice.below(20) < dirs_of_20;
        dice.of(if wants_dir { &self.dirs } else { &self.others })
    }
}

pub fn random_op(dice: &mut Dice, cast: &Cast) -> Op {
    let (dir, to_dir) = (cast.dir(dice), cast.dir(dice));
    let (ino, other) = (cast.other(dice), cast.other(dice));
    let (offset, len) = (dice.offset(), dice.offset() + 1);
    match dice.below(20) {
        0..=2 => create(dir, &text(&dice.name()), NewNode::File, 0o644),
        3..=4 => create(dir, &text(&dice.name()), NewNode::Dir, 0o755),
        5 => create(dir, &text(&dice.name()), NewNode::Symlink(b"t".to_vec()), 0),
        6 => Op::Link { ino, dir, name: dice.name() },
        7..=8 => Op::Unlink { dir, name: dice.name() },
        9 => Op::Rmdir { dir, name: dice.name() },
        10..=12 => {
            let (from, to) = (dice.name(), dice.name());
            let mode =
                dice.of(&[RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
            Op::Rename { from_dir: dir, from, to_dir, to, mode }
        }
        13 => Op::SetAttr { ino, set: SetAttr { size: Some(offset), ..SetAttr::default() } },
        14 => write(ino, WriteAt::Offset(offset), inline(&[dice.below(200) as u8 + 1; 70]), 70),
        15 => write(ino, WriteAt::End, chunk(dice.below(8) as u8 + 1, u64::MAX), 1000),
        16 => write(ino, WriteAt::Offset(offset), chunk(dice.below(8) as u8 + 1, u64::MAX), len.min(CHUNK) as u32),
        17 => Op::CopyRange { from: ino, from_offset: offset, to: other, to_offset: dice.offset(), len },
        _ => {
            let keep_size = dice.below(2) == 0;
            let modes =
                [FallocateMode::Punch, FallocateMode::Zero { keep_size }, FallocateMode::Allocate { keep_size }];
            Op::Fallocate { ino, mode: dice.of(&modes), offset, len }
        }
    }
}

fn text(name: &Name) -> String {
    String::from_utf8(name.as_bytes().to_vec()).unwrap()
}

/// A run of commands of every kind, for replicas to agree on.
pub fn commands(seed: u64, count: usize) -> Vec<Command> {
    let mut dice = Dice::new(seed);
    let now = |i: usize| Time { sec: i as i64, nsec: 0 };
    let open = |i| Command::OpenSession {
        volume: "v".into(),
        client: "c".into(),
        role: Role::Client,
        credential: 1,
        read_only: false,
        after: None,
        attempt: i as u64,
        now: now(i),
    };
    let mut all = vec![
        Command::CreateVolume { volume: NewVolume { policy: policy(), ..NewVolume::named("v") }, now: now(0) },
        open(1),
        open(2),
    ];
    let inos: Vec<_> = (1..60).map(Ino).collect();
    let cast = Cast { dirs: [1; 20].into_iter().chain(2..30).map(Ino).collect(), others: inos.clone() };
    while all.len() < count {
        let i = all.len();
        let session = SessionId(dice.below(2) + 1);
        all.push(match dice.below(40) {
            0 => Command::Reap { tree: TreeId(1), inos: inos.clone() },
            1 => Command::Condemn { chunks: (1..9).map(|seed| ChunkId([seed; 32])).collect() },
            2 => Command::ConfirmDelete { store: StoreId(1), epochs: (0..20).collect() },
            3 => Command::AddMeta { info: MetaInfo::default() },
            4 => open(i),
            _ => {
                let ops = (0..dice.below(3) + 1).map(|_| random_op(&mut dice, &cast)).collect();
                Command::Change { session, sequence: i as u64, acknowledged: i as u64 - 1, now: now(i), ops }
            }
        });
    }
    all
}

/// One inode of the reference.
struct Node {
    kind: FileKind,
    nlink: u32,
    parent: Ino,
    names: BTreeMap<Name, Ino>,
    data: Vec<u8>,
}

/// The reference: what POSIX says, without any of our structures.
struct Model {
    nodes: BTreeMap<Ino, Node>,
    next: u64,
}

type Told = Result<(), FsError>;

impl Model {
    fn new() -> Model {
        let root = Node { kind: FileKind::Dir, nlink: 2, parent: ROOT, names: BTreeMap::new(), data: Vec::new() };
        Model { nodes: BTreeMap::from([(ROOT, root)]), next: 2 }
    }

    /// Everything there is, and one inode that is not.
    fn cast(&self) -> Cast {
        let (dirs, mut others): (Vec<_>, Vec<_>) = self.nodes.keys().partition(|ino| self.is_dir(**ino));
        others.push(Ino(1 << 40));
        Cast { dirs, others }
    }

    fn node(&mut self, ino: Ino) -> Result<&mut Node, FsError> {
        self.nodes.get_mut(&ino).ok_or(FsError::NotFound)
    }

    fn dir(&mut self, ino: Ino) -> Result<&mut Node, FsError> {
        let node = self.node(ino)?;
        if node.kind == FileKind::Dir { Ok(node) } else { Err(FsError::NotDirectory) }
    }

    fn growing(&mut self, ino: Ino) -> Result<&mut Node, FsError> {
        let dir = self.dir(ino)?;
        if dir.nlink > 0 { Ok(dir) } else { Err(FsError::NotFound) }
    }

    fn file(&mut self, ino: Ino) -> Result<&mut Node, FsError> {
        let node = self.node(ino)?;
        match node.kind {
            FileKind::File => Ok(node),
            FileKind::Dir => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        }
    }

    fn find(&mut self, dir: Ino, name: &Name) -> Result<Ino, FsError> {
        self.dir(dir)?.names.get(name).copied().ok_or(FsError::NotFound)
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.nodes[&ino].kind == FileKind::Dir
    }

    /// Puts an inode under a name, away from whatever held it.
    fn place(&mut self, dir: Ino, name: &Name, ino: Ino) {
        self.nodes.get_mut(&dir).unwrap().names.insert(name.clone(), ino);
        if self.is_dir(ino) {
            self.nodes.get_mut(&ino).unwrap().parent = dir;
        }
    }

    /// Counts links anew: directories by their subdirectories, everything else by its names.
    fn recount(&mut self) {
        let mut links: BTreeMap<Ino, u32> = BTreeMap::from([(ROOT, 1)]);
        let mut below: BTreeMap<Ino, u32> = BTreeMap::new();
        for (dir, node) in &self.nodes {
            for ino in node.names.values() {
                *links.entry(*ino).or_default() += 1;
                *below.entry(*dir).or_default() += u32::from(self.is_dir(*ino));
            }
        }
        for (ino, node) in &mut self.nodes {
            let named = links.get(ino).copied().unwrap_or_default();
            let of_dir = if named == 0 { 0 } else { 2 + below.get(ino).copied().unwrap_or_default() };
            node.nlink = if node.kind == FileKind::Dir { of_dir } else { named };
        }
    }

    fn apply(&mut self, op: &Op) -> Told {
        let told = match op {
            Op::Create(op) => self.create(op),
            Op::Link { ino, dir, name } => self.link(*ino, *dir, name),
            Op::Unlink { dir, name } => self.remove(*dir, name, false),
            Op::Rmdir { dir, name } => self.remove(*dir, name, true),
            Op::Rename { from_dir, from, to_dir, to, mode } => self.rename((*from_dir, from), (*to_dir, to), *mode),
            Op::SetAttr { ino, set } => self.resize(*ino, set.size.unwrap()),
            Op::Write(op) => self.write(op),
            Op::Fallocate { ino, mode, offset, len } => self.fallocate(*ino, *mode, *offset, *len),
            Op::CopyRange { from, from_offset, to, to_offset, len } => {
                self.copy((*from, *from_offset), (*to, *to_offset), *len)
            }
            other => panic!("not in the reference: {other:?}"),
        };
        self.recount();
        told
    }

    fn create(&mut self, op: &Create) -> Told {
        if self.growing(op.dir)?.names.contains_key(&op.name) {
            return Err(FsError::Exists);
        }
        let kind = match op.node {
            NewNode::File => FileKind::File,
            NewNode::Dir => FileKind::Dir,
            _ => FileKind::Symlink,
        };
        let ino = Ino(self.next);
        self.next += 1;
        self.nodes.insert(ino, Node { kind, nlink: 1, parent: op.dir, names: BTreeMap::new(), data: Vec::new() });
        self.place(op.dir, &op.name, ino);
        Ok(())
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &Name) -> Told {
        let taken = self.growing(dir)?.names.contains_key(name);
        let node = self.node(ino)?;
        match (node.kind, node.nlink) {
            (FileKind::Dir, _) => Err(FsError::NotPermitted),
            _ if taken => Err(FsError::Exists),
            (_, 0) => Err(FsError::NotFound),
            _ => {
                self.place(dir, name, ino);
                Ok(())
            }
        }
    }

    fn remove(&mut self, dir: Ino, name: &Name, wants_dir: bool) -> Told {
        let ino = self.find(dir, name)?;
        match (self.is_dir(ino), wants_dir) {
            (true, false) => return Err(FsError::IsDirectory),
            (false, true) => return Err(FsError::NotDirectory),
            _ if !self.nodes[&ino].names.is_empty() => return Err(FsError::NotEmpty),
            _ => {}
        }
        self.dir(dir)?.names.remove(name);
        Ok(())
    }

    fn is_below(&self, mut at: Ino, top: Ino) -> bool {
        loop {
            if at == top {
                return true;
            }
            if at == ROOT {
                return false;
            }
            at = self.nodes[&at].parent;
        }
    }

    fn rename(&mut self, from: (Ino, &Name), to: (Ino, &Name), mode: RenameMode) -> Told {
        self.growing(to.0)?;
        let moved = self.find(from.0, from.1)?;
        let target = self.find(to.0, to.1).ok();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            _ => {}
        }
        let swaps = mode == RenameMode::Exchange;
        if self.is_below(to.0, moved) || swaps && target.is_some_and(|target| self.is_below(from.0, target)) {
            return Err(FsError::Invalid);
        }
        if target == Some(moved) {
            return Ok(());
        }
        if let (Some(target), false) = (target, swaps) {
            match (self.is_dir(moved), self.is_dir(target)) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                _ if !self.nodes[&target].names.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        self.dir(from.0)?.names.remove(from.1);
        self.place(to.0, to.1, moved);
        if let (Some(target), true) = (target, swaps) {
            self.place(from.0, from.1, target);
        }
        Ok(())
    }

    fn resize(&mut self, ino: Ino, size: u64) -> Told {
        self.file(ino)?.data.resize(size as usize, 0);
        Ok(())
    }

    fn write(&mut self, op: &Write) -> Told {
        let file = self.file(op.ino)?;
        let start = match op.at {
            WriteAt::Offset(offset) => offset as usize,
            WriteAt::End => file.data.len(),
        };
        let end = start + op.len as usize;
        let size = file.data.len().max(end);
        file.data.resize(size, 0);
        match &op.pieces[0].source {
            Source::Inline(bytes) => file.data[start..end].copy_from_slice(bytes),
            Source::Chunk(part) => file.data[start..end].fill(part.id.0[0]),
            Source::Unwritten => unreachable!(),
        }
        Ok(())
    }

    fn fallocate(&mut self, ino: Ino, mode: FallocateMode, offset: u64, len: u64) -> Told {
        let file = self.file(ino)?;
        let (start, end) = (offset as usize, (offset + len) as usize);
        let (zeroes, grows) = match mode {
            FallocateMode::Punch => (true, false),
            FallocateMode::Zero { keep_size } => (true, !keep_size),
            FallocateMode::Allocate { keep_size } => (false, !keep_size),
        };
        if grows && file.data.len() < end {
            file.data.resize(end, 0);
        }
        let end = end.min(file.data.len());
        if zeroes && start < end {
            file.data[start..end].fill(0);
        }
        Ok(())
    }

    fn copy(&mut self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Told {
        let data = self.file(from.0)?.data.clone();
        self.file(to.0)?;
        let start = (from.1 as usize).min(data.len());
        let bytes = &data[start..(start + len as usize).min(data.len())];
        let (begin, end) = (to.1 as usize, to.1 as usize + bytes.len());
        if bytes.is_empty() {
            return Ok(());
        }
        if from.0 == to.0 && start < end && begin < start + bytes.len() {
            return Err(FsError::Invalid);
        }
        let file = self.file(to.0)?;
        let size = file.data.len().max(end);
        file.data.resize(size, 0);
        file.data[begin..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// A file's bytes, where every chunk is made of one byte.
fn bytes(world: &World, ino: Ino, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    for extent in world.extents(ino) {
        let range = extent.offset as usize..extent.end() as usize;
        match extent.source {
            Source::Chunk(part) => bytes[range].fill(part.id.0[0]),
            Source::Inline(data) => bytes[range].copy_from_slice(&data),
            Source::Unwritten => {}
        }
    }
    bytes
}

/// Everything the reference knows is so.
fn compare(world: &World, model: &Model) {
    world.check();
    for (ino, node) in &model.nodes {
        let attr = world.attr(*ino);
        assert_eq!((attr.kind, attr.nlink), (node.kind, node.nlink), "inode {ino}");
        match node.kind {
            FileKind::Dir => {
                let page = world.state.view(|view| view.read_dir(world.tree, *ino, 0, 100)).unwrap();
                let names: BTreeMap<_, _> = page.entries.into_iter().map(|entry| (entry.name, entry.ino)).collect();
                assert_eq!(names, node.names, "directory {ino}");
            }
            FileKind::File => {
                assert_eq!(attr.size, node.data.len() as u64, "size of {ino}");
                assert!(bytes(world, *ino, attr.size) == node.data, "bytes of {ino}");
            }
            _ => {}
        }
    }
    let usage = world.state.view(|view| view.usage(world.tree)).unwrap();
    assert_eq!(usage.inodes, model.nodes.len() as u64);
}

#[test]
fn ten_thousand_operations_agree_with_the_reference() {
    let (mut world, mut model, mut dice) = (World::new(), Model::new(), Dice::new(42));
    world.checks = false;
    let (mut done, mut refused) = (0, 0);
    for step in 0..STEPS {
        let op = random_op(&mut dice, &model.cast());
        if matches!(op, Op::Create(_)) && model.nodes.len() >= INODES_MAX {
            let orphans: Vec<_> = model.nodes.iter().filter(|(_, node)| node.nlink == 0).map(|(ino, _)| *ino).collect();
            assert!(world.reap(&orphans).is_empty());
            model.nodes.retain(|_, node| node.nlink > 0);
            continue;
        }
        let expected = model.apply(&op);
        let told = world.op(op.clone()).map(drop);
        assert_eq!(told, expected, "step {step}: {op:?}");
        if told.is_ok() {
            done += 1
        } else {
            refused += 1
        }
        if step % LOOK_EVERY == 0 {
            compare(&world, &model);
        }
    }
    compare(&world, &model);
    assert!(done > STEPS / 4 && refused > STEPS / 10, "{done} done, {refused} refused: the mix is no test");
}
