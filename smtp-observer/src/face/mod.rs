//! The faces: each a fold over observations, bounded, its drops counted.
