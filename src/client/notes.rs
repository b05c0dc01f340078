//! Noting for the next client on this mount what this one takes ([`super::kept::taken`]), and putting it back.
//!
//! Nothing is noted where there is no next client: then everything here does nothing, and there is always room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::calls;
use super::core::Core;
use super::dirty::pieces;
use super::inode::{Node, State, lock_all};
use super::journal::Change;
use super::kept::Kept;
use super::kept::log::{Held, Left, Noted};
use super::kept::taken::{CallPart, Changed, Taken, Written};
use super::ops::was_written;
use crate::types::attr::Time;
use crate::types::id::Ino;
use crate::types::limits::JOURNAL_DATA_BYTES_MAX;
use crate::types::op::{Dated, Op};
use crate::types::session::{Hold, Lease};

impl Core {
    /// Notes a write, each of its pieces by itself; `once`: for the call at hand, which must not be done twice. `None`: there is no
    /// room.
    pub fn note_data(&self, of: &Written<&[u8]>, once: bool) -> Option<Vec<Noted>> {
        let Some(kept) = &self.config.kept else { return Some(Vec::new()) };
        let call = if once { calls::current() } else { None };
        let end = of.offset + of.bytes.len() as u64;
        let note = |(offset, bytes): (u64, &[u8])| {
            let is_last = offset + bytes.len() as u64 == end;
            let call = call.as_ref().map(|call| CallPart { call: call.number(), is_last });
            kept.takes_data(&Written { offset, bytes, call, ..*of })
        };
        let noted: Option<Vec<_>> = pieces(of.offset, of.bytes, self.block_bytes).map(note).collect();
        let Some(noted) = noted else {
            self.memory.press();
            return None;
        };
        let (noted, unanswered): (Vec<Noted>, Vec<Option<Noted>>) = noted.into_iter().unzip();
        if let Some(call) = call {
            call.keeps(unanswered.into_iter().flatten());
        }
        Some(noted)
    }

    /// Notes a change. There is always room for one that was begun while there was room ([`Core::may_note_changes`]).
    pub fn note_change(&self, at: Time, op: &Op, nodes: &[&Arc<Node>]) -> Option<Noted> {
        let kept = self.config.kept.as_ref()?;
        let inos: Vec<Ino> = nodes.iter().map(|node| node.ino).collect();
        let call = calls::current();
        let noted = kept.takes_change(&inos, &Dated { at, op: op.clone() }, call.as_ref().map(|call| call.number()));
        let Some((noted, unanswered)) = noted else {
            tracing::error!("if this process is killed now, a change that was made is lost");
            return None;
        };
        if let Some(call) = call {
            call.keeps(unanswered);
        }
        Some(noted)
    }

    pub fn may_note_changes(&self) -> bool {
        self.config.kept.as_ref().is_none_or(|kept| kept.may_change())
    }

    /// What is noted should be stored soon.
    pub fn notes_are_tight(&self) -> bool {
        self.config.kept.as_ref().is_some_and(|kept| kept.log().is_tight())
    }

    /// Returns when there is room again. To be called before it is known that there is none.
    pub fn room_for_notes(&self) -> impl Future<Output = ()> + '_ {
        let room = self.config.kept.as_ref().map(|kept| kept.log().has_room().notified());
        async move {
            if let Some(room) = room {
                room.await;
            }
        }
    }
}

/// What a client before had taken, as it is put back.
#[derive(Default)]
pub struct PutBack {
    /// Of these something is lost.
    pub lost: BTreeSet<Ino>,
    /// The last record of the journal that was perhaps sent already.
    pub sent: u64,
}

impl Core {
    /// Puts back into buffers and journal what a client before has taken, as it had it: what was sealed in front of a change comes
    /// before it, and what was not, behind all changes. To be called when what is held is known, or assumed, and before
    /// anything is done. `knows_holds`: the leader has said what is held.
    pub fn put_back(self: &Arc<Self>, kept: &Kept, knows_holds: bool) -> PutBack {
        let mut put_back = PutBack::default();
        let sent = kept.shipping().map_or(0, |batch| batch.upto);
        let (sent_calls, session) = (kept.sent(), self.session().id());
        let all = kept.take_over();
        let whole = whole_calls(kept, &all);
        // By file, in order, each with the mark that its sealing has left.
        let mut waiting: BTreeMap<Ino, VecDeque<(u64, Written, Noted)>> = BTreeMap::new();
        for left in all {
            let what = kept.what(&left);
            let Left { at, mark, stored, answered } = left;
            match what {
                Ok(Taken::Data(piece)) => {
                    if let (Some(part), Some(noted)) = (piece.call, answered) {
                        if !whole.contains(&part.call) {
                            // It is done anew.
                            continue;
                        }
                        self.calls
                            .was_done_here(part.call, None, noted, || sent_calls.note_done(part.call, session, None));
                    }
                    if let Some(noted) = stored {
                        waiting.entry(piece.ino).or_default().push_back((mark, piece, noted));
                    }
                }
                Ok(Taken::Change(changed)) => {
                    if let (Some(call), Some(noted)) = (changed.call, answered) {
                        let made = made(&changed.dated.op);
                        self.calls.was_done_here(call, made, noted, || sent_calls.note_done(call, session, made));
                    }
                    let Some(noted) = stored else { continue };
                    self.put_back_sealed(&changed.inos, at, &mut waiting, knows_holds, &mut put_back.lost);
                    let inos = changed.inos.clone();
                    if !self.put_back_change(changed, noted, knows_holds) {
                        put_back.lost.extend(inos);
                    } else if at <= sent {
                        put_back.sent = self.journal.last();
                    }
                }
                Err(error) => tracing::error!(%error, "something that was taken cannot be read, and is lost"),
            }
        }
        for (_, piece, noted) in waiting.into_values().flatten() {
            if !self.put_back_data(&piece, noted, knows_holds) {
                put_back.lost.insert(piece.ino);
            }
        }
        put_back
    }

