#![doc = include_str!("reading-list.md")]

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("semantics.md")]
pub mod semantics {}

#[doc = include_str!("flows.md")]
pub mod flows {}

#[doc = include_str!("formats.md")]
pub mod formats {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

pub mod decisions;
