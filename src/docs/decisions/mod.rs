//! Decisions: one short page each, saying what was chosen, why, and what was refused. A page is not rewritten when it
//! is overtaken; its status then names the page that did so.

#[doc = include_str!("0001-sled.md")]
pub mod sled {}

#[doc = include_str!("0002-openraft.md")]
pub mod openraft {}

#[doc = include_str!("0003-kernel-cache.md")]
pub mod kernel_cache {}

#[doc = include_str!("0004-collection-epochs.md")]
pub mod collection_epochs {}

#[doc = include_str!("0005-sync.md")]
pub mod sync {}

#[doc = include_str!("0006-what-fuser-does-not-pass.md")]
pub mod what_fuser_does_not_pass {}

#[doc = include_str!("0007-leases.md")]
pub mod leases {}

#[doc = include_str!("0008-inline-data.md")]
pub mod inline_data {}

#[doc = include_str!("0009-command-line.md")]
pub mod command_line {}

#[doc = include_str!("0010-source-of-a-mount.md")]
pub mod source_of_a_mount {}

#[doc = include_str!("0011-sync-calls.md")]
pub mod sync_calls {}

#[doc = include_str!("0012-fuser.md")]
pub mod fuser {}

#[doc = include_str!("0013-own-copy-of-sled.md")]
pub mod own_copy_of_sled {}

#[doc = include_str!("0014-kernel-attributes.md")]
pub mod kernel_attributes {}

#[doc = include_str!("0015-changes-made-here.md")]
pub mod changes_made_here {}

#[doc = include_str!("0016-lent-for-a-moment.md")]
pub mod lent_for_a_moment {}

#[doc = include_str!("0017-locks-decided-here.md")]
pub mod locks_decided_here {}

#[doc = include_str!("0018-one-host-at-a-time.md")]
pub mod one_host_at_a_time {}

#[doc = include_str!("0019-no-pages-for-reads.md")]
pub mod no_pages_for_reads {}

#[doc = include_str!("0020-short-circuit-reads.md")]
pub mod short_circuit_reads {}

#[doc = include_str!("0021-promised-of-a-quota.md")]
pub mod promised_of_a_quota {}

#[doc = include_str!("0022-looked-at-and-taken.md")]
pub mod looked_at_and_taken {}

#[doc = include_str!("0023-sizes-that-change.md")]
pub mod sizes_that_change {}

#[doc = include_str!("0024-heaps.md")]
pub mod heaps {}

#[doc = include_str!("0025-http.md")]
pub mod http {}

#[doc = include_str!("0026-a-mount-is-kept.md")]
pub mod a_mount_is_kept {}

#[doc = include_str!("0027-volumes-for-containers.md")]
pub mod volumes_for_containers {}

#[doc = include_str!("0028-csi.md")]
pub mod csi {}

#[doc = include_str!("0029-a-cluster-makes-itself.md")]
pub mod a_cluster_makes_itself {}

#[doc = include_str!("0030-hosts.md")]
pub mod hosts {}
