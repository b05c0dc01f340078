//! Volumes with quotas: what is added here is covered by what was promised.

use super::alone::alone;
use super::*;
use crate::types::allowance::Allowance;

const MIB: u64 = 1 << 20;

fn bounded(promises: Allowance) -> Cluster {
    let cluster = Cluster::new();
    cluster.meta.fault(|faults| faults.promises = Some(promises));
    cluster
}

/// Makes a file; whether the leader knows of it at once.
async fn is_known(cluster: &Cluster, client: &Client, text: &str) -> bool {
    let (ino, _) = create(client, text).await;
    cluster.meta.attr(ino).is_some()
}

#[tokio::test(start_paused = true)]
async fn so_many_names_are_made_here_as_were_promised() {
    let cluster = bounded(Allowance { inodes: 20, bytes: MIB });
    let client = cluster.client().await;
    alone(&client).await;
    // More is asked for, in vain; then what is left is used.
    client.sync().await.unwrap();
    let mut here = 0;
    while !is_known(&cluster, &client, &format!("f{here}")).await {
        here += 1;
        assert!(here <= 20, "more than was promised");
    }
    assert!(here >= 10, "{here}");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_within_what_was_promised_is_not_waited_for() {
    let cluster = bounded(Allowance { inodes: 20, bytes: MIB });
    cluster.meta.fault(|faults| faults.free_bytes = 32 * MIB);
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f").await;
    let chunk = pattern(CHUNK_BYTES as usize / 2, 1);
    let mut offset = 0;
    while client.try_write(ino, handle, at(offset, &chunk)).is_some() {
        offset += u64::from(CHUNK_BYTES);
        assert!(offset < 64 * MIB);
    }
    let taken = offset / u64::from(CHUNK_BYTES) * chunk.len() as u64;
    assert!((MIB / 2..=MIB).contains(&taken), "{taken} bytes were taken, not written");
    write(&client, ino, handle, offset, &chunk).await;
    client.fsync(ino, Some(handle)).await.unwrap();
    assert_eq!(read(&client, ino, handle, offset, 9).await, chunk[..9]);
}

#[tokio::test(start_paused = true)]
async fn what_others_need_goes_back_and_is_asked_for_again_later() {
    let cluster = bounded(Allowance { inodes: 500, bytes: 500 * MIB });
    let client = cluster.client().await;
    alone(&client).await;
    assert!(!is_known(&cluster, &client, "here").await);
    assert!(!cluster.meta.promised().is_none());
    let (source, from) = create(&client, "source").await;
    write(&client, source, from, 0, &pattern(CHUNK_BYTES as usize, 3)).await;
    client.sync().await.unwrap();
    let (copy, to) = create(&client, "copy").await;
    // Neither the names nor the copy are at the leader, which hears of what is given back before.
    let copied = client.copy_range((source, from, 0), (copy, to, 0), CHUNK_BYTES.into()).await;
    assert_eq!((copied, cluster.meta.attr(copy)), (Ok(CHUNK_BYTES.into()), None));
    cluster.meta.fault(|faults| faults.scarce = true);
    cluster.meta.ask_to_spare();
    while cluster.meta.promised().bytes > MIB {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let kept = Allowance { inodes: 1, bytes: CHUNK_BYTES.into() };
    assert_eq!((cluster.meta.promised(), cluster.meta.attr(copy)), (kept, None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.meta.promised(), Allowance::default());
    cluster.meta.fault(|faults| faults.scarce = false);
    assert!(is_known(&cluster, &client, "there").await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    is_known(&cluster, &client, "asks").await;
    assert!(!is_known(&cluster, &client, "here again").await);
    client.sync().await.unwrap();
    assert_eq!(client.readdir(Ino::ROOT, None, 0).await.unwrap().len(), 8);
}
