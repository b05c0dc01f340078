use std::collections::{BTreeMap, BTreeSet};

use super::{
    Arc, Bytes, ChunkId, Duration, Frame, FsError, KIND_STORE, NetError, StoreClient, StoreClientOptions, StoreError,
    StoreId, StoreReply, StoreRequest, Table, Transport, decode, encode, mpsc, watch,
};
use crate::net::BoxFuture;
use crate::types::cluster::{ClusterMap, DiskInfo, StoreInfo};
use crate::types::id::DiskId;
use parking_lot::Mutex;

/// How a pretended store answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Full,
    Failed,
    Denies,
    /// Answers with other bytes.
    Lies,
    Unreachable,
    /// Answers when the test lets it.
    Slow,
}

/// Stores named `s1`, `s2`, … that hold everything that was put, each in its mood.
struct Pretend {
    moods: Mutex<BTreeMap<String, Mood>>,
    chunks: Mutex<BTreeMap<ChunkId, Bytes>>,
    asked: Mutex<Vec<String>>,
    go: tokio::sync::Semaphore,
}

impl Pretend {
    fn new(moods: &[Mood]) -> Arc<Pretend> {
        let moods = moods.iter().enumerate().map(|(at, mood)| (format!("s{}", at + 1), *mood)).collect();
        Arc::new(Pretend {
            moods: Mutex::new(moods),
            chunks: Mutex::default(),
            asked: Mutex::default(),
            go: tokio::sync::Semaphore::new(0),
        })
    }

    fn answer(&self, mood: Mood, request: &Frame) -> (StoreReply, Bytes) {
        let error = |error| (StoreReply::Error(error), Bytes::new());
        match (mood, decode::<StoreRequest>(&request.message).unwrap()) {
            (Mood::Full, _) => error(StoreError::Full),
            (Mood::Failed, _) => error(StoreError::DiskFailed("broken".to_owned())),
            (Mood::Denies, _) => error(StoreError::NotFound),
            (_, StoreRequest::Put { chunks, .. }) => {
                let mut at = 0;
                for chunk in chunks {
                    let end = at + chunk.bytes as usize;
                    self.chunks.lock().insert(chunk.id, request.bulk.slice(at..end));
                    at = end;
                }
                assert_eq!(at, request.bulk.len());
                (StoreReply::Put, Bytes::new())
            }
            (mood, StoreRequest::Get { id, offset, len }) => match self.chunks.lock().get(&id) {
                Some(chunk) => {
                    let mut bytes = chunk.slice(offset as usize..(offset + len) as usize).to_vec();
                    bytes[0] ^= u8::from(mood == Mood::Lies);
                    (StoreReply::Data { chunk_bytes: chunk.len() as u32 }, bytes.into())
                }
                None => error(StoreError::NotFound),
            },
            _ => error(StoreError::Invalid),
        }
    }
}

impl Transport for Pretend {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(async move {
            self.asked.lock().push(address.to_owned());
            let mood = self.moods.lock()[address];
            if mood == Mood::Unreachable {
                return Err(NetError::Unreachable { address: address.to_owned(), why: "no route".to_owned() });
            }
            if mood == Mood::Slow {
                self.go.acquire().await.unwrap().forget();
            }
            let (reply, bulk) = self.answer(mood, &request);
            Ok(Frame { kind: KIND_STORE, message: encode(&reply).into(), bulk })
        })
    }

    fn subscribe<'a>(
        &'a self,
        _address: &'a str,
        _request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        unreachable!("stores have no streams")
    }
}

fn table(stores: u64) -> watch::Receiver<Arc<Table>> {
    let store = |id: u64| StoreInfo {
        id: StoreId(id),
        address: format!("s{id}"),
        host: String::new(),
        zone: String::new(),
        disks: vec![DiskInfo { id: DiskId([id as u8; 16]), weight: 1 }],
    };
    let map = ClusterMap { epoch: 1, stores: (1..=stores).map(store).collect() };
    // The last value stays readable when the sender is gone.
    watch::channel(Arc::new(Table::new(map))).1
}

fn client(stores: &Arc<Pretend>, options: StoreClientOptions) -> StoreClient {
    let transport: Arc<dyn Transport> = Arc::clone(stores) as Arc<dyn Transport>;
    StoreClient::new(transport, table(stores.moods.lock().len() as u64), options)
}

fn one(text: &'static [u8]) -> (ChunkId, Bytes) {
    (ChunkId::of(text), Bytes::from_static(text))
}

#[tokio::test]
async fn a_put_needs_a_quorum_and_says_why_there_is_none() {
    use Mood::{Failed, Full, Good, Unreachable};
    let cases = [
        ([Good, Good, Good], Ok(())),
        ([Good, Full, Good], Ok(())),
        ([Unreachable, Good, Good], Ok(())),
        ([Good, Full, Full], Err(FsError::NoSpace)),
        ([Full, Full, Full], Err(FsError::NoSpace)),
        ([Unreachable, Good, Unreachable], Err(FsError::Unreachable)),
        ([Failed, Full, Good], Err(FsError::Unreachable)),
    ];
    for (moods, expected) in cases {
        let client = client(&Pretend::new(&moods), StoreClientOptions::default());
        assert_eq!(client.put(&[one(b"a"), one(b"b")], 1, 3).await, expected, "{moods:?}");
    }
}

#[tokio::test]
async fn too_few_stores_are_no_quorum() {
    let two = Pretend::new(&[Mood::Good; 2]);
    assert_eq!(client(&two, StoreClientOptions::default()).put(&[one(b"a")], 1, 3).await, Ok(()));
    let one_store = Pretend::new(&[Mood::Good]);
    let result = client(&one_store, StoreClientOptions::default()).put(&[one(b"a")], 1, 3).await;
    assert_eq!(result, Err(FsError::Unreachable));
    let none = Pretend::new(&[]);
    let client = client(&none, StoreClientOptions::default());
    assert_eq!(client.put(&[one(b"a")], 1, 1).await, Err(FsError::Unreachable));
    assert_eq!(client.get(ChunkId::of(b"a"), 0, 1, 1).await, Err(FsError::Unreachable));
}

