//! Decoder of pgoutput, the logical replication protocol, versions 1 to 4.
//!
//! In: one message as a slice of the read buffer. Out: a [`Message`] whose rows are slices of the same buffer (law 5).
//! Malformed input is an error, never a panic. The formats are those of
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>, what they mean together is in
//! <https://www.postgresql.org/docs/current/protocol-logical-replication.html>, and
//! `src/backend/replication/logical/proto.c` of the server writes them.
//!
//! | version | from server | messages | asked for by |
//! |---|---|---|---|
//! | 1 | 10 | Begin, Commit, Origin, Relation, Type, Insert, Update, Delete, Truncate | |
//! | 1 | 14 | Message | `messages` |
//! | 2 | 14 | Stream Start, Stream Stop, Stream Commit, Stream Abort | `streaming` |
//! | 3 | 15 | Begin Prepare, Prepare, Commit Prepared, Rollback Prepared, Stream Prepare | `two_phase` |
//! | 4 | 16 | place and time in Stream Abort | `streaming 'parallel'` |
//!
//! # What Cutwater asks for, and what not
//!
//! The highest version the server speaks ([`protocol_version`]), with `streaming` and `two_phase` off:
//!
//! - **`streaming` stays off.** With it the server sends a large transaction while it runs, and perhaps takes it back.
//!   The receiver then has to keep all of it, subtransaction by subtransaction, with the relations as that transaction
//!   alone sees them, until Stream Commit. Off, the server does just that, on its own disk
//!   (`logical_decoding_work_mem`), and we get whole transactions in commit order.
//! - **`two_phase` stays off.** With it a transaction comes when it is prepared. Applied as a PREPARE it would hold the
//!   checkpoint's row lock against ourselves; applied earlier, the target would show what is not committed. Off, it
//!   comes at its COMMIT PREPARED, like any other.
//!
//! The decoder reads those messages all the same, so that one that comes is told from one that is broken.

mod decode;
mod message;
#[cfg(test)]
mod tests;

pub use decode::{decode, decode_streamed};
pub use message::{AbortPlace, Message, OldRow, PgMicros, Prepared, Relation, RelationColumn};

/// The highest protocol version that a server of this `server_version_num` speaks.
pub fn protocol_version(server_version: i32) -> u8 {
    match server_version {
        160_000.. => 4,
        150_000.. => 3,
        140_000.. => 2,
        _ => 1,
    }
}
