//! How fast calls are, and what each setting of the transport brings: one thread per side, over loopback and over a path that
//! takes its time and loses datagrams. Prints a table; the last one is in `bench/NET.md`.
//!
//! `cargo bench --bench net`, or with `-- ROUNDS` for another number of them than three. Settings take turns, so that an hour in which
//! the machine is slow is slow for all of them; medians are shown.

mod cost;
mod path;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::crypto::ca::ClusterAuthority;
use holdfast::crypto::identity::Identity;
use holdfast::crypto::tls::Cipher;
use holdfast::daemon::shutdown::Shutdown;
use holdfast::net::quic::QuicEndpoint;
use holdfast::net::settings::{Congestion, Tuning};
use holdfast::net::{BoxFuture, Call, Frame, Service, Transport};
use holdfast::types::id::ClusterId;
use holdfast::types::record::Role;
use tokio::runtime::{Builder, Runtime};

use cost::Cost;
use path::Path;

const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 3;
const PINGS: usize = 4_000;
const DEPTH: usize = 16;
const CALLS: usize = 24_000;
const PAGE_BYTES: usize = 4096;
const BULK_BYTES: usize = 1 << 20;
const BULK_DEPTH: usize = 4;
const BULK_CALLS: usize = 192;
/// Another building, and another city.
const PATHS: [Path; 2] = [
    Path { delay: Duration::from_micros(500), loses_one_in: 10_000 },
    Path { delay: Duration::from_millis(10), loses_one_in: 1_000 },
];
const PATH_CALLS: usize = 16;

const COLUMNS: [(&str, usize); 8] = [
    ("ping, us", 1),
    ("4 KiB reads at 16, /s", 0),
    ("processor for one, us", 1),
    ("1 MiB to a server, MB/s", 0),
    ("processor per MiB, us", 0),
    ("1 MiB from a server, MB/s", 0),
    ("1 ms, 0.01 % lost, MB/s", 0),
    ("20 ms, 0.1 % lost, MB/s", 0),
];

/// What the rows differ in: the setting, and over how many connections the calls take turns.
struct Variant {
    name: &'static str,
    tuning: Tuning,
    connections: usize,
}

fn variants() -> Vec<Variant> {
    let several = [("two connections", 2), ("four connections", 4)];
    let several = several.map(|(name, connections)| Variant { name, tuning: Tuning::default(), connections });
    let settings = settings().into_iter().map(|(name, tuning)| Variant { name, tuning, connections: 1 });
    settings.chain(several).collect()
}

fn settings() -> Vec<(&'static str, Tuning)> {
    let ours = Tuning::default;
    vec![
        ("as it is", ours()),
        ("packets of 1,452", Tuning { packet_bytes: 1_452, ..ours() }),
        ("packets of 1,452, no offload", Tuning { packet_bytes: 1_452, segmentation_offload: false, ..ours() }),
        ("packets of 8,952, no offload", Tuning { packet_bytes: 8_952, segmentation_offload: false, ..ours() }),
        ("acknowledgement of every fourth", Tuning { ack_every: Some(4), ..ours() }),
        ("acknowledgement of every tenth", Tuning { ack_every: Some(10), ..ours() }),
        ("NewReno", Tuning { congestion: Congestion::NewReno, ..ours() }),
        ("BBR", Tuning { congestion: Congestion::Bbr, ..ours() }),
        ("initial window of 14 KB", Tuning { initial_window_bytes: 14_720, ..ours() }),
        ("stream window of 1.25 MB", Tuning { stream_window_bytes: 1_250_000, ..ours() }),
        ("AES-256-GCM", Tuning { cipher: Cipher::Aes256Gcm, ..ours() }),
        ("ChaCha20-Poly1305", Tuning { cipher: Cipher::ChaCha20Poly1305, ..ours() }),
    ]
}

/// Echoes messages; answers `get` with bulk, `page` with a page of it, and takes any bulk without sending it back.
struct Echo {
    bulk: Bytes,
}

impl Service for Echo {
    fn serve(&self, call: Call) -> BoxFuture<'static, ()> {
        let bulk = match call.request.message.as_ref() {
            b"get" => self.bulk.clone(),
            b"page" => self.bulk.slice(..PAGE_BYTES),
            _ => Bytes::new(),
        };
        let reply = Frame { bulk, ..call.request };
        Box::pin(call.replier.reply(reply))
    }
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let authority = ClusterAuthority::create(ClusterId([1; 16])).expect("an authority");
    let issue = |role| Identity::issue(&authority, role, 1).expect("an identity");
    let (server, client) = (issue(Role::Store), issue(Role::Client));
    let variants = variants();
    let mut measured = vec![Vec::new(); variants.len()];
    for round in 1..=rounds {
        for (variant, rows) in variants.iter().zip(&mut measured) {
            eprintln!("round {round} of {rounds}: {}", variant.name);
            rows.push(measure(&server, &client, variant));
        }
    }
    println!("| setting |{} |", COLUMNS.map(|(name, _)| format!(" {name} |")).concat().trim_end_matches(" |"));
    println!("|---|{}", "---:|".repeat(COLUMNS.len()));
    for (Variant { name, .. }, rows) in variants.iter().zip(&mut measured) {
        let cells = (0..COLUMNS.len()).map(|column| {
            let mut values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
            values.sort_unstable_by(f64::total_cmp);
            format!(" {:.*} |", COLUMNS[column].1, values[values.len() / 2])
        });
        println!("| {name} |{}", cells.collect::<String>());
    }
}

