//! The book of Holdfast, in reading order.
//!
//! 1. [Architecture](architecture): the parts, where to begin reading, what always holds
//! 2. [Semantics](semantics): what you may rely on, what survives what, where it differs from POSIX
//! 3. [Flows](flows): a look-up, a read, a write, an election, file by file
//! 4. [Formats](formats): every byte on disk and on the wire
//! 5. [Testing](testing): what is tested where, and how to replay a failure
//! 6. [Decisions](decisions): why it is so
//! 7. [Glossary](glossary): one word per thing
//!
//! The pages are compiled into the documentation, so a link into the code that is dead fails the build. What a single
//! module does stands with the module; these pages say what no module can say alone.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("semantics.md")]
pub mod semantics {}

#[doc = include_str!("flows.md")]
pub mod flows {}

#[doc = include_str!("formats.md")]
pub mod formats {}

#[doc = include_str!("testing.md")]
pub mod testing {}

pub mod decisions;

#[doc = include_str!("glossary.md")]
pub mod glossary {}
