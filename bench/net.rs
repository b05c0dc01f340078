//! How fast calls are over loopback: latency, rate and bulk throughput, one thread per side.
//!
//! `cargo bench --bench net`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::crypto::ca::ClusterAuthority;
use holdfast::crypto::identity::Identity;
use holdfast::daemon::shutdown::Shutdown;
use holdfast::net::quic::QuicEndpoint;
use holdfast::net::{BoxFuture, Call, Frame, Service, Transport};
use holdfast::types::id::ClusterId;
use holdfast::types::record::Role;
use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(30);
const PINGS: usize = 20_000;
const DEPTH: usize = 32;
const BULK_BYTES: usize = 1 << 20;
const BULK_DEPTH: usize = 4;
const BULK_CALLS: usize = 1024;

/// Echoes messages; answers `get` with bulk and takes any bulk without sending it back.
struct Echo {
    bulk: Bytes,
}

impl Service for Echo {
    fn serve(&self, call: Call) -> BoxFuture<'static, ()> {
        let bulk = if call.request.message.as_ref() == b"get" { self.bulk.clone() } else { Bytes::new() };
        let reply = Frame { bulk, ..call.request };
        Box::pin(call.replier.reply(reply))
    }
}

fn main() {
    let authority = ClusterAuthority::create(ClusterId([1; 16])).expect("an authority");
    let issue = |role| Identity::issue(&authority, role, 1).expect("an identity");
    let (server, address) = serve(&issue(Role::Store));
    let runtime = runtime();
    runtime.block_on(async {
        let client = QuicEndpoint::bind(None, &issue(Role::Client)).expect("an endpoint");
        let caller = Arc::new(Caller { client, address });
        // The first calls pay for the handshake and for finding out what the path carries.
        caller.clone().run(1, 1000, ping()).await;
        caller.clone().run(BULK_DEPTH, 256, put()).await;
        caller.latency().await;
        let cost = caller.clone().run(DEPTH, PINGS * 5, ping()).await;
        println!("depth {DEPTH}: {:.0} calls/s, {:.1} us of processor each", cost.per_second(), cost.processor_us());
        for (name, request) in [("to the server", put()), ("from the server", get())] {
            for depth in [1, BULK_DEPTH] {
                let cost = caller.clone().run(depth, BULK_CALLS, request.clone()).await;
                let rate = cost.per_second() * BULK_BYTES as f64 / 1e6;
                println!(
                    "bulk {name}, depth {depth}: {rate:.0} MB/s, {:.0} us of processor per MiB",
                    cost.processor_us()
                );
            }
        }
    });
    server.shutdown_background();
}

fn ping() -> Frame {
    Frame { kind: 1, message: Bytes::from_static(b"ping"), bulk: Bytes::new() }
}

fn put() -> Frame {
    Frame { kind: 1, message: Bytes::from_static(b"put"), bulk: Bytes::from(vec![7; BULK_BYTES]) }
}

fn get() -> Frame {
    Frame { kind: 1, message: Bytes::from_static(b"get"), bulk: Bytes::new() }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn serve(identity: &Identity) -> (Runtime, String) {
    let runtime = runtime();
    let entered = runtime.enter();
    let listen = "127.0.0.1:0".parse().expect("an address");
    let endpoint = QuicEndpoint::bind(Some(listen), identity).expect("an endpoint");
    drop(entered);
    let address = endpoint.local_address().to_string();
    let service = Arc::new(Echo { bulk: Bytes::from(vec![9; BULK_BYTES]) });
    runtime.spawn(async move { endpoint.serve(service, Shutdown::new()).await });
    (runtime, address)
}

/// What calls took. On a busy machine the processor time of both sides together says more than the clock.
struct Cost {
    at: Instant,
    took: Duration,
    processor: Duration,
    count: usize,
}

impl Cost {
    fn so_far() -> Cost {
        // SAFETY: all zeroes is a valid rusage, and it is valid for the call to fill in.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        let processor = of(usage.ru_utime) + of(usage.ru_stime);
        Cost { at: Instant::now(), took: Duration::ZERO, processor, count: 0 }
    }

    fn until_now(self, count: usize) -> Cost {
        let processor = Cost::so_far().processor - self.processor;
        Cost { took: self.at.elapsed(), processor, count, ..self }
    }

    fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    fn processor_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.count as f64
    }
}

struct Caller {
    client: QuicEndpoint,
    address: String,
}

impl Caller {
    async fn call(&self, request: Frame) {
        self.client.call(&self.address, request, PATIENCE).await.expect("a reply");
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

    async fn latency(self: &Arc<Self>) {
        let caller = self.clone();
        // In a task, as everything in a daemon is: a call from `block_on` costs a thread switch more.
        let measured = tokio::spawn(async move {
            let mut times = Vec::with_capacity(PINGS);
            for _ in 0..PINGS {
                let begin = Instant::now();
                caller.call(ping()).await;
                times.push(begin.elapsed());
            }
            times
        });
        let mut times = measured.await.expect("calls");
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1e3;
        println!("ping: median {:.1} us, 99th percentile {:.1} us", at(0.5), at(0.99));
    }
}
