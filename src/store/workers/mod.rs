//! What a store does unasked.
