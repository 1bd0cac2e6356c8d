//! Fold a batch to its net effect, group it into set-based statements.