#[tokio::test]
async fn stragglers_hold_their_room_until_they_end() {
    let stores = Pretend::new(&[Mood::Good, Mood::Slow, Mood::Good]);
    let client = client(&stores, StoreClientOptions { inflight_bytes: 4, ..StoreClientOptions::default() });
    client.put(&[one(b"abcd")], 1, 3).await.unwrap();
    assert_eq!(client.inflight.available_permits(), 0);
    let second = [one(b"efgh")];
    let mut second = Box::pin(client.put(&second, 1, 3));
    tokio::select! {
        biased;
        _ = &mut second => panic!("there was no room"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
    stores.go.add_permits(1);
    second.await.unwrap();
    stores.go.add_permits(1);
    let all = client.inflight.acquire_many(4).await.unwrap();
    drop(all);
    assert_eq!(stores.asked.lock().len(), 6);
}

#[tokio::test]
async fn many_chunks_share_calls_per_replica_set() {
    let stores = Pretend::new(&[Mood::Good; 4]);
    let client = client(&stores, StoreClientOptions::default());
    let chunks: Vec<(ChunkId, Bytes)> = (0..200_u32)
        .map(|at| Bytes::from(at.to_le_bytes().repeat(10)))
        .map(|bytes| (ChunkId::of(&bytes), bytes))
        .collect();
    client.put(&chunks, 1, 3).await.unwrap();
    for (id, bytes) in &chunks {
        assert_eq!(client.get(*id, 0, 40, 40).await.unwrap(), bytes);
        assert_eq!(client.get(*id, 4, 8, 40).await.unwrap(), bytes.slice(4..12));
    }
    // Four stores make four sets of three.
    let calls = stores.asked.lock().len() - 400;
    assert!(calls <= 12, "{calls} calls");
}

#[tokio::test]
async fn large_groups_are_split() {
    let stores = Pretend::new(&[Mood::Good; 3]);
    let client = client(&stores, StoreClientOptions::default());
    let chunks: Vec<(ChunkId, Bytes)> =
        (0..5_u8).map(|at| Bytes::from(vec![at; 1 << 20])).map(|bytes| (ChunkId::of(&bytes), bytes)).collect();
    client.put(&chunks, 1, 3).await.unwrap();
    assert_eq!(client.get(chunks[4].0, 0, 1 << 20, 1 << 20).await.unwrap(), chunks[4].1);
    let puts = stores.asked.lock().len() - 1;
    assert!((4..=6).contains(&puts), "{puts} calls");
}

#[tokio::test]
async fn a_get_goes_on_to_the_next() {
    use Mood::{Denies, Failed, Full, Good, Lies, Unreachable};
    for others in [Denies, Lies, Failed, Full, Unreachable] {
        for good in 0..3 {
            let mut moods = [others; 3];
            moods[good] = Good;
            let stores = Pretend::new(&moods);
            let (id, bytes) = one(b"somewhere");
            stores.chunks.lock().insert(id, bytes.clone());
            let client = client(&stores, StoreClientOptions::default());
            assert_eq!(client.get(id, 0, 9, 9).await, Ok(bytes), "{moods:?}");
        }
    }
}

#[tokio::test]
async fn lost_is_said_only_when_all_have_denied() {
    use Mood::{Denies, Failed, Lies, Unreachable};
    let id = ChunkId::of(b"gone");
    for (moods, expected) in [
        ([Denies, Denies, Denies, Denies], FsError::ChunkLost(id)),
        ([Denies, Lies, Denies, Lies], FsError::ChunkLost(id)),
        ([Denies, Denies, Denies, Unreachable], FsError::Unreachable),
        ([Failed, Denies, Denies, Denies], FsError::Unreachable),
    ] {
        let stores = Pretend::new(&moods);
        stores.chunks.lock().insert(id, Bytes::from_static(b"gone"));
        let client = client(&stores, StoreClientOptions::default());
        assert_eq!(client.get(id, 0, 4, 4).await, Err(expected), "{moods:?}");
        assert_eq!(stores.asked.lock().iter().collect::<BTreeSet<_>>().len(), 4);
    }
}

#[tokio::test]
async fn a_slow_replica_is_hedged() {
    let (id, bytes) = one(b"hedged");
    for slow in 0..3 {
        let mut moods = [Mood::Good; 3];
        moods[slow] = Mood::Slow;
        let stores = Pretend::new(&moods);
        stores.chunks.lock().insert(id, bytes.clone());
        let options = StoreClientOptions { hedge_after: Duration::from_millis(5), ..StoreClientOptions::default() };
        assert_eq!(client(&stores, options).get(id, 0, 6, 6).await, Ok(bytes.clone()));
    }
}

#[tokio::test]
async fn the_unreachable_are_asked_last() {
    let (id, bytes) = one(b"anywhere");
    let stores = Pretend::new(&[Mood::Unreachable, Mood::Good, Mood::Good]);
    stores.chunks.lock().insert(id, bytes);
    let mut client = client(&stores, StoreClientOptions::default());
    client.put(&[one(b"x")], 1, 3).await.unwrap();
    let _all = client.inflight.acquire_many(client.options.inflight_bytes).await.unwrap();
    for bias in 0..3 {
        client.bias = bias;
        stores.asked.lock().clear();
        client.get(id, 0, 8, 8).await.unwrap();
        assert!(!stores.asked.lock().contains(&"s1".to_owned()));
    }
}
