//! The messages of pgoutput as values: what [`super::decode`] makes.

use bytes::Bytes;

use crate::change::{Lsn, Row};

/// Microseconds since 2000-01-01, as Postgres counts them.
pub type PgMicros = i64;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// `Begin`
    Begin {
        /// Where the commit record of the transaction starts.
        final_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
        /// Its id.
        xid: u32,
    },
    /// `Commit`
    Commit {
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where it ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
    },
    /// `Origin`: the transaction came from another server, by replication.
    Origin {
        /// Its commit there.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: String,
    },
    /// `Relation`
    Relation(Relation),
    /// `Type`
    Type {
        /// OID of a type that is not built in.
        oid: u32,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
    },
    /// `Insert`
    Insert {
        /// OID of the relation.
        relation: u32,
        /// The new row.
        new: Row,
    },
    /// `Update`
    Update {
        /// OID of the relation.
        relation: u32,
        /// The old row, if it was sent.
        old: Option<OldRow>,
        /// The new row.
        new: Row,
    },
    /// `Delete`
    Delete {
        /// OID of the relation.
        relation: u32,
        /// The old row.
        old: OldRow,
    },
    /// `Truncate`
    Truncate {
        /// OIDs of the relations.
        relations: Vec<u32>,
        /// Bit 0 of the options.
        cascade: bool,
        /// Bit 1 of the options.
        restart_identity: bool,
    },
    /// `Message` (`pg_logical_emit_message`)
    Logical {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// Where it was written.
        lsn: Lsn,
        /// Its prefix.
        prefix: String,
        /// Its content.
        content: Bytes,
    },
    /// `Stream Start` (protocol 2): until the next stop, messages carry the id of their (sub)transaction.
    StreamStart {
        /// The transaction.
        xid: u32,
        /// Whether this is the first piece of it.
        first: bool,
    },
    /// `Stream Stop` (protocol 2)
    StreamStop,
    /// `Stream Commit` (protocol 2)
    StreamCommit {
        /// The transaction.
        xid: u32,
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where it ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
    },
    /// `Stream Abort` (protocol 2)
    StreamAbort {
        /// The transaction.
        xid: u32,
        /// The subtransaction that is undone; the same as `xid` for all of it.
        subtransaction: u32,
        /// Where and when it was undone: sent by protocol 4 with `streaming 'parallel'` alone.
        place: Option<AbortPlace>,
    },
    /// `Begin Prepare` (protocol 3): stands where `Begin` does, for a transaction that is sent when it is prepared.
    BeginPrepare(Prepared),
    /// `Prepare` (protocol 3): ends what `BeginPrepare` began; nothing of it is committed yet.
    Prepare(Prepared),
    /// `Commit Prepared` (protocol 3)
    CommitPrepared {
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where it ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
        /// The transaction's id.
        xid: u32,
        /// The name it was prepared under.
        gid: String,
    },
    /// `Rollback Prepared` (protocol 3)
    RollbackPrepared {
        /// Where the prepare record ends: by it the receiver knows whether it ever got the prepared transaction.
        prepare_end_lsn: Lsn,
        /// Where the rollback record ends.
        end_lsn: Lsn,
        /// When it was prepared.
        prepare_time: PgMicros,
        /// When it was rolled back.
        rollback_time: PgMicros,
        /// The transaction's id.
        xid: u32,
        /// The name it was prepared under.
        gid: String,
    },
    /// `Stream Prepare` (protocol 3): ends a transaction that came in pieces as `Prepare` does.
    StreamPrepare(Prepared),
}

/// A transaction that is prepared, for [`Message::BeginPrepare`], [`Message::Prepare`] and [`Message::StreamPrepare`].
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where it ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: PgMicros,
    /// The transaction's id.
    pub xid: u32,
    /// The name it was prepared under.
    pub gid: String,
}

/// See [`Message::StreamAbort`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AbortPlace {
    /// Where the abort record is.
    pub lsn: Lsn,
    /// When.
    pub time: PgMicros,
}

/// An old row: `K` or `O` of `Update` and `Delete`.
#[derive(Debug, Clone, PartialEq)]
pub struct OldRow {
    /// The row; with `key_only` the other columns are NULL.
    pub row: Row,
    /// `K`: only the replica identity's columns; `O`: the whole row (REPLICA IDENTITY FULL).
    pub key_only: bool,
}

/// `Relation`: sent before the first change of a table, and again when it has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// OID.
    pub id: u32,
    /// Schema; empty for `pg_catalog`.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_class.relreplident`.
    pub replica_identity: u8,
    /// The published columns in order.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier.
    pub modifier: i32,
}
