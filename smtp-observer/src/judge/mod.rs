//! What the dialogue means.
