//! The model test: random operations by two clients of one cluster, and by a reference file system in memory that has
//! only one definition of what is right. After every step the outcomes are compared, at the end the whole namespace as
//! each client sees it.
//!
//! `HOLDFAST_MODEL_CASES` and `HOLDFAST_MODEL_STEPS` say how much of it; a failing case is shrunk and printed, and kept
//! in `tests/model/main.proptest-regressions`.

mod cluster;
mod ops;
// By path, so that its own modules are looked for beside it.
#[path = "reference.rs"]
mod reference;

use std::sync::Arc;
use std::time::Duration;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use cluster::Cluster;
use holdfast::types::limits::CHUNK_BYTES_MIN;
use ops::{Step, World, steps};
use reference::Reference;

const CLIENTS: usize = 2;
/// No step may take longer, whatever it has to wait for.
const STEP_PATIENCE: Duration = Duration::from_secs(20);

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn two_clients_agree_with_the_reference() {
    let cases = number("HOLDFAST_MODEL_CASES", 4);
    let count = number("HOLDFAST_MODEL_STEPS", 250) as usize;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let config = Config { cases, max_shrink_iters: 32, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(CLIENTS, count), |steps| runtime.block_on(compare(&steps)))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

async fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let cluster = Cluster::start(1, CHUNK_BYTES_MIN).await;
    let clients = vec![cluster.client("host-a").await, cluster.client("host-b").await];
    let reference = Arc::new(Reference::with_capacity(1 << 40));
    let mut real = World::new(clients.clone());
    let mut model = World::new(vec![reference; CLIENTS]);
    for (number, step) in steps.iter().enumerate() {
        let Ok(got) = tokio::time::timeout(STEP_PATIENCE, real.run(step)).await else {
            return Err(TestCaseError::fail(format!("step {number} {step:?} hangs")));
        };
        let expected = model.run(step).await;
        if got != expected {
            let why = format!("step {number} {step:?}:\n  cluster   {}\n  reference {}", show(&got), show(&expected));
            return Err(TestCaseError::fail(why));
        }
    }
    for client in 0..CLIENTS {
        let (got, expected) = (real.survey(client).await, model.survey(client).await);
        if got != expected {
            return Err(TestCaseError::fail(format!("client {client} ends with {got:?}, the reference {expected:?}")));
        }
    }
    for client in clients {
        client.stop().await.expect("a clean end");
    }
    cluster.stop().await;
    Ok(())
}

/// Bytes by the thousand say little: where they are is shown by length and digest.
fn show(outcome: &ops::Outcome) -> String {
    match outcome {
        ops::Outcome::Bytes(bytes) if bytes.len() > 64 => {
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            format!("{} bytes ({zeros} zeros), {:?}", bytes.len(), holdfast::types::digest::ChunkId::of(bytes))
        }
        other => format!("{other:?}"),
    }
}