/// One row, in the order of [`COLUMNS`].
fn measure(server: &Identity, client: &Identity, variant: &Variant) -> [f64; COLUMNS.len()] {
    let (serving, address) = serve(server, &variant.tuning);
    let near = Near::measure(client, variant, address);
    let far = PATHS.map(|path| {
        let runtime = runtime();
        // A relay has one end on either side.
        let relays: Vec<_> = (0..variant.connections).map(|_| path::through(path, address)).collect();
        runtime.block_on(async {
            let addresses: Vec<_> = relays.iter().map(|relay| relay.address).collect();
            let caller = Caller::new(client, &variant.tuning, &addresses);
            caller.clone().run(1, variant.connections, request(b"ping")).await;
            rate(&caller.run(BULK_DEPTH, PATH_CALLS, put()).await)
        })
    });
    serving.shutdown_background();
    [near.ping_us, near.pages_per_second, near.page_us, near.put, near.put_us, near.get, far[0], far[1]]
}

/// MB/s of bulk.
fn rate(cost: &Cost) -> f64 {
    cost.per_second() * BULK_BYTES as f64 / 1e6
}

/// What is measured over loopback.
struct Near {
    ping_us: f64,
    pages_per_second: f64,
    page_us: f64,
    put: f64,
    put_us: f64,
    get: f64,
}

impl Near {
    fn measure(client: &Identity, variant: &Variant, address: SocketAddr) -> Near {
        runtime().block_on(async {
            let caller = Caller::new(client, &variant.tuning, &vec![address; variant.connections]);
            // The first calls pay for the handshake and for finding out what the path carries.
            caller.clone().run(1, 500, request(b"ping")).await;
            caller.clone().run(BULK_DEPTH, 64, put()).await;
            let ping_us = caller.latency().await;
            let pages = caller.clone().run(DEPTH, CALLS, request(b"page")).await;
            let puts = caller.clone().run(BULK_DEPTH, BULK_CALLS, put()).await;
            let gets = caller.run(BULK_DEPTH, BULK_CALLS, request(b"get")).await;
            Near {
                ping_us,
                pages_per_second: pages.per_second(),
                page_us: pages.processor_us(),
                put: rate(&puts),
                put_us: puts.processor_us(),
                get: rate(&gets),
            }
        })
    }
}

fn request(message: &'static [u8]) -> Frame {
    Frame { kind: 1, message: Bytes::from_static(message), bulk: Bytes::new() }
}

fn put() -> Frame {
    Frame { kind: 1, message: Bytes::from_static(b"put"), bulk: Bytes::from(vec![7; BULK_BYTES]) }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn serve(identity: &Identity, tuning: &Tuning) -> (Runtime, SocketAddr) {
    let runtime = runtime();
    let entered = runtime.enter();
    let listen = "127.0.0.1:0".parse().expect("an address");
    let endpoint = QuicEndpoint::bind_tuned(Some(listen), identity, tuning).expect("an endpoint");
    drop(entered);
    let address = endpoint.local_address();
    let service = Arc::new(Echo { bulk: Bytes::from(vec![9; BULK_BYTES]) });
    runtime.spawn(async move { endpoint.serve(service, Shutdown::new()).await });
    (runtime, address)
}

/// Calls take turns on its endpoints, of which each has a connection.
struct Caller {
    clients: Vec<(QuicEndpoint, String)>,
    turns: AtomicUsize,
}

impl Caller {
    fn new(identity: &Identity, tuning: &Tuning, addresses: &[SocketAddr]) -> Arc<Caller> {
        let bind = || QuicEndpoint::bind_tuned(None, identity, tuning).expect("an endpoint");
        let clients = addresses.iter().map(|address| (bind(), address.to_string())).collect();
        Arc::new(Caller { clients, turns: AtomicUsize::new(0) })
    }

    async fn call(&self, request: Frame) {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        let (client, address) = &self.clients[turn];
        client.call(address, request, PATIENCE).await.expect("a reply");
    }

    /// `count` calls, `depth` at a time.
    async fn run(self: Arc<Self>, depth: usize, count: usize, request: Frame) -> Cost {
        let begin = Cost::so_far();
        let tasks: Vec<_> = (0..depth)
            .map(|_| {
                let (caller, request) = (self.clone(), request.clone());
                tokio::spawn(async move {
                    for _ in 0..count / depth {
                        caller.call(request.clone()).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("calls");
        }
        begin.until_now(count)
    }

    /// The median, in microseconds.
    async fn latency(self: &Arc<Self>) -> f64 {
        let caller = self.clone();
        // In a task, as everything in a daemon is: a call from `block_on` costs a thread switch more.
        let measured = tokio::spawn(async move {
            let mut times = Vec::with_capacity(PINGS);
            for _ in 0..PINGS {
                let begin = Instant::now();
                caller.call(request(b"ping")).await;
                times.push(begin.elapsed());
            }
            times
        });
        let mut times = measured.await.expect("calls");
        times.sort_unstable();
        times[times.len() / 2].as_nanos() as f64 / 1e3
    }
}
