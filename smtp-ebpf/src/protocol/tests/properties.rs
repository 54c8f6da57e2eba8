//! Dialogues of random pieces.