    /// What was written to these files, and sealed before the change that stands here.
    fn put_back_sealed(
        self: &Arc<Self>,
        inos: &[Ino],
        at: u64,
        waiting: &mut BTreeMap<Ino, VecDeque<(u64, Written, Noted)>>,
        knows_holds: bool,
        lost: &mut BTreeSet<Ino>,
    ) {
        for ino in inos {
            let Some(pieces) = waiting.get_mut(ino) else { continue };
            let sealed = pieces.iter().take_while(|(mark, ..)| *mark > 0 && *mark <= at).count();
            for (_, piece, noted) in pieces.drain(..sealed) {
                if !self.put_back_data(&piece, noted, knows_holds) {
                    lost.insert(piece.ino);
                }
            }
            let node = self.nodes.node(*ino);
            let mut state = node.lock();
            if !self.seal(&node, &mut state, JOURNAL_DATA_BYTES_MAX) {
                tracing::warn!(%ino, "what was written before a change may be stored after it");
            }
        }
    }

    /// `false`: it cannot be, as somebody else may have the file.
    fn put_back_data(&self, piece: &Written, noted: Noted, knows_holds: bool) -> bool {
        let node = self.nodes.node(piece.ino);
        {
            let mut state = node.lock();
            if !has_write_lease(&mut state, knows_holds) {
                return false;
            }
            self.memory.take_over(state.dirty.write(piece.offset, &piece.bytes, vec![noted]));
            was_written(&mut state, piece.mtime, piece.clear_privileges);
            state.dirty_since.get_or_insert_with(Instant::now);
        }
        self.dirty.lock().insert(piece.ino);
        true
    }

    fn put_back_change(self: &Arc<Self>, changed: Changed, noted: Noted, knows_holds: bool) -> bool {
        let Changed { mut inos, dated: Dated { at, op }, .. } = changed;
        inos.sort_unstable();
        inos.dedup();
        let nodes: Vec<Arc<Node>> = inos.iter().map(|ino| self.nodes.node(*ino)).collect();
        let made = if let Op::Create(_) = &op { made(&op) } else { None };
        let plain: Vec<&Node> = nodes.iter().map(|node| &**node).collect();
        let mut locked = lock_all(&plain);
        for ino in &inos {
            // Of what was made here nobody else can know.
            let knows = knows_holds && made != Some(*ino);
            let Some(state) = locked.of(*ino) else { return false };
            if !has_write_lease(state, knows) {
                return false;
            }
            if made == Some(*ino) {
                state.held.assume(Hold { lease: Lease::Write, open: true });
            }
        }
        let mut states: Vec<&mut State> = locked.iter_mut().collect();
        let nodes: Vec<&Arc<Node>> = nodes.iter().collect();
        self.append_noted(at, Change::Op(op), (&nodes, &mut states), Some(noted));
        true
    }

    /// Nothing that is noted ends before this is dropped: what is lost is first reported to whoever comes next.
    pub fn hold_notes(&self) -> Option<Held> {
        self.config.kept.as_ref().map(|kept| kept.log().hold())
    }

    /// What open files are to be told yet is told by the next client, if this one does not come to it.
    pub fn note_debts(&self) {
        let Some(kept) = &self.config.kept else { return };
        let _one_at_a_time = self.noting_debts.lock();
        if kept.owes(&self.files.debts()).is_err() {
            tracing::warn!("if this process is killed now, something that was lost is not reported");
        }
    }
}

/// Calls of which each piece is there: the process did not end in the middle of noting them.
fn whole_calls(kept: &Kept, all: &[Left]) -> BTreeSet<u64> {
    let last = |left: &Left| match kept.what(left) {
        Ok(Taken::Data(Written { call: Some(part), .. })) if part.is_last => Some(part.call),
        _ => None,
    };
    all.iter().filter(|left| left.answered.is_some()).filter_map(last).collect()
}

/// The inode that has a name by this.
fn made(op: &Op) -> Option<Ino> {
    match op {
        Op::Create(create) => create.ino,
        Op::Link { ino, .. } => Some(*ino),
        _ => None,
    }
}

/// The session in which it was taken has ended: nothing of it will come about.
pub fn give_up(kept: &Kept) -> PutBack {
    let mut lost = BTreeSet::new();
    for left in kept.take_over().iter().filter(|left| left.stored.is_some()) {
        match kept.what(left) {
            Ok(Taken::Data(piece)) => drop(lost.insert(piece.ino)),
            Ok(Taken::Change(changed)) => lost.extend(changed.inos),
            Err(error) => tracing::error!(%error, "something that was taken cannot be read, and is lost"),
        }
    }
    kept.has_shipped();
    PutBack { lost, sent: 0 }
}

/// It was changed under a Write lease, which is had still, unless the leader says otherwise.
fn has_write_lease(state: &mut State, knows_holds: bool) -> bool {
    if !knows_holds && state.held.lease() < Lease::Write {
        let open = state.held.hold().open;
        state.held.assume(Hold { lease: Lease::Write, open });
    }
    state.held.lease() == Lease::Write
}
