//! Raft's calls over the transport, from the calling side, and their form on the wire.
//!
//! A frame of `KIND_RAFT` carries one [`Request`] or [`Answer`] in postcard; the bytes of a snapshot travel as bulk.
//! Every request names the node it is for: an address that has changed hands must not answer for the node before.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::task;

use super::receive::SnapshotPart;
use super::snapshot::{SnapshotDir, SnapshotFile};
use super::types::{Leader, RaftVote, Types, from_bytes, to_bytes};
use crate::net::{Frame, NetError, Transport};
use crate::types::limits::BULK_BYTES_MAX;
use crate::types::record::MetaInfo;
use crate::wire::codec::KIND_RAFT;

/// How long the news of a commit waits for entries to go with. Nobody reads at followers; what they have not heard of by then
/// they apply a little later. Sent at once, it is a call to each follower for each command: 520 and 700 writes with `fsync` a
/// second, without and with the wait.
const COMMIT_GATHERING: Duration = Duration::from_millis(20);
/// One part of a snapshot.
const PART_BYTES: usize = 4 << 20;
/// A peer that has entries to write may take this long; heartbeats have their own, shorter deadline.
const APPEND_DEADLINE: Duration = Duration::from_secs(2);
const PART_DEADLINE: Duration = Duration::from_secs(10);
/// The last part is answered when the peer has loaded everything.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);

const _: () = assert!(PART_BYTES <= BULK_BYTES_MAX);

/// What one node asks of another.
#[derive(Serialize, Deserialize)]
pub struct Request {
    pub to: u64,
    pub call: Call,
}

#[derive(Serialize, Deserialize)]
pub enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    TransferLeader(TransferLeaderRequest<Types>),
    Snapshot(SnapshotPart),
}

/// What comes back.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    /// The part was taken; go on.
    Part,
    Snapshot(SnapshotResponse<Types>),
    /// Not now, or not here.
    Refused(String),
}

/// Packs a request or an answer.
///
/// # Errors
/// Only if a value cannot be expressed in postcard, which is a bug.
pub fn frame<T: Serialize>(value: &T, bulk: Bytes) -> io::Result<Frame> {
    Ok(Frame { kind: KIND_RAFT, message: to_bytes(value)?.into(), bulk })
}

/// Makes the callers.
pub struct Network {
    transport: Arc<dyn Transport>,
    snapshots: Arc<SnapshotDir>,
}

impl Network {
    pub fn new(transport: Arc<dyn Transport>, snapshots: Arc<SnapshotDir>) -> Network {
        Network { transport, snapshots }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &MetaInfo) -> Peer {
        let (transport, snapshots) = (Arc::clone(&self.transport), Arc::clone(&self.snapshots));
        Peer { transport, snapshots, id: target, address: node.address.clone() }
    }
}

/// The way to one peer.
pub struct Peer {
    transport: Arc<dyn Transport>,
    /// Told of one that turns out damaged on its way out.
    snapshots: Arc<SnapshotDir>,
    id: u64,
    address: String,
}

impl Peer {
    async fn call(&self, call: Call, bulk: Bytes, deadline: Duration) -> Result<Answer, RPCError<Types>> {
        let request = frame(&Request { to: self.id, call }, bulk).map_err(|error| unreachable(&error))?;
        let reply = self.transport.call(&self.address, request, deadline).await.map_err(|error| match error {
            // The connection was there: asking again at once may do.
            NetError::NoAnswer { .. } => RPCError::Network(NetworkError::new(&error)),
            _ => RPCError::Unreachable(Unreachable::new(&error)),
        })?;
        match from_bytes(&reply.message).map_err(|error| unreachable(&error))? {
            Answer::Refused(why) => Err(unreachable(&io::Error::other(why))),
            answer => Ok(answer),
        }
    }

    async fn send_snapshot(
        &self,
        vote: RaftVote,
        snapshot: SnapshotFile,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let total_bytes = snapshot.bytes;
        let mut offset = 0;
        let mut verified = false;
        loop {
            // Not before the first of many parts is taken: a peer that is away is tried again and again.
            if !verified && (offset > 0 || total_bytes <= PART_BYTES as u64) {
                self.read_snapshot(&snapshot, SnapshotFile::verify).await?;
                verified = true;
            }
            let bytes = self.read_snapshot(&snapshot, move |source| source.part(offset, PART_BYTES)).await?;
            let part = SnapshotPart { vote, meta: snapshot.meta.clone(), total_bytes, offset };
            offset += bytes.len() as u64;
            let deadline = if offset < total_bytes { PART_DEADLINE } else { INSTALL_DEADLINE };
            match self.call(Call::Snapshot(part), bytes.into(), deadline).await? {
                Answer::Part if offset < total_bytes => {}
                Answer::Snapshot(response) => return Ok(response),
                _ => return Err(unexpected().into()),
            }
        }
    }
}

