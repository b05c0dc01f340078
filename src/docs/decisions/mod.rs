#![doc = include_str!("list.md")]

#[doc = include_str!("sled.md")]
pub mod sled {}

#[doc = include_str!("openraft.md")]
pub mod openraft {}

#[doc = include_str!("kernel-cache.md")]
pub mod kernel_cache {}

#[doc = include_str!("garbage.md")]
pub mod garbage {}

#[doc = include_str!("syncfs.md")]
pub mod syncfs {}

#[doc = include_str!("lock-kinds.md")]
pub mod lock_kinds {}

#[doc = include_str!("cli-layer.md")]
pub mod cli_layer {}

#[doc = include_str!("mount-source.md")]
pub mod mount_source {}
