//! Faults on demand, and that a seed repeats them.

use super::{
    Arc, CLIENT, Duration, NetError, PATIENCE, Served, SimNet, TestService, Transport, join_all, text, timeout,
};

fn rig(seed: u64) -> (SimNet, Arc<TestService>, Arc<dyn Transport>) {
    let net = SimNet::new(seed);
    let service = TestService::new();
    net.register("a", Arc::new(Served(service.clone())));
    let client = net.transport(CLIENT, "c");
    (net, service, client)
}

async fn echo(client: &Arc<dyn Transport>) -> Result<(), NetError> {
    client.call("a", text("echo"), PATIENCE).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_unreachable_until_it_heals() {
    let (net, service, client) = rig(1);
    net.cut("c", "a");
    assert!(matches!(echo(&client).await, Err(NetError::Unreachable { .. })));
    net.cut("x", "y");
    net.heal();
    echo(&client).await.unwrap();
    assert_eq!(service.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_in_mid_call_is_only_slow() {
    let (net, service, client) = rig(1);
    net.set_latency(Duration::from_millis(10), Duration::from_millis(10));
    let faults = async {
        tokio::time::sleep(Duration::from_millis(15)).await;
        net.cut("c", "a");
        tokio::time::sleep(Duration::from_secs(2)).await;
        net.heal();
    };
    let (reply, ()) = tokio::join!(echo(&client), faults);
    reply.unwrap();
    assert_eq!(service.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_cut_in_mid_call_is_no_answer() {
    let (net, service, client) = rig(1);
    let call = client.call("a", text("park"), PATIENCE);
    let faults = async {
        tokio::time::sleep(Duration::from_millis(15)).await;
        net.cut_one_way("a", "c");
    };
    let before = tokio::time::Instant::now();
    let (reply, ()) = tokio::join!(call, faults);
    assert!(matches!(reply, Err(NetError::NoAnswer { .. })), "{reply:?}");
    assert!(before.elapsed() < Duration::from_secs(5));
    service.closed_once().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_was_executed_and_a_lost_request_was_not() {
    let (net, service, client) = rig(1);
    net.set_losses(0, 1000);
    assert!(matches!(echo(&client).await, Err(NetError::NoAnswer { .. })));
    assert_eq!(service.begun(), 1);
    net.set_losses(1000, 0);
    assert!(matches!(echo(&client).await, Err(NetError::NoAnswer { .. })));
    assert_eq!(service.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_dead_neither_answer_nor_call_until_revived() {
    let (net, _, client) = rig(1);
    net.register("b", Arc::new(Served(TestService::new())));
    let dead = net.transport(None, "b");
    net.kill("b");
    assert!(echo(&dead).await.is_err());
    assert!(client.call("b", text("echo"), PATIENCE).await.is_err());
    net.revive("b");
    echo(&dead).await.unwrap();
    client.call("b", text("echo"), PATIENCE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_server() {
    let (net, _, client) = rig(1);
    let mut frames = client.subscribe("a", text("flood")).await.unwrap();
    frames.recv().await.unwrap();
    net.kill("a");
    timeout(Duration::from_secs(10), async { while frames.recv().await.is_some() {} }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_its_faults() {
    async fn run(seed: u64) -> Vec<bool> {
        let (net, _, client) = rig(seed);
        net.set_losses(200, 200);
        join_all((0..50).map(|_| echo(&client))).await.iter().map(Result::is_ok).collect()
    }
    let first = run(3).await;
    assert_eq!(first, run(3).await);
    assert_ne!(first, run(4).await);
    assert!(first.contains(&true) && first.contains(&false));
}