impl Peer {
    /// Reads of a snapshot. One that cannot be read is not tried again: another is written, and sent when it is there.
    async fn read_snapshot<T: Send + 'static>(
        &self,
        snapshot: &SnapshotFile,
        read: impl FnOnce(&SnapshotFile) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RPCError<Types>> {
        let source = snapshot.clone();
        let read = move || if source.is_damaged() { Err(io::Error::other("it is damaged")) } else { read(&source) };
        let outcome = task::spawn_blocking(read).await.map_err(io::Error::other).and_then(|read| read);
        outcome.map_err(|error| {
            if !snapshot.is_damaged() {
                tracing::error!(snapshot = %snapshot.path().display(), %error, "a snapshot is not fit to be sent");
            }
            self.snapshots.distrust(snapshot);
            unreachable(&error)
        })
    }
}

type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// Lets a request that brings nothing but the news of a commit wait for the next, which brings it too.
fn gather<S>(input: S) -> impl Stream<Item = AppendEntriesRequest<Types>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    stream::unfold(input.fuse(), |mut input| async move {
        let mut request = input.next().await?;
        while request.entries.is_empty() {
            match tokio::time::timeout(COMMIT_GATHERING, input.next()).await {
                Ok(Some(next)) => request = next,
                Ok(None) | Err(_) => break,
            }
        }
        Some((request, input))
    })
}

fn unreachable(error: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn unexpected() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string("the answer is for another question"))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let deadline = option.hard_ttl().max(APPEND_DEADLINE);
        match self.call(Call::Append(request), Bytes::new(), deadline).await? {
            Answer::Append(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, Box::pin(gather(input)), option)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::Vote(request), Bytes::new(), option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::PreVote(request), Bytes::new(), option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot<Leader, u64, MetaInfo, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot.snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Call::TransferLeader(request), Bytes::new(), option.hard_ttl()).await? {
            Answer::TransferLeader(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use tokio::sync::mpsc;

    use super::*;
    use crate::meta::raft::log::LogPoint;
    use crate::meta::raft::types::{RaftEntry, log_id, vote};

    fn request(commit: u64, entries: u64) -> AppendEntriesRequest<Types> {
        let id = |index| log_id(LogPoint { term: 1, leader: 1, index });
        let entry = |index| RaftEntry { log_id: id(index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: vote(crate::meta::raft::log::VoteRecord { term: 1, leader: 1, committed: true }),
            prev_log_id: Some(id(9)),
            entries: (10..10 + entries).map(entry).collect(),
            leader_commit: Some(id(commit)),
        }
    }

    /// The commit of each request that was sent, and how many entries it brought.
    async fn sent(gathered: &mut (impl Stream<Item = AppendEntriesRequest<Types>> + Unpin)) -> Option<(u64, usize)> {
        let request = gathered.next().await?;
        Some((request.leader_commit.unwrap().index, request.entries.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_news_of_a_commit_goes_with_entries_or_after_a_while() {
        let (ask, asked) = mpsc::unbounded_channel();
        let input = stream::unfold(asked, |mut asked| async move { Some((asked.recv().await?, asked)) });
        let mut gathered = Box::pin(gather(Box::pin(input)));
        ask.send(request(7, 0)).unwrap();
        ask.send(request(8, 0)).unwrap();
        ask.send(request(8, 2)).unwrap();
        assert_eq!(sent(&mut gathered).await, Some((8, 2)), "all in one");
        let began = tokio::time::Instant::now();
        ask.send(request(9, 0)).unwrap();
        assert_eq!(sent(&mut gathered).await, Some((9, 0)));
        assert_eq!(began.elapsed(), COMMIT_GATHERING);
        ask.send(request(10, 0)).unwrap();
        drop(ask);
        assert_eq!(sent(&mut gathered).await, Some((10, 0)), "the last is not forgotten");
        assert_eq!(sent(&mut gathered).await, None);
    }
}
